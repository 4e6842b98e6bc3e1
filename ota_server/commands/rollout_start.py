"""`rollout start`: its options, and how a rollout begins. I/O."""

import argparse
from pathlib import Path
from typing import Any

from ota_server.commands.common import group_argument, say, typed, version_argument, warn
from ota_server.commands.rollout_preview import print_left_alone, print_preview
from ota_server.operations.rollout_request import HELD_UNKNOWN, RolloutRequest
from ota_server.operations.start_rollout import NoSuchDevices, preview, start_previewed
from ota_server.operations.typed_values import (
    parse_device_count,
    parse_note,
    parse_share,
    parse_time_limit,
    parse_waves,
)
from ota_server.rollouts import edits
from ota_server.system import clock

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
  %(prog)s v1.2.0 --note 'fixes the clock, ticket 4711'
      with a note for people
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
        type=typed(parse_waves),
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
    add("--min-devices", type=typed(parse_device_count), default=20, metavar="N", help=least)
    duration = typed(parse_time_limit)
    longest = "a wave that takes longer pauses the rollout (default: 7d)"
    add("--wave-timeout", type=duration, default=duration("7d"), metavar="TIME", help=longest)
    add(
        "--held-unknown",
        choices=HELD_UNKNOWN,
        default=HELD_UNKNOWN[0],
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
    add(
        "--note",
        type=typed(parse_note),
        default="",
        metavar="TEXT",
        help="what `rollout status` and `rollout history` show of it, for people",
    )


def add_limits(parser: argparse.ArgumentParser, have_defaults: bool = False) -> None:
    """Add the limits of a rollout that can be changed while it goes on."""
    duration = typed(parse_time_limit)
    for name, option, kind, metavar, what, default in (
        (
            "max_failures",
            "--max-failures",
            typed(parse_share),
            "P%",
            "the share of devices that may fail",
            "2%",
        ),
        ("soak_seconds", "--soak", duration, "TIME", "how long a device has to run it well", "1h"),
        (
            "grace_seconds",
            "--apply-grace",
            duration,
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
    typed_ones = {name: getattr(arguments, name) for name in edits.LIMITS}
    return {name: limit for name, limit in typed_ones.items() if limit is not None}


def start(arguments: argparse.Namespace) -> int:
    """Show what a rollout reaches, and begin it; return the exit code."""
    data_dir: Path = arguments.data_dir
    try:
        shown = preview(data_dir, _request(arguments), clock.now_ms())
    except NoSuchDevices as problem:
        print_left_alone(problem.left_alone)
        raise
    print_left_alone(shown.left_alone)
    print_preview(shown)
    started = start_previewed(data_dir, shown)
    version = started.plan.version
    say(f"the rollout of {version} has begun; `rollout status --watch` shows it")
    for warning in started.warnings:
        warn(warning)
    return 0


def _request(arguments: argparse.Namespace) -> RolloutRequest:
    return RolloutRequest(
        version=arguments.version,
        group=arguments.group or "",
        waves=arguments.waves,
        first_group=arguments.first_group,
        groups_too=arguments.groups_too,
        min_devices=arguments.min_devices,
        wave_timeout_seconds=arguments.wave_timeout,
        held_unknown=arguments.held_unknown,
        count_new=arguments.count_new,
        is_forced=arguments.force,
        note=arguments.note,
        **typed_limits(arguments),
    )
