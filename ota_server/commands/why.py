"""The command `why`: which version a device gets, and the reason, as the server would decide."""

import argparse
import json

from ota_server.commands.common import (
    Commands,
    add_command,
    key_of,
    mac_argument,
    reported_argument,
)
from ota_server.commands.terminal import printable, shown_columns
from ota_server.journal.replay import newest
from ota_server.model.refusal import Refused
from ota_server.operations.device_why import explain_why, why_fields, why_lines
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder, journal_dir
from ota_server.system.hints import hints
from ota_server.system.wrapping import wrap_words

_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55
  %(prog)s 00:11:22:33:44:55 --version v1.0.0   if it reported that
  %(prog)s 00:11:22:33:44:55 --json             for programs

It reads the files in the data directory; the server need not run.
"""
_INDENT = " " * 13
# Lines that may hold what the device reports: a command in them is not ours.
_REPORTED = ("reports", "state", "counts as", "is told")


def add_commands(commands: Commands) -> None:
    """Add `why`."""
    parser = add_command(
        commands,
        "why",
        "show which version a device gets, and why",
        "Show which version a device gets, and the reason in words.",
        _EXAMPLES,
        _show,
    )
    parser.add_argument("--json", action="store_true", help="a JSON object")
    parser.add_argument(
        "--version",
        type=reported_argument,
        metavar="TEXT",
        dest="reported",
        help="answer as if the device reported this (default: what it reported last)",
    )
    parser.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")


def _show(arguments: argparse.Namespace) -> int:
    data_dir, mac = arguments.data_dir, arguments.mac
    existing_folder(data_dir, "version")
    name, mac = mac, key_of(arguments, mac)
    device = newest(journal_dir(data_dir), mac)
    version = arguments.reported or (None if device is None else device.firmware_version)
    if version is None:
        raise Refused(
            f"{name} is not on record; --version TEXT shows what it would get if it reported that, "
            "`devices --rejected` who was rejected (401)"
        )
    now_ms = clock.now_ms()
    facts = explain_why(data_dir, mac, device, version, now_ms)
    if arguments.json:
        print(json.dumps(why_fields(facts)))
        return 0
    for name, text in why_lines(facts, now_ms):
        shown = printable(text)
        if name not in _REPORTED:
            shown = hints.paste(shown)
        print("\n".join(wrap_words(shown, shown_columns(), _INDENT, f"{name:<13}")))
    return 0
