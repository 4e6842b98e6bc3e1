"""The command `rollout`: a release goes out in waves, and is stopped by itself. Edge."""

import argparse
import json
import math
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ota_server import rolloutedits, watch
from ota_server.admissionfile import read_standing
from ota_server.commands import group_argument, run_command, version_argument, warn
from ota_server.datadir import add_data_dir_argument, log_dir
from ota_server.plan import Plan, duration, plan_problem
from ota_server.policy import Misused, Refused
from ota_server.policyfiles import PolicyFiles
from ota_server.reach import what_is_known, who_runs
from ota_server.record import format_time
from ota_server.rolloutview import status_fields
from ota_server.survey import Reached, is_served, oldest_record_ms, poll_interval_seconds, reached
from ota_server.window import Standing

_DAY_SECONDS = 86400.0
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": _DAY_SECONDS}
_EXAMPLES = """\
examples:
  %(prog)s start v1.2.0       1, 10, 50, then 100 %% of the fleet
  %(prog)s status --watch     how far it is, redrawn every second
  %(prog)s abort              who has it stays on it

%(prog)s PART --help says more.
"""
_START_EXAMPLES = """\
examples:
  %(prog)s v1.2.0                                1, 10, 50, then 100 %% of the fleet
  %(prog)s v1.2.0 --waves 5,25,100 --soak 30m
  %(prog)s v1.2.0 --first-group canary           that group before the first percentage
  %(prog)s v1.2.0 --group beta --waves 50,100    of a group alone
  %(prog)s v1.2.0 --count-new                    a fleet that is on record for less than a day

Durations are a number and s, m, h or d. A wave goes on when enough of it have updated and the soak
has passed; where too many fail, or fall silent, the release is withdrawn by itself.
"""


