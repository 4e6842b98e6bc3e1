"""The command `group`: devices by name, in `version/groups/<name>.txt`."""

import argparse
import json
import sys

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    add_force_argument,
    fail,
    group_argument,
    mac_argument,
    say_hold,
)
from ota_server.commands.named_device import MaybeLabel, with_macs
from ota_server.commands.terminal import write_table
from ota_server.model.quantity import count_of
from ota_server.model.refusal import BadPolicy, Misused
from ota_server.model.timestamp import format_time
from ota_server.operations.group_facts import GroupFacts, list_groups, members_on_file
from ota_server.policy import edits
from ota_server.policy.delete_group import delete_group
from ota_server.policy.parse import parse_group
from ota_server.policy.text import time_text
from ota_server.releases.same_devices import check_members

_EXAMPLES = """\
  %(prog)s add beta 00:11:22:33:44:55
  %(prog)s remove beta 00:11:22:33:44:55
  %(prog)s list

A group is the file version/groups/NAME.txt, which you may edit too.
"""
_ADD_EXAMPLES = """\
  %(prog)s beta 00:11:22:33:44:55 a0b1c2d3e4f5
  %(prog)s beta - < macs.txt    one a line; blank lines and what follows a # are ignored
"""
_REMOVE_EXAMPLES = """\
  %(prog)s beta 00:11:22:33:44:55
  %(prog)s beta - < macs.txt    one a line

A group that becomes empty stays; `group delete` deletes it.
"""
_DELETE_EXAMPLES = """\
  %(prog)s beta

Refused while it is pinned, in a rollout, or has a target of its own.
"""
_LIST_EXAMPLES = """\
  %(prog)s             the groups, how many devices each has, its pin and its target
  %(prog)s beta        its devices, one a line
  %(prog)s --json      for programs, an object a line
"""


def add_commands(commands: Commands) -> None:
    """Add `group` with its parts."""
    parts = add_command_of_parts(
        commands,
        "group",
        "name devices, to pin them or to roll out to them",
        "Name devices, to pin them or to roll out to them.",
        _EXAMPLES,
        "add, remove, delete or list",
    )
    adding = add_command(
        parts, "add", "add devices", "Add devices to a group.", _ADD_EXAMPLES, _add
    )
    removing = add_command(
        parts, "remove", "remove devices", "Remove devices.", _REMOVE_EXAMPLES, _remove
    )
    for parser in (adding, removing):
        parser.add_argument("name", metavar="NAME", type=group_argument, help="name of the group")
        parser.add_argument(
            "macs",
            metavar="MAC",
            nargs="+",
            type=_mac_or_input,
            help="the devices; - reads them from standard input, one a line",
        )
        add_force_argument(parser)
    deleting = add_command(
        parts, "delete", "delete a group", "Delete a group.", _DELETE_EXAMPLES, _delete
    )
    deleting.add_argument("name", metavar="NAME", type=group_argument, help="of the group")
    deleting.add_argument(
        "--force", action="store_true", help="even if it has a target of its own, which is lost"
    )
    listing = add_command(
        parts, "list", "show groups", "Show the groups, or one.", _LIST_EXAMPLES, _list
    )
    listing.add_argument("--json", action="store_true", help="a JSON object a line")
    listing.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        type=group_argument,
        help="show its devices (default: all groups)",
    )


def _mac_or_input(text: str) -> str | MaybeLabel:
    return text if text == "-" else mac_argument(text)


def _add(arguments: argparse.Namespace) -> int:
    macs = _macs(arguments)
    if not arguments.force:
        check_members(arguments.data_dir, arguments.name, macs, are_in=True)
    change = edits.add_members(arguments.data_dir, arguments.name, macs)
    _say(arguments.name, change, "added to", "already in")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    macs = _macs(arguments)
    if not arguments.force:
        check_members(arguments.data_dir, arguments.name, macs, are_in=False)
    change = edits.remove_members(arguments.data_dir, arguments.name, macs)
    if not change.changed:
        return fail(
            f"none of these is in group {arguments.name}; `group list {arguments.name}` shows it"
        )
    _say(arguments.name, change, "removed from", "not in")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    target = delete_group(arguments.data_dir, arguments.name, arguments.force)
    had = "" if target is None else f"; its target was {target}, and its devices get the fleet's"
    print(f"group {arguments.name} is deleted{had}")
    return 0


def _macs(arguments: argparse.Namespace) -> list[str]:
    macs = [mac for mac in arguments.macs if mac != "-"]
    if "-" in arguments.macs:
        try:
            macs += parse_group(with_macs(arguments.data_dir, sys.stdin.buffer.read()))
        except BadPolicy as problem:
            raise Misused(f"standard input {problem}; nothing was changed") from problem
    return list(dict.fromkeys(macs))


def _say(group: str, change: edits.Change, done: str, otherwise: str) -> None:
    rest = sorted(set(change.named) - set(change.changed))
    for macs, what in ((change.changed, done), (rest, otherwise)):
        if macs:
            print(f"{macs[0] if len(macs) == 1 else f'{len(macs)} devices'} {what} group {group}")
    if not change.named:
        print(f"no device was named; group {group} is unchanged")


def _list(arguments: argparse.Namespace) -> int:
    if arguments.name is not None:
        for mac in members_on_file(arguments.data_dir, arguments.name):
            fields = {"group": arguments.name, "mac": mac}
            print(json.dumps(fields) if arguments.json else mac)
        return 0
    groups, problems = list_groups(arguments.data_dir)
    if arguments.json:
        for group in groups:
            print(json.dumps(_fields(group)))
    else:
        write_table(("GROUP", "DEVICES", "PIN", "TARGET"), [_row(group) for group in groups])
        print(count_of(len(groups), "group"))
        say_hold(arguments.data_dir)
    for problem in problems:
        fail(problem)
    return 1 if problems else 0


def _row(group: GroupFacts) -> tuple[str, ...]:
    pin = "-"
    if group.pin is not None:
        until = group.pin.until_ms
        pin = group.pin.version + ("" if until is None else f" until {time_text(until)}")
    return group.name, str(len(group.macs)), pin, group.target or "-"


def _fields(group: GroupFacts) -> dict[str, object]:
    until_ms = group.pin.until_ms if group.pin else None
    return {
        "group": group.name,
        "devices": len(group.macs),
        "pin": group.pin.version if group.pin else None,
        "pin_until": None if until_ms is None else format_time(until_ms),
        "target_version": group.target,
    }
