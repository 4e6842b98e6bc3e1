"""The command `rollout`: a release goes out in waves, and is halted if it fails. I/O."""

import argparse
import json
from collections.abc import Callable

from ota_server.commands import (
    rollout_devices,
    rollout_history,
    rollout_start,
    rollout_status,
)
from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    group_argument,
    say,
    warn_of_hold,
    warn_of_no_server,
    warn_of_wrong_folder,
)
from ota_server.commands.rollout_start import typed_limits
from ota_server.commands.rollout_view import status_fields
from ota_server.commands.terminal import print_wrapped
from ota_server.device_port.admission_status import read_standing
from ota_server.device_port.window import Standing
from ota_server.model.quantity import count_of
from ota_server.model.refusal import Misused, Refused
from ota_server.model.timestamp import format_time
from ota_server.operations.start_rollout import refuse_development
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.rollout_text import who_stays
from ota_server.releases.same_devices import check_way_back
from ota_server.rollouts import edits
from ota_server.rollouts.find_rollout import end_of, needs_person
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
        "start, status, devices, history, pause, resume, change, promote or abort",
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
    for name, summary, part in (
        ("devices", "show which devices did not do well, and why", rollout_devices),
        ("history", "show the rollouts that are over", rollout_history),
    ):
        part.add_options(_add(parts, name, summary, part.show, part.EXAMPLES))
    _add(parts, "pause", "offer it to no further devices", _pause)
    _add(parts, "resume", "go on after a pause, whoever paused it", _resume)
    changing = _add(parts, "change", "give it other limits while it goes on", _change)
    rollout_start.add_limits(changing)
    _add(parts, "promote", "open the next wave at once, or end the last", _promote)
    ending = _add(parts, "abort", "end it; devices that have it stay on it", _abort)
    ending.add_argument(
        "--revert",
        action="store_true",
        help="take devices that have it back, in two waves with a soak of 5m; even after a halt",
    )
    ending.add_argument(
        "--force",
        action="store_true",
        help="with --revert: even to an image for another chip or of another project",
    )


def _add(
    parts: Commands,
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    examples: str = _PART_EXAMPLES,
) -> argparse.ArgumentParser:
    """Add a part that concerns one rollout of several."""
    description = f"{summary[0].upper()}{summary[1:]}."
    has_table = examples is not _PART_EXAMPLES
    parser = add_command(parts, name, summary, description, examples, run, has_table)
    parser.add_argument(
        "--group", metavar="G", type=_group_or_fleet, help='whose rollout; "" is the fleet'
    )
    return parser


# The commands


def _status(arguments: argparse.Namespace) -> int:
    data_dir, group = arguments.data_dir, arguments.group
    if arguments.watch and not arguments.json:
        return rollout_status.watch(data_dir, group)
    shown = rollout_status.rollouts_shown(data_dir, group)
    if arguments.json:
        logs = log_dir(data_dir)
        standing = read_standing(logs) if is_served(logs) else Standing()
        now_ms = clock.now_ms()
        for each in shown:
            print(json.dumps(status_fields(*each, standing, end_of(data_dir, each, now_ms))))
    else:
        print_wrapped(rollout_status.lines_of(data_dir, group))
    return int(any(needs_person(data_dir, each) for each in shown))


def _pause(arguments: argparse.Namespace) -> int:
    plan = edits.pause(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} is paused: no further devices are offered it")
    warn_of_wrong_folder(arguments.data_dir)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    plan = edits.resume(arguments.data_dir, arguments.group)
    print(f"the rollout of {plan.version} goes on, from {plan.instead_of or 'no target'}")
    warn_of_hold(arguments.data_dir)
    warn_of_no_server(arguments.data_dir)
    return 0


def _change(arguments: argparse.Namespace) -> int:
    limits = typed_limits(arguments)
    if not limits:
        raise Misused("say what to change: --soak, --apply-grace or --max-failures")
    plan = edits.change(arguments.data_dir, arguments.group, limits)
    print(f"the rollout of {plan.version} goes on with {edits.limits_text(limits)}")
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
        print(f"the rollout of {plan.version} is aborted; {who_stays(plan)}")
        warn_of_wrong_folder(arguments.data_dir)
        return 0
    refuse_development(arguments.data_dir)
    plan, is_on, nothing = check_revert(arguments.data_dir, arguments.group)
    if nothing:
        return _nothing_to_take_back(plan, is_on, nothing)
    back, reached = plan_revert(arguments.data_dir, plan, now_ms, now)
    devices = len(reached.stands) + reached.inactive
    if not devices:
        if not is_on:
            edits.close_halted(arguments.data_dir, plan)
        return _nothing_to_take_back(plan, is_on, f"no device runs {plan.version}")
    if not arguments.force:
        check_way_back(arguments.data_dir, plan)
    print(f"{count_of(devices, 'device')} on {plan.version} to take back")
    waves = ", ".join(f"{percent:g}" for percent in back.waves)
    revert(arguments.data_dir, back, now)
    say(f"they go back to {back.version} in waves of {waves} %; `rollout status` shows it")
    warn_of_hold(arguments.data_dir)
    warn_of_no_server(arguments.data_dir)
    return 0


def _nothing_to_take_back(plan: RolloutPlan, is_on: bool, why: str) -> int:
    """Say that a revert has nothing to do: after a halt, which advises it, that is no failure."""
    why = f"{why}, so there is nothing to take back"
    if is_on:
        raise Refused(f"{why}; {plan.command('abort')} alone ends it")
    print(f"{why}; it is over")
    return 0


# What is typed


def _group_or_fleet(text: str) -> str:
    return text and group_argument(text)
