"""The command `device`: give one a label, or forget it. Edge."""

import argparse

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    mac_argument,
    warn,
)
from ota_server.journal.replay import newest
from ota_server.policy import forget_device, labels
from ota_server.policy.files import PolicyFiles
from ota_server.system.data_dir import log_dir

_EXAMPLES = """\
  %(prog)s label 00:11:22:33:44:55 'pump house'
  %(prog)s forget 00:11:22:33:44:55

%(prog)s PART --help says more.
"""
_LABEL_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55 'pump house, north'   `devices` and `why` show it
  %(prog)s 00:11:22:33:44:55 ''                    it has no label any more
"""
_FORGET_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55   a device that was scrapped

It goes from the table and from the counts of rollouts. Should it ask again it is a new device. What
is on record of it up to now stays in the files of the journal until these are deleted.
"""


def add_commands(commands: Commands) -> None:
    """Add the command, with its parts, to those of the command line."""
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
        "say what a device is called",
        "Say what a device is called; the device itself never learns of it.",
        _LABEL_EXAMPLES,
        _label,
    )
    labelling.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")
    labelling.add_argument(
        "text", metavar="TEXT", type=_label_argument, help="up to 64 characters; '' for none"
    )
    forgetting_part = add_command(
        parts,
        "forget",
        "take a device from the table",
        "Take a device from the table, with its label.",
        _FORGET_EXAMPLES,
        _forget,
    )
    forgetting_part.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")


def _label_argument(text: str) -> str:
    if text and not labels.is_label(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no label: up to {labels.MAX_CHARACTERS} characters, on one line"
        )
    return text


def _label(arguments: argparse.Namespace) -> int:
    data_dir, mac, text = arguments.data_dir, arguments.mac, arguments.text
    before = labels.set_label(data_dir, mac, text)
    if newest(log_dir(data_dir), mac) is None:
        warn(f"{mac} is not on record; the label waits for it, if the MAC address is right")
    was = f", no longer {before}" if before not in (None, text) else ""
    print(f"{mac} is called {text}{was}" if text else f"{mac} has no label{was}")
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    data_dir, mac = arguments.data_dir, arguments.mac
    is_done = forget_device.forget(data_dir, mac)
    print(f"{mac} is forgotten{'' if is_done else ', by the running server in a moment'}")
    policy = PolicyFiles(data_dir).current()
    if mac in policy.pins:
        warn(f"{mac} is still pinned to {policy.pins[mac].version}; `unpin {mac}` ends that")
    for group in policy.groups.get(mac, ()):
        warn(f"{mac} is still in a group; `group remove {group} {mac}` takes it out")
    return 0
