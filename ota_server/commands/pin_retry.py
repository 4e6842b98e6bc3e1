"""The commands `pin`, `unpin` and `retry`: exceptions to what devices get."""

import argparse

from ota_server.commands.common import (
    Commands,
    add_command,
    add_force_argument,
    key_of,
    mac_argument,
    until_argument,
    version_argument,
    warn,
    who_argument,
)
from ota_server.journal.replay import newest
from ota_server.operations import device_warnings
from ota_server.policy import edits
from ota_server.policy.policy import Pin
from ota_server.policy.text import Who, time_text
from ota_server.releases.same_devices import check_pin
from ota_server.system.data_dir import journal_dir

_PIN_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55 v1.1.0
      one device
  %(prog)s 00:11:22:33:44:55 v1.1.0 --until 2027-01-31
      until that day begins in UTC
  %(prog)s beta v1.2.0 \\
      --until 2027-01-31T18:00:00+01:00
      every device of a group
"""
_UNPIN_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55
      it gets what its group or the fleet gets again
  %(prog)s beta
      the same for a group
"""
_RETRY_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55
      it may fetch an image again that it has fetched too often
"""


def add_commands(commands: Commands) -> None:
    """Add the three commands."""
    _add_pins(commands)
    _add_retry(commands)


def _add_pins(commands: Commands) -> None:
    pinning = add_command(
        commands,
        "pin",
        "keep a device or a group on a release",
        "Keep a device or a group on a release, whatever rollouts and targets say.",
        _PIN_EXAMPLES,
        _pin,
    )
    _add_who(pinning)
    pinning.add_argument(
        "version", metavar="VERSION", type=version_argument, help="a release that is here"
    )
    pinning.add_argument(
        "--until",
        type=until_argument,
        metavar="DATE",
        help="when the pin ends: a time with an offset, or the beginning of a date, in UTC unless "
        "it has an offset (default: never)",
    )
    unpinning = add_command(
        commands,
        "unpin",
        "end a pin",
        "End the pin of a device or a group.",
        _UNPIN_EXAMPLES,
        _unpin,
    )
    _add_who(unpinning)
    for parser in (pinning, unpinning):
        add_force_argument(parser)


def _add_retry(commands: Commands) -> None:
    retrying = add_command(
        commands,
        "retry",
        "let a device that is stuck try again",
        "A device that has fetched one image three times and does not stay on it waits for 1 h, "
        "then 2 h, 4 h ... 24 h, and is stuck after ten times. This begins a new count.",
        _RETRY_EXAMPLES,
        _retry,
    )
    retrying.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")


def _add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "who", metavar="MAC|GROUP", type=who_argument, help="a device, or the name of a group"
    )


def _pin(arguments: argparse.Namespace) -> int:
    who: Who = arguments.who
    if not arguments.force:
        check_pin(arguments.data_dir, who, Pin(arguments.version, None))
    version = edits.pin(arguments.data_dir, who, arguments.version, arguments.until)
    if (
        who.kind == "devices"
        and newest(journal_dir(arguments.data_dir), key_of(arguments, who.name)) is None
    ):
        warn(f"{who} is not on record; check the MAC address. The pin is kept for it")
    for problem in device_warnings.pinned(arguments.data_dir, who, version):
        warn(problem)
    until = "" if arguments.until is None else f" until {time_text(arguments.until)}"
    print(f"{who} is pinned to {version}{until}")
    return 0


def _unpin(arguments: argparse.Namespace) -> int:
    if not arguments.force:
        check_pin(arguments.data_dir, arguments.who, None)
    before = edits.unpin(arguments.data_dir, arguments.who)
    print(f"{arguments.who} is no longer pinned to {before.version}")
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    device = newest(journal_dir(arguments.data_dir), key_of(arguments, arguments.mac))
    if device is None:
        warn(f"{arguments.mac} is not on record; check the MAC address")
    edits.retry(arguments.data_dir, arguments.mac)
    download = None if device is None else device.download
    had = ""
    if download is not None and download.attempts:
        had = f"; it had fetched the image of {download.version} {download.attempts} times"
    print(f"{arguments.mac} may try again{had}")
    return 0
