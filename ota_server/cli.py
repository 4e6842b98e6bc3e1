"""Operators' commands: `python -m ota_server COMMAND`."""

import argparse
import os
import sys
from collections.abc import Sequence

from ota_server import (
    __version__,
    auditlog,
    control,
    deviceedits,
    devices,
    groups,
    releases,
    rollouts,
    serve,
    why,
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run` to what runs it."""
    # Help shows the command as it was called, so that its examples can be typed as they stand.
    is_installed = os.path.basename(sys.argv[0]) == "ota-server"
    parser = argparse.ArgumentParser(
        prog="ota-server" if is_installed else "python -m ota_server",
        description="Over-the-air firmware for fleets of small devices.",
        epilog="%(prog)s COMMAND --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"ota_server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    serving = commands.add_parser(
        "serve",
        help="serve firmware to devices",
        description="Serve firmware to a fleet of devices and keep a record of each.",
        epilog=serve.EXAMPLES,
        formatter_class=raw,
    )
    serving.add_argument("--version", action="version", version=f"ota_server {__version__}")
    serve.add_arguments(serving)
    serving.set_defaults(run=serve.serve)
    listing = commands.add_parser(
        "devices",
        help="show the fleet, or the history of one device",
        description="Show the fleet, the history of one device, or who was answered 401 of late.",
        epilog=devices.EXAMPLES,
        formatter_class=raw,
    )
    devices.add_arguments(listing)
    listing.set_defaults(run=devices.show)
    for module in (rollouts, control, groups, deviceedits, why, auditlog):
        module.add_commands(commands)
    releasing = commands.add_parser(
        "release",
        help="publish images, and say which one the fleet gets",
        description="Publish images, and say which one the whole fleet gets.",
        epilog=releases.EXAMPLES,
        formatter_class=raw,
    )
    releases.add_arguments(releasing)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = make_parser().parse_args(argv)
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
