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
    warn,
)
from ota_server.commands.rollout_start import typed_limits
from ota_server.commands.terminal import print_wrapped
from ota_server.device_port.admission_status import read_standing
from ota_server.device_port.window import Standing
from ota_server.model.refusal import Misused
from ota_server.operations.change_rollout import (
    RolloutChanged,
    abort,
    change,
    pause,
    preview_revert,
    promote,
    resume,
    revert_planned,
)
from ota_server.operations.rollout_facts import rollouts_shown
from ota_server.operations.rollout_words import status_fields
from ota_server.rollouts.find_rollout import end_of, needs_person
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
    now_ms = clock.now_ms()
    shown = rollouts_shown(data_dir, group, now_ms)
    if arguments.json:
        logs = log_dir(data_dir)
        standing = read_standing(logs) if is_served(logs) else Standing()
        for each in shown:
            print(json.dumps(status_fields(*each, standing, end_of(data_dir, each, now_ms))))
    else:
        print_wrapped(rollout_status.lines_of(data_dir, group))
    return int(any(needs_person(data_dir, each) for each in shown))


def _pause(arguments: argparse.Namespace) -> int:
    return _print(pause(arguments.data_dir, arguments.group))


def _resume(arguments: argparse.Namespace) -> int:
    return _print(resume(arguments.data_dir, arguments.group))


def _change(arguments: argparse.Namespace) -> int:
    limits = typed_limits(arguments)
    if not limits:
        raise Misused("say what to change: --soak, --apply-grace or --max-failures")
    return _print(change(arguments.data_dir, arguments.group, limits))


def _promote(arguments: argparse.Namespace) -> int:
    return _print(promote(arguments.data_dir, arguments.group))


def _abort(arguments: argparse.Namespace) -> int:
    if not arguments.revert:
        return _print(abort(arguments.data_dir, arguments.group))
    planned = preview_revert(arguments.data_dir, arguments.group, arguments.force)
    if planned.plan is not None:
        print(planned.text)
    return _print(revert_planned(arguments.data_dir, planned))


def _print(done: RolloutChanged) -> int:
    """Print what was done to a rollout; return the exit code."""
    say(done.text)
    for warning in done.warnings:
        warn(warning)
    return 0


# What is typed


def _group_or_fleet(text: str) -> str:
    return text and group_argument(text)
