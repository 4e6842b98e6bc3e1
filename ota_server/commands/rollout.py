"""The command `rollout`: a release goes out in waves, and is halted if it fails. I/O."""

import argparse
import json
from collections.abc import Callable

from ota_server.commands import rollout_start, rollout_status
from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    group_argument,
    warn_of_hold,
)
from ota_server.commands.rollout_start import warn_of_no_server
from ota_server.commands.rollout_view import status_fields
from ota_server.device_port.admission_status import read_standing
from ota_server.device_port.window import Standing
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.rollouts import edits
from ota_server.rollouts.find_rollout import all_rollouts, no_such_rollout
from ota_server.rollouts.revert import check_revert, plan_revert, revert
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import is_served

_EXAMPLES = """\
  %(prog)s start v1.2.0
      in waves that fit the fleet
  %(prog)s status --watch
      how far it has come, redrawn every second
  %(prog)s abort
      devices that have it stay on it

%(prog)s PART --help says more.
"""
_PART_EXAMPLES = """\
  %(prog)s
  %(prog)s --group beta
      if several rollouts are on
"""


def add_commands(commands: Commands) -> None:
    """Add `rollout` with its parts."""
    parts = add_command_of_parts(
        commands,
        "rollout",
        "move the fleet to a release in waves",
        "Move the fleet, or a group, to a release in waves.",
        _EXAMPLES,
        "start, status, pause, resume, promote or abort",
    )
    starting = add_command(
        parts,
        "start",
        "begin a rollout",
        "Begin a rollout.",
        rollout_start.EXAMPLES,
        rollout_start.start,
    )
    rollout_start.add_options(starting)
    status = _add(parts, "status", "show how far rollouts have come", _status)
    status.add_argument(
        "--watch",
        action="store_true",
        help="every second until it is over; exit code 1 if a rollout ends halted or aborted",
    )
    status.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add(parts, "pause", "offer it to no further devices", _pause)
    _add(parts, "resume", "go on after a pause, whoever paused it", _resume)
    _add(parts, "promote", "open the next wave at once, or end the last", _promote)
    ending = _add(parts, "abort", "end it; devices that have it stay on it", _abort)
    ending.add_argument(
        "--revert",
        action="store_true",
        help="take devices that have it back, in waves with the same limits; even after a halt",
    )


def _add(
    parts: Commands, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a part that concerns one rollout of several."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = add_command(parts, name, summary, description, _PART_EXAMPLES, run)
    parser.add_argument(
        "--group", metavar="G", type=_group_or_fleet, help='whose rollout; "" is the fleet'
    )
    return parser


# The commands


def _status(arguments: argparse.Namespace) -> int:
    found = all_rollouts(arguments.data_dir)
    chosen = [each for each in found if arguments.group in (None, each[0].group)]
    if not chosen:
        raise no_such_rollout(found, arguments.group)
    if arguments.json:
        logs = log_dir(arguments.data_dir)
        standing = read_standing(logs) if is_served(logs) else Standing()
        for each in chosen:
            print(json.dumps(status_fields(*each, standing)))
        return 0
    if arguments.watch:
        return rollout_status.watch(arguments.data_dir, arguments.group)
    print("\n".join(rollout_status.lines_of(arguments.data_dir, arguments.group)))
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    plan = edits.pause(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} is paused: no further devices are offered it")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    plan = edits.resume(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} goes on, from {plan.instead_of or 'no target'}")
    warn_of_hold(arguments.data_dir)
    warn_of_no_server(arguments.data_dir)
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    plan, wave = edits.promote(arguments.data_dir, arguments.group)
    if wave < plan.wave_count:
        print(f"wave {wave + 1} of {plan.wave_count} opens, {plan.percent(wave):g} %")
    else:
        print(f"wave {wave} is the last: the rollout ends without the devices that are missing")
    warn_of_hold(arguments.data_dir)
    warn_of_no_server(arguments.data_dir)
    return 0


def _abort(arguments: argparse.Namespace) -> int:
    now_ms = clock.now_ms()
    now = format_time(now_ms)
    if not arguments.revert:
        plan = edits.abort(arguments.data_dir, arguments.group, now)
        print(f"the rollout of {plan.version} is aborted; devices that have it stay on it")
        return 0
    plan, is_on = check_revert(arguments.data_dir, arguments.group)
    back, reached = plan_revert(arguments.data_dir, plan, now_ms, now)
    devices = len(reached.stands) + reached.inactive
    if not devices:
        end = "`rollout abort` alone ends it" if is_on else "it is over"
        raise Refused(f"no device runs {plan.version}, so there is nothing to take back; {end}")
    print(f"{devices} device{'s' * (devices != 1)} on {plan.version} to take back")
    waves = ", ".join(f"{percent:g}" for percent in back.waves)
    revert(arguments.data_dir, back, now)
    print(f"they go back to {back.version} in waves of {waves} %; `rollout status` shows it")
    warn_of_hold(arguments.data_dir)
    warn_of_no_server(arguments.data_dir)
    return 0


# What is typed


def _group_or_fleet(text: str) -> str:
    return text and group_argument(text)
