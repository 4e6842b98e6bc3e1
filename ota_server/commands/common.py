"""What operators' commands share: adding one, its arguments, and reporting a failure."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ota_server.commands.terminal import printable
from ota_server.model.device import parse_mac
from ota_server.model.manifest import is_reported_text
from ota_server.model.refusal import BadPolicy, Misused, Refused
from ota_server.model.version import VERSION_RULE, is_version
from ota_server.policy import edits
from ota_server.policy.policy import HOLD_NAME, is_group_name
from ota_server.policy.text import Who, parse_until, parse_who
from ota_server.system.data_dir import add_data_dir_argument
from ota_server.system.files import is_full
from ota_server.system.locks import Busy

_WITHOUT_ROOM = "`hold` still works, and so does `touch version/hold.json` in the data directory"
# What `add_subparsers` returns; argparse has no public name for it.
Commands = Any
_HELP_COLUMNS = 78


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    examples: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a command with its help and --data-dir; `run` runs it, its failures are reported."""
    parser = _add_parser(commands, name, summary, description, examples)
    add_data_dir_argument(parser)
    parser.set_defaults(run=lambda arguments: run_command(run, arguments))
    return parser


def add_command_of_parts(
    commands: Commands, name: str, summary: str, description: str, examples: str, parts: str
) -> Commands:
    """Add a command that consists of `parts`; return what these are added to."""
    parser = _add_parser(commands, name, summary, description, examples)
    return parser.add_subparsers(dest="part", required=True, metavar="PART", help=parts)


def _add_parser(
    commands: Commands, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, _HELP_COLUMNS),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def mac_argument(text: str) -> str:
    """Parse a MAC address."""
    mac = parse_mac(text)
    if mac is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a MAC address such as 00:11:22:33:44:55"
        )
    return mac


def group_argument(text: str) -> str:
    """Parse the name of a group."""
    if not is_group_name(text) or parse_mac(text):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a group's name: a letter, then up to 31 of a-z 0-9 _ -"
        )
    return text


def who_argument(text: str) -> Who:
    """Parse a device or a group."""
    who = parse_who(text)
    if who is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is neither a MAC address such as 00:11:22:33:44:55 nor a group's name"
        )
    return who


def version_argument(text: str) -> str:
    """Parse the version of a release."""
    if not is_version(text):
        raise argparse.ArgumentTypeError(f"{text[:70]!r} is not a version: use {VERSION_RULE}")
    return text


def reported_argument(text: str) -> str:
    """Parse a version that a device may report."""
    if not is_reported_text(text):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} cannot be reported by a device: 1 to 64 printable ASCII characters"
        )
    return text


def until_argument(text: str) -> int:
    """Parse a date or a time; return milliseconds since the epoch."""
    try:
        return parse_until(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a time: {problem}") from None


def run_command(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command and report its failure; return the exit code."""
    # What somebody wrote into a file may hold what this terminal cannot show.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return run(arguments)
    except Misused as problem:
        return fail(str(problem), code=2)
    except (Refused, BadPolicy, Busy) as problem:
        return fail(str(problem))
    except OSError as problem:
        if isinstance(problem, BrokenPipeError):
            raise
        what = problem.filename or "the output cannot be written"
        hint = "; run this as the server's user" if isinstance(problem, PermissionError) else ""
        if is_full(problem) and problem.filename:
            hint = f"; make room. {_WITHOUT_ROOM}"
        return fail(f"{what}: {problem.strerror}{hint}")


def fail(problem: str, code: int = 1) -> int:
    """Print what went wrong; return `code`."""
    print(f"ota-server: {printable(problem)}", file=sys.stderr)
    return code


def warn(problem: str) -> None:
    """Print a warning."""
    print(f"ota-server: warning: {printable(problem)}", file=sys.stderr)


def warn_of_hold(data_dir: Path) -> None:
    """Warn if everything is on hold: what was just done reaches no device."""
    if os.path.lexists(data_dir / "version" / HOLD_NAME):
        reason = edits.reason_of_hold(data_dir)
        warn(
            f"everything is on hold{f': {reason}' if reason else ''}; no device is offered "
            "anything until `unhold`"
        )
