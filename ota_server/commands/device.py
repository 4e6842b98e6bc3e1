"""The command `device`: give a device a label, or forget it. I/O."""

import argparse

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    key_of,
    mac_argument,
    typed,
    warn,
)
from ota_server.journal.replay import newest
from ota_server.model.refusal import Misused
from ota_server.operations import device_warnings
from ota_server.operations.typed_values import parse_label, parse_unseen
from ota_server.policy import forget_device, labels
from ota_server.system.data_dir import journal_dir

_EXAMPLES = """\
  %(prog)s label 00:11:22:33:44:55 'pump house'
  %(prog)s forget 00:11:22:33:44:55

%(prog)s PART --help says more.
"""
_LABEL_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55 'pump house, north'   `devices` and `why` show it
  %(prog)s 00:11:22:33:44:55 ''                    it no longer has a label
"""
_FORGET_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55   a device that was scrapped
  %(prog)s --unseen 90d        all that have not been heard from for 90 days

The device goes from the table and from the counts of rollouts. If it asks again, it is a new
device. Its history stays in the files of the journal until those are deleted. Pins and groups
stay.
"""


def add_commands(commands: Commands) -> None:
    """Add `device` with its parts."""
    parts = add_command_of_parts(
        commands,
        "device",
        "give a device a label, or forget it",
        "Give a device a label, or forget it; `devices` shows them.",
        _EXAMPLES,
        "label or forget",
    )
    labelling = add_command(
        parts,
        "label",
        "give a device a label",
        "Give a device a label; the device itself never learns of it.",
        _LABEL_EXAMPLES,
        _label,
    )
    labelling.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")
    labelling.add_argument(
        "text", metavar="TEXT", type=typed(parse_label), help="up to 64 characters; '' removes it"
    )
    forgetting_part = add_command(
        parts,
        "forget",
        "remove a device from the table",
        "Remove a device and its label from the table, or all that have long been silent.",
        _FORGET_EXAMPLES,
        _forget,
    )
    forgetting_part.add_argument(
        "mac", metavar="MAC", nargs="?", type=mac_argument, help="the device"
    )
    forgetting_part.add_argument(
        "--unseen",
        metavar="TIME",
        type=typed(parse_unseen),
        help="all devices that have not been heard from for so long, such as 90d; at least 1d",
    )


def _label(arguments: argparse.Namespace) -> int:
    data_dir, mac, text = arguments.data_dir, arguments.mac, arguments.text
    before = labels.set_label(data_dir, mac, text)
    if newest(journal_dir(data_dir), key_of(arguments, mac)) is None:
        warn(f"{mac} is not on record; check the MAC address. The label is kept for it")
    for problem in device_warnings.same_label(data_dir, mac, text):
        warn(problem)
    was = f", no longer {before}" if before not in (None, text) else ""
    print(f"{mac} is called {text}{was}" if text else f"{mac} has no label{was}")
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    data_dir, mac = arguments.data_dir, arguments.mac
    if (mac is None) == (arguments.unseen is None):
        raise Misused("name one device, or give --unseen for all that have long been silent")
    if mac is None:
        count, is_done = forget_device.forget_unseen(data_dir, arguments.unseen)
        when = "" if is_done else ", by the running server: its log says when it is done"
        print(f"forgotten, as not heard from for so long: {count}{when}")
        return 0
    key = key_of(arguments, mac)
    is_done = forget_device.forget(data_dir, key)
    print(f"{mac} is forgotten{'' if is_done else ' by the running server in a moment'}")
    for problem in device_warnings.still_named(data_dir, [key]):
        warn(problem)
    return 0
