"""What operators' commands share: adding one, its arguments, and reporting a failure."""

import argparse
import os
import pwd
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ota_server.commands.named_device import DEFAULT, MaybeLabel, find_product, resolve_labels
from ota_server.commands.terminal import print_wrapped, printable
from ota_server.model.identity import key_of_name, parse_name
from ota_server.model.manifest import is_reported_text
from ota_server.model.quantity import parse_duration
from ota_server.model.refusal import BadPolicy, Misused, Refused
from ota_server.operations.after_change import (
    STARTS_NOTHING,
    WRONG_FOLDER,
    no_server_warning,
)
from ota_server.operations.typed_values import (
    BadValue,
    parse_end_time,
    parse_group_name,
    parse_reason,
    parse_version,
)
from ota_server.policy.hold import hold_lines
from ota_server.policy.text import Who, parse_until, parse_who
from ota_server.rollouts.find_rollout import must_name_fleet
from ota_server.system import clock
from ota_server.system.data_dir import (
    add_data_dir_argument,
    default_data_dir,
    journal_dir,
    product_at,
    product_dir,
    product_names,
)
from ota_server.system.files import is_full
from ota_server.system.hints import hints
from ota_server.system.locks import Busy
from ota_server.system.usage import print_problem

_WITHOUT_ROOM = (
    "`hold` still works, and so do `unhold`, `release remove VERSION` and `touch "
    "version/hold.json` in the data directory"
)
# What `add_subparsers` returns; argparse has no public name for it.
Commands = Any
_HELP_COLUMNS = 78
_Value = TypeVar("_Value")


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    examples: str,
    run: Callable[[argparse.Namespace], int],
    shows_table: bool = False,
    has_product: bool = True,
) -> argparse.ArgumentParser:
    """Add a command with its help and --data-dir; `run` runs it, its failures are reported.

    Args:
        shows_table: it shows a table to people, which ends with the hold, if there is one.
        has_product: it is about one product at a time, which --product names.
    """
    parser = _add_parser(commands, name, summary, description, examples)
    add_data_dir_argument(parser)
    if has_product:
        parser.add_argument(
            "--product",
            metavar="NAME",
            help="of this product; `default` is that of the plain paths",
        )
    runs = _with_hold(run) if shows_table else run
    parser.set_defaults(run=lambda arguments: run_command(runs, arguments))
    return parser


def _with_hold(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run_and_say(arguments: argparse.Namespace) -> int:
        code = run(arguments)
        if not arguments.json and not getattr(arguments, "csv", False):
            say_hold(arguments.data_dir)
        return code

    return run_and_say


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
    )
    return parser


def mac_argument(text: str) -> str | MaybeLabel:
    """Parse the name of a device, as a rule its MAC, or its label, which `run_command` resolves."""
    return parse_name(text) or MaybeLabel(text, or_group=False)


def typed(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """Return the type of an argument that a function of `operations.typed_values` reads."""

    def read(text: str) -> _Value:
        try:
            return parse(text)
        except BadValue as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read


group_argument = typed(parse_group_name)
version_argument = typed(parse_version)
reason_argument = typed(parse_reason)
until_argument = typed(parse_end_time)


def who_argument(text: str) -> Who | MaybeLabel:
    """Parse a device, by its MAC address or its label, or a group."""
    who = parse_who(text)
    return who if who and who.kind == "devices" else MaybeLabel(text, or_group=True)


def reported_argument(text: str) -> str:
    """Parse a version that a device may report."""
    if not is_reported_text(text):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} cannot be reported by a device: 1 to 64 printable ASCII characters"
        )
    return text


def at_least_one(text: str) -> int:
    """Parse how many there are to be: a whole number from 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        what = "would show nothing" if text == "0" else "is not a number"
        raise argparse.ArgumentTypeError(f"{text[:40]!r} {what}: give a whole number from 1")
    return int(text)


def since_argument(text: str) -> int:
    """Parse a time, or how long ago it was; return milliseconds since the epoch."""
    try:
        return max(clock.now_ms() - round(parse_duration(text) * 1000), 0)
    except ValueError:
        pass
    try:
        return parse_until(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not how long ago, such as 2d or 90m, and {problem}"
        ) from None


def add_local_argument(parser: argparse.ArgumentParser) -> None:
    """Add --local."""
    parser.add_argument(
        "--local",
        action="store_true",
        help="times in the zone of this machine, with its offset (default: UTC, with a Z)",
    )


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    """Add --force to what changes what devices get."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if devices get an image for another chip or of another project than they run",
    )


