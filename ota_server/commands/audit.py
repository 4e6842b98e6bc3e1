"""The command `audit`: who changed what, and when."""

import argparse
import json

from ota_server.commands.common import Commands, add_command
from ota_server.commands.terminal import printable, to_the_second, write_table
from ota_server.model.refusal import Misused
from ota_server.policy import audit
from ota_server.system.data_dir import existing_folder

_EXAMPLES = """\
  %(prog)s               all changes, the newest last
  %(prog)s --limit 10    the newest ten
  %(prog)s --json        for programs, an object a line, with all that is on record
"""


def add_commands(commands: Commands) -> None:
    """Add `audit`."""
    parser = add_command(
        commands,
        "audit",
        "show who changed what, and when",
        "Show the changes that operators and rollouts made, from log/audit.jsonl.",
        _EXAMPLES,
        _show,
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the newest N only (default: all of them)"
    )


def _show(arguments: argparse.Namespace) -> int:
    if arguments.limit is not None and arguments.limit < 1:
        raise Misused(f"--limit {arguments.limit} would show nothing; give a number from 1")
    logs = existing_folder(arguments.data_dir, "log")
    entries = audit.entries(logs)[-(arguments.limit or 0) :]
    if arguments.json:
        for entry in entries:
            print(json.dumps(entry))
        return 0
    header = ("TIME", "WHO", "ACTION", "WHAT", "FROM", "TO")
    # What was done is never cut, however long the reason or the name of the host.
    write_table(header, [_row(entry) for entry in entries], cut_first=(5, 4), whole=(0, 2))
    print(f"{len(entries)} change{'' if len(entries) == 1 else 's'}")
    return 0


def _row(entry: dict[str, object]) -> tuple[str, ...]:
    cells = (
        to_the_second(entry["time"]),
        f"{entry.get('user', '?')}@{entry.get('host', '?')}",
        entry.get("action", "?"),
        entry.get("what", "-"),
        entry.get("from", "-"),
        entry.get("to") or entry.get("reason") or "-",
    )
    return tuple(printable(cell) for cell in cells)
