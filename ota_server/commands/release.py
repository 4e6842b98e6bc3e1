"""The `release` commands: their arguments and what they print."""

import argparse
from collections.abc import Callable

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    fail,
    reason_argument,
    say,
    version_argument,
    warn,
)
from ota_server.commands.release_list import list_all, say_strays, show
from ota_server.commands.release_publish import (
    PUBLISH_EXAMPLES,
    add_publish_arguments,
    publish_image,
)
from ota_server.commands.terminal import ProgressBar
from ota_server.operations.change_release import (
    ReleaseChanged,
    activate_release,
    reinstate_release,
    remove_release,
    roll_back,
    withdraw_release,
)
from ota_server.operations.release_facts import strays
from ota_server.releases.inventory import (
    get_release,
    look_at_releases,
    problem_with,
    releases,
)
from ota_server.system.data_dir import access_problem

_EXAMPLES = """\
  %(prog)s publish app.bin --version v1.2.0
      copy an image in and put it on record
  %(prog)s activate v1.2.0
      the whole fleet gets it at once
  %(prog)s rollback
      go back to the previous target
  %(prog)s list
      show all releases

`%(prog)s PART --help` says more.
A running server takes up all changes without a restart.
"""
_LIST_EXAMPLES = """\
  %(prog)s
      the newest first
  %(prog)s --json | jq .version
      for programs, an object a line
"""
_SHOW_EXAMPLES = """\
  %(prog)s v1.2.0
  %(prog)s v1.2.0 --json
"""
_VERIFY_EXAMPLES = """\
  %(prog)s           all releases
  %(prog)s v1.2.0    one of them

The exit code is 1 if an image or a signature is missing or was altered. To fix
that, publish the same build again. An image without a manifest was copied in by
hand and cannot be compared: exit code 1 only if it was named.
"""
_REMOVE_EXAMPLES = """\
  %(prog)s v1.0.0

Refused while it is the target, the previous target, pinned, in a rollout, a
stepping stone to another release, or being downloaded.
"""
_WITHDRAW_EXAMPLES = """\
  %(prog)s v1.2.0 --reason 'loses its settings'
  %(prog)s --undo v1.2.0

No device is offered it any longer; its name and resumed downloads get 404.
Devices that run it stay on it until they have another target.
"""
_ACTIVATE_EXAMPLES = """\
  %(prog)s v1.2.0

Groups that had a target of their own get it too, and so do devices that stayed
on a release that was stopped. Pins stay in force.
"""
_ROLLBACK_EXAMPLES = """\
  %(prog)s      to the previous target
  %(prog)s      again: to the one before that

The audit log has what was activated.
"""


def add_commands(commands: Commands) -> None:
    """Add `release` with its parts."""
    parts = add_command_of_parts(
        commands,
        "release",
        "publish images, and choose which one the fleet gets",
        "Publish images, and choose which one the whole fleet gets.",
        _EXAMPLES,
        "publish, list, show, verify, remove, withdraw, activate or rollback",
    )

    def add(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
    ) -> argparse.ArgumentParser:
        description = f"{summary[0].upper()}{summary[1:]}."
        return add_command(parts, name, summary, description, examples, run)

    add_publish_arguments(
        add("publish", publish_image, "copy an image in and put it on record", PUBLISH_EXAMPLES)
    )
    listing = add("list", list_all, "show all releases", _LIST_EXAMPLES)
    _add_json(listing)
    showing = add("show", show, "show all that is on record of a release", _SHOW_EXAMPLES)
    _add_version(showing)
    _add_json(showing)
    _add_version(
        add("verify", _verify, "compare images with what was published", _VERIFY_EXAMPLES),
        nargs="?",
    )
    _add_version(add("remove", _remove, "delete a release that is not in use", _REMOVE_EXAMPLES))
    withdrawing = add("withdraw", _withdraw, "stop offering a release", _WITHDRAW_EXAMPLES)
    _add_version(withdrawing)
    why = "why, for the record"
    withdrawing.add_argument("--reason", default="", type=reason_argument, metavar="TEXT", help=why)
    withdrawing.add_argument("--undo", action="store_true", help="offer it again")
    activating = add(
        "activate", _activate, "make a release the target of the whole fleet", _ACTIVATE_EXAMPLES
    )
    _add_version(activating)
    back = add("rollback", _rollback, "go back to the previous target", _ROLLBACK_EXAMPLES)
    even_while = "even while a rollout to the fleet is on, which pauses it"
    for command, more in (
        (activating, ", and even if the image is for another chip or of another project"),
        (back, ", and even if a group would lose a target for other devices"),
    ):
        command.add_argument("--force", action="store_true", help=even_while + more)


def _add_version(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument(
        "version", type=version_argument, nargs=nargs, metavar="VERSION", help="the release"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _verify(arguments: argparse.Namespace) -> int:
    data_dir = arguments.data_dir
    look_at_releases(data_dir)
    found = [get_release(data_dir, arguments.version)] if arguments.version else releases(data_dir)
    bad = 0
    for release in found:
        if not arguments.version and release.image and not release.manifest and not release.problem:
            print(f"{release.version}: copied in by hand: there is nothing to compare it with")
            continue
        with ProgressBar(f"verifying {release.version}") as progress:
            problem = problem_with(release, progress)
            if not problem and release.image is not None:
                problem = access_problem(data_dir, release.image.path)
        bad += bool(problem)
        print(f"{release.version}: {problem or 'as it was published'}", flush=True)
    if not arguments.version:
        say_strays(strays(data_dir / "firmware"))
    if bad:
        return fail(f"{bad} of {len(found)} missing or altered; publish the same build again")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    with ProgressBar(f"hashing {arguments.version}") as progress:
        done = remove_release(arguments.data_dir, arguments.version, progress)
    return _say(done)


def _withdraw(arguments: argparse.Namespace) -> int:
    data_dir, version = arguments.data_dir, arguments.version
    if arguments.undo:
        return _say(reinstate_release(data_dir, version))
    return _say(withdraw_release(data_dir, version, arguments.reason))


def _activate(arguments: argparse.Namespace) -> int:
    with ProgressBar(f"verifying {arguments.version}") as progress:
        done = activate_release(arguments.data_dir, arguments.version, progress, arguments.force)
    return _say(done)


def _rollback(arguments: argparse.Namespace) -> int:
    with ProgressBar("verifying") as progress:
        done = roll_back(arguments.data_dir, progress, arguments.force)
    return _say(done)


def _say(done: ReleaseChanged) -> int:
    for line in done.lines:
        say(line)
    for warning in done.warnings:
        warn(warning)
    return 0
