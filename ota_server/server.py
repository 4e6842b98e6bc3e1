"""The command that serves: `python -m ota_server.server`. Arguments, wiring, signals."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from ota_server.device_port import banner
from ota_server.device_port.options import describe
from ota_server.device_port.server import OTAServer
from ota_server.device_port.wiring import CannotStart, Companions, WrongOptions, make_server
from ota_server.system import garbage
from ota_server.system.data_dir import log_dir
from ota_server.system.server_log import LogThread

log = logging.getLogger("ota_server.server")  # run as a program, __name__ is "__main__"

# How long another thread that computes may hold up the one that answers. While 401s were listed the
# slowest of 60,000 checks took 7 ms with the default of 5 ms, and 4 ms with this, at the same rate.
_SWITCH_SECONDS = 0.001
_STOPPING = "stopping: downloads may go on for the grace time; a second signal cuts them"


def add_commands(commands: Any) -> None:
    """Add `serve`."""
    parser = commands.add_parser("serve", help="serve firmware to devices")
    describe(parser)
    parser.set_defaults(run=serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ota_server.server` and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ota_server.server")
    describe(parser)
    return serve(parser.parse_args(argv))


def serve(arguments: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code."""
    _open_standard_streams()
    written = LogThread()
    logging.basicConfig(
        handlers=[written], level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        return _serve(arguments, written)
    finally:
        written.end()


def _serve(arguments: argparse.Namespace, written: LogThread) -> int:
    # Before there is a server: SIGHUP would kill the process, the others end it with a traceback.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _end_start)
    try:
        server = make_server(arguments)
    except WrongOptions as problem:
        print(f"ota_server: {problem}", file=sys.stderr)
        return 2
    except CannotStart as problem:
        print(f"ota_server: {problem}", file=sys.stderr)
        return 1
    _install_signals(server, written)
    banner.show(server, log_dir(arguments.data_dir), banner.limits_text(arguments))
    companions = Companions(arguments, server)
    garbage.hold_back()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        server.serve_forever()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        server.server_close()
        companions.end()
        server.service.close()
    # At exit Python restores the default handlers: a second SIGTERM would look like a failure.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    log.info("stopped; all records are written")
    return 0


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, or a file of ours gets its number."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _end_start(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Nothing was answered yet, so there is nothing to finish.
    os._exit(0)


def _install_signals(server: OTAServer, written: LogThread) -> None:
    def end(signum: int, _frame: FrameType | None) -> None:
        if server.is_draining:
            server.end_at_once()
            return
        server.drain()
        # No logging here: its lock may be held by the code that was interrupted.
        written.say(_STOPPING)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda *_: server.service.reopen_journal())


if __name__ == "__main__":
    sys.exit(main())
