"""`rollout history`: the rollouts that are over, with how each ended. I/O."""

import argparse
import json
from collections.abc import Iterator, Sequence

from ota_server.commands.common import add_local_argument, at_least_one
from ota_server.commands.terminal import print_wrapped, printable, to_the_second
from ota_server.model.quantity import count_of, rounded_duration
from ota_server.operations.rollout_facts import RolloutEnd, duration_seconds, end_facts
from ota_server.policy.edits import check_group
from ota_server.rollouts.history import EndedRollout, ended_rollouts
from ota_server.system import clock
from ota_server.system.hints import hints

EXAMPLES = """\
  %(prog)s             the newest last
  %(prog)s --limit 5   the newest five
  %(prog)s --json      for programs, with their devices

`rollout devices VERSION` has the devices of each.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollout history` but for --group."""
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="the newest N only (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    add_local_argument(parser)


def show(arguments: argparse.Namespace) -> int:
    """Show the rollouts; return the exit code."""
    ended = [
        each
        for each in ended_rollouts(arguments.data_dir, clock.now_ms())
        if arguments.group in (None, each.group)
    ]
    if arguments.group and not ended:
        check_group(arguments.data_dir, arguments.group)
    shown = ended[-(arguments.limit or 0) :]
    if arguments.json:
        for each in shown:
            print(json.dumps(_fields(each)))
        return 0
    print_wrapped(_lines([*map(end_facts, shown)], arguments.local))
    print(count_of(len(shown), "rollout"))
    return 0


def _lines(entries: Sequence[RolloutEnd], is_local: bool) -> Iterator[str]:
    """Yield a line for each rollout with its times, and one with what became of its devices."""
    rows = [
        (
            to_the_second(entry.start_time, is_local),
            to_the_second(entry.end_time, is_local),
            rounded_duration(entry.duration_seconds),
            entry.state,
            entry.version,
        )
        for entry in entries
    ]
    titles = ("START", "END", "TOOK", "RESULT", "RELEASE")
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row, entry in zip((titles, *rows), (None, *entries), strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield printable("  ".join(cells).rstrip())
        if entry is not None:
            came = f"{entry.whom}, {entry.came}"
            came = ": ".join(filter(None, (came, hints.paste(entry.reason))))
            yield printable(f"    {came}")
            if entry.note:
                yield printable(f"    note: {entry.note}")


def _fields(entry: EndedRollout) -> dict[str, object]:
    devices = entry.devices
    return {
        **entry._asdict(),
        "duration_seconds": duration_seconds(entry),
        "devices": None if devices is None else [device._asdict() for device in devices],
    }
