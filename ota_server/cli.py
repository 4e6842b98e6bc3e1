"""Operators' commands: `python -m ota_server COMMAND`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ota_server import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


# Each loads what its commands need: to load all was more than half of what most commands take.
def _add_serve(commands: "Commands") -> None:
    from ota_server import serve

    serving = commands.add_parser(
        "serve",
        help="serve firmware to devices",
        description="Serve firmware to a fleet of devices and keep a record of each.",
        epilog=serve.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serving.add_argument("--version", action="version", version=f"ota_server {__version__}")
    serve.add_arguments(serving)
    serving.set_defaults(run=serve.serve)


def _add_devices(commands: "Commands") -> None:
    from ota_server import devices

    listing = commands.add_parser(
        "devices",
        help="show the fleet, or the history of one device",
        description="Show the fleet, the history of one device, or who was answered 401 of late.",
        epilog=devices.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    devices.add_arguments(listing)
    listing.set_defaults(run=devices.show)


def _add_rollouts(commands: "Commands") -> None:
    from ota_server import rollouts

    rollouts.add_commands(commands)


def _add_control(commands: "Commands") -> None:
    from ota_server import control

    control.add_commands(commands)


def _add_groups(commands: "Commands") -> None:
    from ota_server import groups

    groups.add_commands(commands)


def _add_why(commands: "Commands") -> None:
    from ota_server import why

    why.add_commands(commands)


def _add_audit(commands: "Commands") -> None:
    from ota_server import auditlog

    auditlog.add_commands(commands)


def _add_releases(commands: "Commands") -> None:
    from ota_server import releases

    releasing = commands.add_parser(
        "release",
        help="publish images, and say which one the fleet gets",
        description="Publish images, and say which one the whole fleet gets.",
        epilog=releases.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    releases.add_arguments(releasing)


# What adds each command, in the order of the help.
COMMANDS: dict[str, Callable[["Commands"], None]] = {
    "serve": _add_serve,
    "devices": _add_devices,
    "rollout": _add_rollouts,
    "pin": _add_control,
    "unpin": _add_control,
    "hold": _add_control,
    "unhold": _add_control,
    "retry": _add_control,
    "group": _add_groups,
    "why": _add_why,
    "audit": _add_audit,
    "release": _add_releases,
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
    for add in dict.fromkeys(COMMANDS.values() if command is None else (COMMANDS[command],)):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words and words[0] in COMMANDS else None
    arguments = make_parser(command).parse_args(words)
    try:
        code = int(arguments.run(arguments))
    except BrokenPipeError:
        code = 0  # `devices | head`: nobody reads on, which is no error worth a traceback
    except KeyboardInterrupt:
        return 130
    return _flushed(code)


def _flushed(code: int) -> int:
    """Bring the output to its reader, and return the exit code after that."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        # What is still buffered would raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError) and code == 0:
            print(f"ota-server: cannot write: {problem.strerror}", file=sys.stderr)
            return 1
    return code