def run_command(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command and report its failure; return the exit code."""
    is_default = arguments.data_dir == default_data_dir()
    hints.data_dir = None if is_default else arguments.data_dir
    try:
        _choose_product(arguments)
        hints.must_name_fleet = partial(must_name_fleet, arguments.data_dir)
        _check_local(arguments)
        resolve_labels(arguments)
        return run(arguments)
    except Misused as problem:
        return fail(str(problem), code=2)
    except (Refused, BadPolicy, Busy) as problem:
        return fail(str(problem))
    except OSError as problem:
        if isinstance(problem, BrokenPipeError):
            raise
        if not isinstance(problem.filename, str):
            what = "the output cannot be written"
            if _can_print():
                what = f"a file in {arguments.data_dir} cannot be read or written"
            return fail(f"{what}: {problem.strerror}")
        hint = f"; {run_as(arguments)}" if isinstance(problem, PermissionError) else ""
        if is_full(problem):
            hint = _how_to_make_room(Path(problem.filename))
        return fail(f"{problem.filename}: {problem.strerror}{hint}")


def _choose_product(arguments: argparse.Namespace) -> None:
    """Let the data directory be that of the product that was named, or has the device.

    Raises:
        Misused: there is no such product, or the device is of several.
    """
    hints.product = None
    if "product" not in arguments:
        return
    said, product = arguments.product, find_product(arguments)
    if product is None:
        return
    product = "" if product == DEFAULT else product
    names = product_names(arguments.data_dir)
    if product and product not in names:
        there = f"there are {', '.join((DEFAULT, *names))}"
        there = there if names else "`product add NAME` makes one"
        raise Misused(hints.paste(f"there is no product {product[:40]!r}; {there}"))
    arguments.product = product
    arguments.data_dir = product_dir(arguments.data_dir, product)
    if names and (product or said is not None):
        hints.product = product or DEFAULT
    # What `why` prints has a line for it.
    if product and said is None and arguments.command != "why":
        print(f"ota-server: of the product {product}", file=sys.stderr)


def key_of(arguments: argparse.Namespace, name: str) -> str:
    """Return the key of a device of the product, by its name (`model.identity`)."""
    return key_of_name(product_at(arguments.data_dir), name)


def run_as(arguments: argparse.Namespace) -> str:
    """Return who may do what this user may not: root, and the one whom log/ belongs to."""
    for folder in (journal_dir(arguments.data_dir), arguments.data_dir):
        with suppress(OSError, KeyError):
            owner = pwd.getpwuid(os.stat(folder).st_uid).pw_name
            if owner not in ("root", pwd.getpwuid(os.geteuid()).pw_name):
                return f"run this as the server's user (sudo -u {owner}), or as root"
            break
    return "run this as root (sudo)"


def _check_local(arguments: argparse.Namespace) -> None:
    form = next((name for name in ("json", "csv") if getattr(arguments, name, False)), None)
    if form and getattr(arguments, "local", False):
        raise Misused(f"--local is for people: --{form} has all times in UTC")


def _can_print() -> bool:
    """Return whether what was printed can be written: it is kept while it cannot."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _how_to_make_room(path: Path) -> str:
    """Return what is full, and what to do about it."""
    with suppress(OSError):
        disk = os.statvfs(path.parent)
        if disk.f_files and not disk.f_favail:
            return (
                "; its file system has no room for one more file: delete some. `hold` still works"
            )
    return f"; make room. {_WITHOUT_ROOM}"


def fail(problem: str, code: int = 1) -> int:
    """Print what went wrong; return `code`."""
    print_problem(f"ota-server: {problem}")
    return code


def warn(problem: str) -> None:
    """Print a warning."""
    print_problem(f"ota-server: warning: {problem}")


def say(text: str) -> None:
    """Print what was done; the commands in it can be pasted."""
    print_wrapped([hints.paste(text)])


def say_hold(data_dir: Path) -> None:
    """Print, as the last lines of a table, what is on hold."""
    print_wrapped(printable(hints.paste(line)) for line in hold_lines(data_dir))


def warn_of_no_server(data_dir: Path, advice: str = STARTS_NOTHING) -> None:
    """Warn if no server runs on the data directory: no device will notice the change."""
    if problem := no_server_warning(data_dir, advice):
        warn(problem)


def warn_of_new_folder(data_dir: Path) -> None:
    """Warn that a command made a data directory where none was: a mistyped path does that too."""
    warn(f"{data_dir} was not a data directory, and is one now; {WRONG_FOLDER}")


def warn_of_wrong_folder(data_dir: Path) -> None:
    """Warn if no server runs: what stops everything may have been done in the wrong folder."""
    warn_of_no_server(data_dir, WRONG_FOLDER)