def add_commands(commands: Any) -> None:
    """Add the command, with its parts, to those of the command line."""
    parser = commands.add_parser(
        "rollout",
        help="move the fleet to a release in waves",
        description="Move the fleet, or a group, to a release in waves.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = "start, status, pause, resume, promote or abort"
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART", help=names)
    _add_start(parts)
    status = _add(parts, "status", "show how far rollouts are", _status, with_group=True)
    status.add_argument(
        "--watch",
        action="store_true",
        help="every second, until it is over; exit code 1 where one ends halted or aborted",
    )
    status.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add(parts, "pause", "offer it to nobody new", _pause, with_group=True)
    _add(parts, "resume", "go on after a pause, whoever paused it", _resume, with_group=True)
    _add(parts, "promote", "open the next wave at once", _promote, with_group=True)
    ending = _add(parts, "abort", "end it; who has it stays on it", _abort, with_group=True)
    ending.add_argument(
        "--revert",
        action="store_true",
        help="take those who have it back, in waves with the same limits; also after a halt",
    )


def _add(
    parts: Any,
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    with_group: bool = False,
) -> argparse.ArgumentParser:
    whom = " --group beta" if with_group else ""
    parser: argparse.ArgumentParser = parts.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n  %(prog)s\n  %(prog)s{whom}   where several rollouts are on",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_dir_argument(parser)
    parser.set_defaults(run=lambda arguments: run_command(run, arguments))
    if with_group:
        parser.add_argument(
            "--group", metavar="G", type=_group_or_fleet, help='whose rollout; "" is the fleet'
        )
    return parser


def _add_start(parts: Any) -> None:
    parser = _add(parts, "start", "begin a rollout", _start)
    parser.epilog = _START_EXAMPLES
    parser.add_argument(
        "version", metavar="VERSION", type=version_argument, help="a release that is here"
    )
    add = parser.add_argument
    add(
        "--waves",
        type=_waves,
        default=(1.0, 10.0, 50.0, 100.0),
        metavar="PERCENT,...",
        help="rising, up to 100 (default: 1,10,50,100)",
    )
    add("--group", type=group_argument, metavar="G", help="of this group, not of the fleet")
    add(
        "--first-group",
        type=group_argument,
        metavar="G",
        help="its members are a wave before these",
    )
    add("--max-failures", type=_percent, default=2.0, metavar="P%", help="limit (default: 2%%)")
    add("--min-devices", type=_count, default=20, metavar="N", help="to go on (default: 20)")
    for name, default, what in (
        ("--soak", "1h", "how long devices have to run it well"),
        ("--apply-grace", "15m", "how long a device may take to install it"),
        ("--wave-timeout", "7d", "a wave that does not go on for so long pauses"),
    ):
        help_text = f"{what} (default: {default})"
        add(name, type=_duration, default=_duration(default), metavar="TIME", help=help_text)
    add(
        "--held-unknown",
        choices=("keep", "target"),
        default="keep",
        help="what a device that is held back gets where it runs no known release: its own "
        "version, or the target (default: keep)",
    )
    add("--count-new", action="store_true", help="count devices known for less than a day too")
    add(
        "--shared-address",
        action="append",
        default=[],
        metavar="NET",
        help="a network behind which there are many devices, such as a NAT; may be repeated",
    )


# The commands


def _start(arguments: argparse.Namespace) -> int:
    data_dir: Path = arguments.data_dir
    now_ms = time.time_ns() // 1_000_000
    plan = Plan(
        id=secrets.token_hex(6),
        version=arguments.version,
        group=arguments.group or "",
        waves=arguments.waves,
        time=format_time(now_ms),
        instead_of=None,
        first_group=arguments.first_group,
        max_failures=arguments.max_failures,
        min_devices=arguments.min_devices,
        soak_seconds=arguments.soak,
        grace_seconds=arguments.apply_grace,
        wave_timeout_seconds=arguments.wave_timeout,
        held_unknown=arguments.held_unknown,
        count_new=arguments.count_new,
        shared_addresses=tuple(arguments.shared_address),
    )
    try:
        problem = plan_problem(plan)
    except ValueError as trouble:
        problem = str(trouble)
    if problem:
        raise Misused(problem)
    rolloutedits.check_start(data_dir, plan)
    plan = plan._replace(version=rolloutedits.release_here(data_dir, plan.version))
    policy = PolicyFiles(data_dir).current()
    found = reached(log_dir(data_dir), plan, what_is_known(plan, policy, None, now_ms), now_ms)
    _refuse_empty(plan, found)
    _print_waves(plan, found)
    _warn_of_soak(plan, log_dir(data_dir))
    _warn_of_new(plan, log_dir(data_dir), now_ms)
    plan = rolloutedits.start(data_dir, plan)
    print(f"the rollout of {plan.version} has begun; `rollout status --watch` shows it")
    _warn_of_no_server(data_dir)
    return 0


def _refuse_empty(plan: Plan, found: Reached) -> None:
    """Refuse a rollout with a wave that holds nobody.

    Raises:
        Refused: there is one.
    """
    if not any(found.waves):
        whose = f"the group {plan.group}" if plan.group else "the fleet"
        raise Refused(
            f"no device of {whose} was heard from within a week: nobody to roll out to. "
            f"`release activate {plan.version}` makes it the target without a rollout"
        )
    if all(found.waves):
        return
    empty = found.waves.index(0)
    if plan.first_group is not None and empty == 0:
        raise Refused(f"the first wave, {plan.first_group}, holds no active device; leave it out")
    counts = found.waves[plan.first_group is not None :]
    kept = [percent for percent, count in zip(plan.waves, counts, strict=True) if count]
    kept = [*kept[:-1], 100.0]  # the last wave is all of them, whichever was the last with devices
    waves = ",".join(f"{percent:g}" for percent in kept)
    raise Refused(
        f"wave {empty + 1} ({plan.percent(empty):g} %) adds no active device, so nothing would be "
        f"learned from it; try --waves {waves}"
    )


def _print_waves(plan: Plan, found: Reached) -> None:
    total = 0
    for wave, count in enumerate(found.waves):
        total += count
        percent = plan.percent(wave)
        whom = f"{percent:g} %" if percent else f"{plan.first_group}"
        print(f"wave {wave + 1}  {whom:>6}  {count:>7} more, {total} in all")
    if found.inactive:
        print(f"not heard from for a week, and not counted: {found.inactive}")
    if any(count < plan.min_devices for count in found.waves):
        print(f"of a wave with fewer than {plan.min_devices} devices all have to update")


def _warn_of_soak(plan: Plan, logs: Path) -> None:
    interval = poll_interval_seconds(logs)
    if interval is not None and plan.soak_seconds < interval:
        usual = duration(math.ceil(interval))
        warn(
            f"the soak of {duration(plan.soak_seconds)} is shorter than the {usual} that devices "
            "usually wait between two checks: most would not be heard from in it"
        )


def _warn_of_new(plan: Plan, logs: Path, now_ms: int) -> None:
    oldest = oldest_record_ms(logs)
    is_new = oldest is None or now_ms - oldest < _DAY_SECONDS * 1000
    if is_new and not plan.count_new:
        warn(
            "the journal is less than a day old, so that no device counts and no wave goes on: "
            "abort it, and give --count-new if you know these devices"
        )


def _warn_of_no_server(data_dir: Path) -> None:
    if not is_served(log_dir(data_dir)):
        warn(f"no server runs on {data_dir}: nothing goes on without it")


def _status(arguments: argparse.Namespace) -> int:
    found = rolloutedits.all_rollouts(arguments.data_dir)
    chosen = [each for each in found if arguments.group in (None, each[0].group)]
    if not chosen:
        raise Refused("there is no rollout; `rollout start VERSION` begins one")
    if arguments.json:
        logs = log_dir(arguments.data_dir)
        standing = read_standing(logs) if is_served(logs) else Standing()
        for each in chosen:
            print(json.dumps(status_fields(*each, standing)))
        return 0
    if arguments.watch:
        return watch.watch(arguments.data_dir, arguments.group)
    print("\n".join(watch.lines_of(arguments.data_dir, arguments.group)))
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    plan = rolloutedits.pause(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} is paused: nobody new is offered it")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    plan = rolloutedits.resume(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} goes on, from {plan.instead_of or 'no target'}")
    _warn_of_no_server(arguments.data_dir)
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    plan, wave = rolloutedits.promote(arguments.data_dir, arguments.group)
    print(f"wave {wave + 1} of {plan.wave_count} opens, {plan.percent(wave):g} %")
    _warn_of_no_server(arguments.data_dir)
    return 0


