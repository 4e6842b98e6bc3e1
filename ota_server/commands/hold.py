"""The commands `hold` and `unhold`: the emergency hold, of everything or of one product."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ota_server.commands.common import (
    Commands,
    add_command,
    fail,
    reason_argument,
    say,
    warn,
)
from ota_server.commands.terminal import printable
from ota_server.operations.hold_devices import (
    hold_devices,
    hold_warnings,
    is_of_all,
    release_hold,
    what_is_held,
)
from ota_server.policy.hold import current_hold, hold_words
from ota_server.policy.text import Hold
from ota_server.system.hints import hints

_HOLD_EXAMPLES = """\
  %(prog)s
      no device of any product is offered anything from this moment on
  %(prog)s --reason 'v1.2.0 reboots'
      and `why` says so
  %(prog)s --product plug
      no device of this product; `default` is that of the plain paths

Downloads that have begun go on. By hand: touch version/hold.json in the data
directory, and in those of its products.
"""
_UNHOLD_EXAMPLES = """\
  %(prog)s
      the devices of all products are offered what they should run again
  %(prog)s --product plug
      the devices of this product
"""


def add_commands(commands: Commands) -> None:
    """Add both commands."""
    holding = add_command(
        commands,
        "hold",
        "stop all offers at once",
        "The emergency hold: within a second every device is told to stay on its version, or, "
        "with --product, every device of that product.",
        _HOLD_EXAMPLES,
        _hold,
    )
    holding.add_argument(
        "--reason",
        default="",
        type=reason_argument,
        metavar="TEXT",
        help="why, for people: `why` and the audit log show it",
    )
    add_command(
        commands,
        "unhold",
        "end the hold",
        "End the hold that `hold` began: of all products, or, with --product, of that one.",
        _UNHOLD_EXAMPLES,
        _unhold,
    )


def _hold(arguments: argparse.Namespace) -> int:
    data_dir, reason = arguments.data_dir, arguments.reason
    begun = hold_devices(data_dir, reason, _is_of_one(arguments))
    _warn(data_dir)
    if begun.problems:
        _say_problems(begun.problems, "not on hold")
        say("everything else is on hold; `unhold` ends that")
        return 1
    _say_held(data_dir, begun.before, reason)
    return 0


def _say_held(data_dir: Path, before: Sequence[Hold | None], reason: str) -> None:
    what, end = hold_words(data_dir)
    holds = [each for each in before if each is not None]
    if len(holds) < len(before):
        say(f"{what} is on hold; {end} ends that")
    elif any(reason not in ("", each.reason) for each in holds):
        # On a full disk the one before stays on record.
        held = current_hold(data_dir) or Hold()
        say(f"{what} is still on hold, for this reason: {printable(held.reason)}; {end} ends that")
    else:
        held = holds[-1]  # of the default product
        since = f", since {held.time}" if held.time else ""
        by = f" by {held.user}" if held.user else ""
        why = f": {held.reason}" if held.reason else f"; {end} ends that"
        say(printable(f"{what} is already on hold{since}{by}{why}"))


def _unhold(arguments: argparse.Namespace) -> int:
    data_dir, is_one = arguments.data_dir, _is_of_one(arguments)
    what = what_is_held(data_dir)
    if problems := release_hold(data_dir, is_one):
        _say_problems(problems, "still on hold")
        return 1
    is_all = is_of_all(data_dir, is_one) or what == "everything"
    print("nothing is on hold any longer" if is_all else f"the {what} is not on hold any longer")
    _warn(data_dir)
    return 0


def _warn(data_dir: Path) -> None:
    for warning in hold_warnings(data_dir):
        warn(warning)


def _is_of_one(arguments: argparse.Namespace) -> bool:
    return arguments.product is not None


def _say_problems(problems: Mapping[str, str], state: str) -> None:
    for product, problem in problems.items():
        what = f"product {product}" if product else "default product"
        fail(f"the {what} is {state}: {hints.paste(problem)}")
