"""Operators' commands: `python -m ota_server COMMAND`."""

import argparse
import os
import sys
from collections.abc import Sequence

from ota_server import __version__, devices, serve


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="ota-server",
        description="Over-the-air firmware for fleets of small devices.",
        epilog="`ota-server COMMAND --help` says more; `python -m ota_server` is the same command.",
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
    arguments = parser.parse_args(argv)
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # `devices | head`: nobody reads on, which is no error worth a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return int(code)