def _abort(arguments: argparse.Namespace) -> int:
    now = format_time(time.time_ns() // 1_000_000)
    if not arguments.revert:
        plan = rolloutedits.abort(arguments.data_dir, arguments.group, now)
        print(f"the rollout of {plan.version} is aborted; who has it stays on it")
        return 0
    plan = rolloutedits.check_revert(arguments.data_dir, arguments.group)
    way_back, devices = _way_back(arguments.data_dir, plan, now)
    print(f"{devices} device{'s' * (devices != 1)} on {plan.version} to take back")
    if not devices:
        raise Refused("nobody to take back; `rollout abort` alone ends it")
    waves = ", ".join(f"{percent:g}" for percent in way_back.waves)
    rolloutedits.revert(arguments.data_dir, way_back, now)
    print(f"they go back to {way_back.version} in waves of {waves} %; `rollout status` shows it")
    _warn_of_no_server(arguments.data_dir)
    return 0


def _way_back(data_dir: Path, plan: Plan, now: str) -> tuple[Plan, int]:
    """Return the plan of the way back, and how many devices it is for."""
    assert plan.instead_of is not None
    now_ms = time.time_ns() // 1_000_000
    policy = PolicyFiles(data_dir).current()
    members = who_runs(log_dir(data_dir), policy, plan.version)
    back = plan._replace(
        id=secrets.token_hex(6),
        version=plan.instead_of,
        time=now,
        first_group=None,
        wanted="run",
        promoted=-1,
        resumed=0,
        is_revert=True,
        reverts=plan.version,
    )
    known = what_is_known(back, policy, members, now_ms)
    found = reached(log_dir(data_dir), back, known, now_ms)
    # What it came to so far may be a few devices, of which some waves hold none.
    kept = [percent for percent, count in zip(back.waves, found.waves, strict=True) if count]
    return back._replace(waves=(*kept[:-1], 100.0)), sum(found.waves) + found.inactive


# What is typed


def _group_or_fleet(text: str) -> str:
    return text and group_argument(text)


def _waves(text: str) -> tuple[float, ...]:
    return tuple(_percent(part) for part in text.split(","))


def _percent(text: str) -> float:
    if not re.fullmatch(r"\d{1,3}(?:\.\d{1,4})? ?%?", text.strip()):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no percentage, such as 2%")
    return float(text.strip().rstrip("% "))


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of devices")
    return int(text)


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no duration: a number and s, m, h or d, such as 15m"
        )
    return float(match[1]) * _UNITS[match[2]]
