"""Operators' commands: which there are, and what is common to running one."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

if not __package__:  # run by its path: nothing of the package can be imported
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(f"ota-server: run this as: cd {folder} && python -m ota_server")

from ota_server import __version__
from ota_server.system.hints import program
from ota_server.system.process_start import raise_on_interrupt
from ota_server.system.usage import Parser, print_problem

# The module of each command, in the order of the help. Only the module of the typed command is
# loaded: loading all of them took more than half of the time of most commands.
COMMANDS = {
    "serve": "server",
    "status": "commands.status",
    "health": "commands.status",
    "devices": "commands.devices",
    "rollout": "commands.rollout",
    "pin": "commands.pin_retry",
    "unpin": "commands.pin_retry",
    "retry": "commands.pin_retry",
    "hold": "commands.hold",
    "unhold": "commands.hold",
    "group": "commands.group",
    "device": "commands.device",
    "why": "commands.why",
    "audit": "commands.audit",
    "notify": "commands.notify",
    "release": "commands.release",
    "product": "commands.product",
    "token": "commands.token",
    "backup": "commands.backup",
    "restore": "commands.backup",
}

_FOR_ALL = frozenset(("-h", "--help", "--version"))


def make_parser(command: str | None = None) -> Parser:
    """Return the parser of all commands, or of one; each sets `run` to what runs it."""
    # Help shows the command as it was called, so that its examples can be typed as they stand.
    parser = Parser(
        prog=program(),
        description="Over-the-air firmware for fleets of small devices.",
        epilog="%(prog)s COMMAND --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"ota_server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in dict.fromkeys(COMMANDS.values() if command is None else (COMMANDS[command],)):
        import_module(f"ota_server.{module}").add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words and words[0] in COMMANDS else None
    parser = make_parser(command)
    if command is None and not _FOR_ALL.intersection(words[:1]):
        print_problem(
            f"ota-server: {_what_is_missing(words, parser)}; `{parser.prog} --help` says more"
        )
        return 2
    arguments = parser.parse_args(words)
    try:
        raise_on_interrupt()
        _keep_what_is_printed()
        try:
            code = int(arguments.run(arguments))
        except BrokenPipeError:
            code = 0  # `devices | head`: the reader has gone, which is not worth a traceback
        return _flushed(code)
    except KeyboardInterrupt:
        return 130


def _what_is_missing(words: Sequence[str], parser: Parser) -> str:
    """Return what is wrong with words that do not begin with a command."""
    if not words:
        return f"give a command: {', '.join(COMMANDS)}"
    if words[0].startswith("-"):
        return f"give the command first, and {words[0][:40]} after it"
    from difflib import get_close_matches  # here, since other commands do not need it

    parts = {
        f"{name} {part}": part
        for name, command in parser.parts.choices.items()
        for part in (command.parts.choices if command.parts else ())
    }
    meant = [name for name, part in parts.items() if part == words[0]]
    meant = meant or get_close_matches(words[0], COMMANDS, n=2)
    did_you = f"; did you mean {' or '.join(f'`{name}`' for name in meant)}?" if meant else ""
    return f"there is no command {words[0][:40]!r}{did_you}"


def _keep_what_is_printed() -> None:
    """Have Python keep lines that it cannot write: then the output is known to be what failed.

    With PYTHONUNBUFFERED it keeps none.
    """
    out = sys.stdout
    if getattr(out, "write_through", False):
        sys.stdout = os.fdopen(out.fileno(), "w", 1, out.encoding, out.errors, closefd=False)


def _flushed(code: int) -> int:
    """Flush the output; return `code`, or 1 where that fails."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        # What is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError) and code == 0:
            print_problem(f"ota-server: cannot write: {problem.strerror}")
            return 1
    return code
