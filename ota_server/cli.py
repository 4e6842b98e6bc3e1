"""Operators' commands: `python -m ota_server COMMAND`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ota_server import __version__

# The module of each command, in the order of the help. Only the module of the typed command is
# loaded: loading all of them took more than half of the time of most commands.
COMMANDS = {
    "serve": "server",
    "devices": "commands.devices",
    "rollout": "commands.rollout",
    "pin": "commands.pin_hold_retry",
    "unpin": "commands.pin_hold_retry",
    "hold": "commands.pin_hold_retry",
    "unhold": "commands.pin_hold_retry",
    "retry": "commands.pin_hold_retry",
    "group": "commands.group",
    "device": "commands.device",
    "why": "commands.why",
    "audit": "commands.audit",
    "release": "commands.release",
}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of one; each sets `run` to what runs it."""
    # Help shows the command as it was called, so that its examples can be typed as they stand.
    is_installed = os.path.basename(sys.argv[0]) == "ota-server"
    parser = argparse.ArgumentParser(
        prog="ota-server" if is_installed else "python -m ota_server",
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
    arguments = make_parser(command).parse_args(words)
    try:
        code = int(arguments.run(arguments))
    except BrokenPipeError:
        code = 0  # `devices | head`: the reader has gone, which is not worth a traceback
    except KeyboardInterrupt:
        return 130
    return _flushed(code)


def _flushed(code: int) -> int:
    """Flush the output; return `code`, or 1 where that fails."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        # What is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError) and code == 0:
            print(f"ota-server: cannot write: {problem.strerror}", file=sys.stderr)
            return 1
    return code
