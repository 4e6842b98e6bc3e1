"""`rollout devices`: which devices did not do well, and the reason of each. I/O."""

import argparse
import json
from collections.abc import Mapping, Sequence

from ota_server.commands.common import add_local_argument, at_least_one, version_argument
from ota_server.commands.terminal import (
    in_local_time,
    print_wrapped,
    printable,
    write_table,
)
from ota_server.evaluation.outcomes import ASKED_FOR
from ota_server.model.timestamp import ago
from ota_server.operations.rollout_devices import find_devices
from ota_server.policy.labels import read_labels
from ota_server.rollouts.outcome_list import (
    ListedDevice,
    in_numbers,
    state_in_words,
)
from ota_server.system import clock
from ota_server.system.hints import hints

EXAMPLES = """\
  %(prog)s
      every device of the open waves that is not updated, and why
  %(prog)s --failed --silent
      those alone
  %(prog)s v1.2.0
      of the last rollout of that release, also when it is over
  %(prog)s --failed --json | jq -r .mac
      for programs, an object a line

Without VERSION it is the rollout that is on, else the one that ended last.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollout devices` but for --group."""
    for name, state in ASKED_FOR.items():
        parser.add_argument(
            f"--{name}",
            action="append_const",
            dest="names",
            const=name,
            help=f"those that are {state_in_words(state)}; may be combined with others",
        )
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="the first N devices (default: all)"
    )
    add_local_argument(parser)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument(
        "version", nargs="?", metavar="VERSION", type=version_argument, help="of which release"
    )


def show(arguments: argparse.Namespace) -> int:
    """Show the devices; return the exit code."""
    data_dir = arguments.data_dir
    shown = find_devices(data_dir, arguments.version, arguments.group, clock.now_ms())
    labels = read_labels(data_dir)
    names: list[str] = arguments.names or []
    states = {ASKED_FOR[name] for name in names}
    devices = [each for each in shown.devices if not states or each.state in states]
    listed = devices[: arguments.limit]
    if arguments.json:
        for device in listed:
            print(json.dumps({**device._asdict(), "label": labels.get(device.mac)}))
        return 0
    headline = in_local_time(shown.headline) if arguments.local else shown.headline
    print_wrapped(map(hints.paste, headline.splitlines()))
    if listed:
        _write(listed, labels)
    if len(listed) < len(devices):
        print(f"{len(devices) - len(listed):,} more are not shown (--limit)")
    nobody = (
        f"no device is {' or '.join(names)}"
        if names
        else "no device of the open waves is without it"
    )
    print(in_numbers(devices) or nobody)
    if shown.more:
        print(f"{shown.more:,} further devices were not updated; they are not on record")
    return 0


def _write(devices: Sequence[ListedDevice], labels: Mapping[str, str]) -> None:
    """Write a table for each reason, as most devices have one of a few."""
    now_ms = clock.now_ms()
    titles = ("MAC", "REPORTS", "LAST SEEN", "ADDRESS", "LABEL")
    tables: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for each in devices:
        seen = ago(each.last_seen_time, now_ms) if each.last_seen_time else "-"
        label = labels.get(each.mac, "-")
        cells = (each.mac, each.firmware_version or "-", seen, each.address, label)
        row = tuple(map(printable, cells))
        tables.setdefault((each.state, each.reason), []).append(row)
    columns = len(titles) if any(each.mac in labels for each in devices) else len(titles) - 1
    for (state, reason), rows in tables.items():
        heading = f"{state_in_words(state)}, {len(rows):,}: {reason}"
        print_wrapped(["", printable(heading)])
        is_labelled = columns == len(titles)
        cut = [row[:columns] for row in rows]
        write_table(titles[:columns], cut, wrapped=columns - 1 if is_labelled else None)
    print()
