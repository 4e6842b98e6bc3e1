"""`rollout start`: its options, and how a rollout begins. I/O."""

import argparse
import re
import secrets
from pathlib import Path
from typing import Any

from ota_server.commands.common import (
    group_argument,
    say,
    version_argument,
    warn,
    warn_of_hold,
    warn_of_no_server,
)
from ota_server.commands.rollout_preview import (
    print_left_alone,
    print_slow_pollers,
    print_waves,
    warn_of_soak,
    warn_of_unseen,
    with_waves,
)
from ota_server.device_port.admission_status import read_server_state
from ota_server.model.quantity import parse_duration
from ota_server.model.refusal import Misused, Refused
from ota_server.model.timestamp import format_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import MOST_SECONDS, RolloutPlan
from ota_server.policy.targets import release_here
from ota_server.releases.inventory import get_release
from ota_server.releases.remarks import remarks
from ota_server.releases.same_devices import check_devices
from ota_server.rollouts import edits
from ota_server.rollouts.audience import groups_left_alone, pins_of, scope_of
from ota_server.rollouts.preview import find_reached, intervals_ms
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, log_dir

_PERCENT = re.compile(r"\d{1,3}(?:\.\d{1,4})? ?%?")
_MOST_DEVICES = 1_000_000
EXAMPLES = """\
  %(prog)s v1.2.0
      in waves that fit the fleet: for 10,000 devices 1, 10, 50, 100 %%
  %(prog)s v1.2.0 --waves 5,25,100 --soak 30m
  %(prog)s v1.2.0 --first-group canary
      with that group as the first wave
  %(prog)s v1.2.0 --group beta --waves 50,100
      to one group only
  %(prog)s v1.2.0 --groups-too
      include groups that have their own target
  %(prog)s v1.2.0 --count-new
      for a fleet that is on record for less than a day

Durations are a number and s, m, h or d. The next wave opens when enough devices
have updated and the soak has passed. If too many fail or fall silent, the
server withdraws the release by itself.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollout start`."""
    parser.add_argument(
        "version", metavar="VERSION", type=version_argument, help="a release that is here"
    )
    add = parser.add_argument
    add(
        "--waves",
        type=_waves,
        metavar="PERCENT,...",
        help="rising to 100 (default: waves that fit the fleet, such as 1,10,50,100)",
    )
    only = "roll out to this group only (default: to the fleet)"
    add("--group", type=group_argument, metavar="G", help=only)
    before = "its members are a wave before these"
    add("--first-group", type=group_argument, metavar="G", help=before)
    add("--groups-too", action="store_true", help="also groups that have a target of their own")
    add_limits(parser, have_defaults=True)
    least = "how many of a wave must update (default: 20)"
    add("--min-devices", type=_count, default=20, metavar="N", help=least)
    longest = "a wave that takes longer pauses the rollout (default: 7d)"
    week = _duration("7d")
    add("--wave-timeout", type=_duration, default=week, metavar="TIME", help=longest)
    add(
        "--held-unknown",
        choices=("keep", "target"),
        default="keep",
        help="what a device that is held back gets if its version is not a known release: its own "
        "version, or the target (default: keep)",
    )
    add(
        "--count-new",
        action="store_true",
        help="also count devices that have been known for less than a day; made-up ones too",
    )
    other = "even if the image is for another chip or of another project than that of the target"
    add("--force", action="store_true", help=other)


def add_limits(parser: argparse.ArgumentParser, have_defaults: bool = False) -> None:
    """Add the limits of a rollout that can be changed while it goes on."""
    for name, option, kind, metavar, what, default in (
        (
            "max_failures",
            "--max-failures",
            _limit,
            "P%",
            "the share of devices that may fail",
            "2%",
        ),
        ("soak_seconds", "--soak", _duration, "TIME", "how long a device has to run it well", "1h"),
        (
            "grace_seconds",
            "--apply-grace",
            _duration,
            "TIME",
            "how long a device may take to install it",
            "15m",
        ),
    ):
        shown = f" (default: {default.replace('%', '%%')})" * have_defaults
        parser.add_argument(
            option,
            dest=name,
            type=kind,
            default=kind(default) if have_defaults else None,
            metavar=metavar,
            help=f"{what}{shown}",
        )


