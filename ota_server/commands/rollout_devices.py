"""`rollout devices`: which devices did not do well, and the reason of each. I/O."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.commands.common import add_local_argument, at_least_one, version_argument
from ota_server.commands.rollout_view import state_of, title_of, window_lines
from ota_server.commands.terminal import (
    in_local_time,
    print_wrapped,
    printable,
    to_the_second,
    write_table,
)
from ota_server.device_port.admission_status import read_standing
from ota_server.evaluation.outcomes import ASKED_FOR
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago
from ota_server.model.version import same_version
from ota_server.policy.labels import read_labels
from ota_server.rollouts.files import devices_command
from ota_server.rollouts.find_rollout import RolloutOnFile, all_rollouts, find_rollout
from ota_server.rollouts.history import EndedRollout, devices_if_known, ended_rollouts
from ota_server.rollouts.outcome_list import (
    ListedDevice,
    as_of_now,
    devices_by_checkpoint,
    in_numbers,
    state_in_words,
)
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.hints import hints
from ota_server.system.locks import is_served

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


class _Shown(NamedTuple):
    """What is shown: a headline, the devices, and how many more there were."""

    headline: str
    devices: Sequence[ListedDevice]
    more: int = 0


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
    shown = _find(data_dir, arguments.version, arguments.group, clock.now_ms())
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


def _find(data_dir: Path, version: str | None, group: str | None, now_ms: int) -> _Shown:
    """Return the devices of the rollout that is meant.

    Raises:
        Refused: there is none, or several are on.
        BadPolicy, OSError: a file cannot be used or read.
    """
    found = [
        each
        for each in all_rollouts(data_dir)
        if _is_meant(each.plan.version, each.plan.group, version, group)
    ]
    on = [each for each in found if each.is_on]
    if len(on) > 1:
        find_rollout(data_dir, group)  # it says which ones there are
    if on:
        logs = log_dir(data_dir)
        closed = window_lines(read_standing(logs) if is_served(logs) else None)
        headline = "\n".join([_headline(on[0]), *closed])
        return _Shown(headline, devices_by_checkpoint(data_dir, on[0], now_ms))
    ended = [
        each
        for each in ended_rollouts(data_dir, now_ms)
        if _is_meant(each.version, each.group, version, group)
    ]
    if not ended:
        raise Refused("there was no such rollout; `rollout history` lists them")
    return _of_ended(data_dir, ended[-1], found, now_ms)


def _is_meant(of: str, to: str, version: str | None, group: str | None) -> bool:
    return (version is None or same_version(of, version)) and group in (None, to)


def _of_ended(
    data_dir: Path, entry: EndedRollout, on_file: Sequence[RolloutOnFile], now_ms: int
) -> _Shown:
    """Return the devices of a rollout that is over."""
    devices, more = entry.devices, entry.more
    if devices is None:
        last = next((each for each in on_file if each.plan.id == entry.id), None)
        known = None if last is None else devices_if_known(data_dir, last, now_ms)
        devices = None if known is None else tuple(known)
    title = title_of(entry.version, entry.group, entry.reverts)
    as_of = f"as of {to_the_second(entry.end_time)}, when it ended"
    headline = f"{title}: {entry.state}; {as_of} ({ago(entry.end_time, now_ms)})"
    if entry.reverts:
        before = devices_command(data_dir, entry.group, entry.reverts)
        headline += f"\n{before} has those of the rollout before it"
    if devices is None:
        raise Refused(f"{headline}; its devices are not on record".replace("\n", "; "))
    return _Shown(headline, as_of_now(devices, data_dir, now_ms), more)


def _headline(rollout: RolloutOnFile) -> str:
    plan, progress = rollout
    where = "" if progress is None else f", wave {progress.wave + 1} of {plan.wave_count}"
    title = title_of(plan.version, plan.group, plan.reverts)
    return f"{title}: {state_of(plan, progress)}{where}"
