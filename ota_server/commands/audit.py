"""The command `audit`: who changed what, and when."""

import argparse
import json
from typing import Any

from ota_server.commands.common import Commands, add_command, add_local_argument, at_least_one
from ota_server.commands.terminal import printable, to_the_second, write_table
from ota_server.model.quantity import count_of
from ota_server.operations.audit_pages import words_of_change
from ota_server.policy import audit
from ota_server.system.data_dir import existing_folder
from ota_server.system.hints import hints

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
        shows_table=True,
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="the newest N only (default: all of them)"
    )
    add_local_argument(parser)


def _show(arguments: argparse.Namespace) -> int:
    logs = existing_folder(arguments.data_dir, "log")
    entries = audit.entries(logs)[-(arguments.limit or 0) :]
    if arguments.json:
        for entry in entries:
            print(json.dumps(entry))
        return 0
    rows = [_row(entry, arguments.local) for entry in entries]
    header = ("TIME", "WHO", "ACTION", "WHAT", "FROM", "TO")
    # What was done is never cut, however long the reason or the name of the host.
    write_table(header, rows, cut_first=(4,), whole=(0, 2), wrapped=5)
    count = len(list(audit.done(entries)))
    changes = count_of(count, "change")
    print(changes if count == len(rows) else f"{changes} in {len(rows):,} lines")
    return 0


def _who(entry: dict[str, Any]) -> str:
    """Return a user of the machine, or an operator's token and the port that it was used at."""
    user, through = entry.get("user", "?"), entry.get("through")
    return f"{user} ({through})" if through else f"{user}@{entry.get('host', '?')}"


def _row(entry: dict[str, Any], is_local: bool) -> tuple[str, ...]:
    before, after = words_of_change(entry)
    cells = (
        to_the_second(entry["time"], is_local),
        _who(entry),
        entry.get("action", "?"),
        entry.get("what", "-"),
        before or "-",
        hints.paste(after or "-"),
    )
    return tuple(printable(cell) for cell in cells)