def typed_limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the limits that were typed, by their names in the plan."""
    typed = {name: getattr(arguments, name) for name in edits.LIMITS}
    return {name: limit for name, limit in typed.items() if limit is not None}


def start(arguments: argparse.Namespace) -> int:
    """Show what a rollout reaches, and begin it; return the exit code."""
    data_dir: Path = arguments.data_dir
    now_ms = clock.now_ms()
    plan = _plan(arguments, now_ms)
    refuse_development(data_dir)
    edits.check_start(data_dir, plan)
    plan = plan._replace(version=release_here(data_dir, plan.version))
    is_mixed = check_devices(
        data_dir, plan.version, plan.group, plan.groups_too, is_forced=arguments.force
    )
    plan = plan._replace(is_mixed=is_mixed)
    server = read_server_state(log_dir(data_dir))
    policy = PolicyFiles(data_dir, server.keeps_ungrouped).current()
    print_left_alone(groups_left_alone(plan, policy))
    logs = journal_dir(data_dir)
    found = find_reached(logs, plan, scope_of(plan, policy, None, now_ms), now_ms)
    if not found.stands and (pins := pins_of(policy, plan.group, now_ms)):
        raise Refused(
            f"the devices of group {plan.group} are pinned, and a pin comes before a rollout: "
            f"`unpin {pins[0]}` first{f', and {len(pins) - 1} more' * (len(pins) > 1)}"
        )
    intervals = intervals_ms(logs, found, now_ms)
    plan = with_waves(plan, arguments.waves, found, intervals)
    print_waves(plan, found, is_typed=arguments.waves is not None)
    print_slow_pollers(plan, intervals)
    warn_of_soak(plan, intervals)
    warn_of_unseen(found)
    plan = edits.start(data_dir, plan)
    say(f"the rollout of {plan.version} has begun; `rollout status --watch` shows it")
    for problem in remarks(data_dir, get_release(data_dir, plan.version)):
        warn(problem)
    warn_of_hold(data_dir)
    warn_of_no_server(data_dir)
    return 0


def _plan(arguments: argparse.Namespace, now_ms: int) -> RolloutPlan:
    """Return the plan that was typed; without --waves its waves are still to be made.

    Raises:
        Misused: two options do not go together.
    """
    if arguments.groups_too and arguments.group:
        raise Misused(
            "--groups-too is for a rollout to the fleet; one to a group reaches only that group: "
            "leave out --groups-too or --group"
        )
    plan = RolloutPlan(
        id=secrets.token_hex(6),
        version=arguments.version,
        group=arguments.group or "",
        waves=arguments.waves or (100.0,),
        time=format_time(now_ms),
        instead_of=None,
        first_group=arguments.first_group,
        min_devices=arguments.min_devices,
        wave_timeout_seconds=arguments.wave_timeout,
        held_unknown=arguments.held_unknown,
        count_new=arguments.count_new,
        groups_too=arguments.groups_too,
    )
    return plan._replace(**typed_limits(arguments))


def refuse_development(data_dir: Path) -> None:
    """Refuse a rollout while the server runs with --development.

    Raises:
        Refused: it does.
    """
    if read_server_state(log_dir(data_dir)).is_development:
        raise Refused(
            "the server runs with --development, and would not stop a device that fetches a bad "
            "release again and again; start it without that, then begin the rollout"
        )


# What is typed


def _waves(text: str) -> tuple[float, ...]:
    waves = tuple(map(_number, text.split(",")))
    if None in waves:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a list of percentages with commas, such as 1,10,50,100"
        )
    percents = [percent for percent in waves if percent is not None]
    if percents != sorted(set(percents)) or percents[-1] != 100 or not percents[0]:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} does not rise from above 0 to 100, as 1,10,50,100 does"
        )
    return tuple(percents)


def _limit(text: str) -> float:
    percent = _number(text)
    if percent is None or percent >= 100:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a percentage from 0 to under 100, such as 2%"
        )
    if not text.strip().endswith("%"):
        # In a wave of ten devices, two devices are 20 %.
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} could be a number of devices: it is a share of them; type {percent:g}%"
        )
    return percent


def _number(text: str) -> float | None:
    """Return a percentage as a number, or None if it is not a percentage."""
    if not _PERCENT.fullmatch(text.strip()):
        return None
    return float(text.strip().rstrip("% "))


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= _MOST_DEVICES:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a number of devices from 1 to {_MOST_DEVICES}"
        )
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = MOST_SECONDS + 1.0
    if seconds > MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a duration up to a year: a number and s, m, h or d, such as 15m"
        )
    return seconds
