"""The command that serves: `python -m ota_server.server`. Arguments, wiring, signals."""

import os
import sys

if not __package__:  # run by its path: nothing of the package can be imported
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(f"ota-server: run this as: cd {folder} && python -m ota_server.server")

from ota_server.system import process_start

if __name__ == "__main__":
    process_start.begin_to_serve()  # before the imports, which take a while

import argparse
import logging
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ota_server.device_port import banner
from ota_server.device_port.admin_socket import NoAdminPort, open_admin_socket
from ota_server.device_port.companions import Companions
from ota_server.device_port.options import describe
from ota_server.device_port.server import NoThread, OTAServer
from ota_server.device_port.wiring import CannotStart, WrongOptions, make_server
from ota_server.system import garbage
from ota_server.system.data_dir import default_data_dir, log_dir
from ota_server.system.hints import hints
from ota_server.system.server_log import LogThread
from ota_server.system.usage import Parser, print_problem

log = logging.getLogger("ota_server.server")  # run as a program, __name__ is "__main__"

# How long another thread that computes may hold up the one that answers. While 401s were listed the
# slowest of 60,000 checks took 7 ms with the default of 5 ms, and 4 ms with this, at the same rate.
_SWITCH_SECONDS = 0.001
_RAISE_THREADS = "raise the limit of processes (ulimit -u, TasksMax=) or of memory (ulimit -v)"
_STOPPING = "stopping: downloads may go on for the grace time; a second signal cuts them"


def add_commands(commands: Any) -> None:
    """Add `serve`."""
    parser = commands.add_parser("serve", help="serve firmware to devices")
    describe(parser)
    parser.set_defaults(run=serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ota_server.server` and return its exit code."""
    parser = Parser(prog="python -m ota_server.server")
    describe(parser)
    return serve(parser.parse_args(argv))


def serve(arguments: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code."""
    process_start.begin_to_serve()
    written = LogThread()
    logging.basicConfig(handlers=[written], level=logging.INFO)
    try:
        return _serve(arguments, written)
    finally:
        written.end()


def _serve(arguments: argparse.Namespace, written: LogThread) -> int:
    if arguments.data_dir != default_data_dir(is_elsewhere=True):
        hints.data_dir = arguments.data_dir
    try:
        admin = open_admin_socket(arguments)
        server = make_server(arguments)
    except WrongOptions as problem:
        return _fail(str(problem), 2)
    except (CannotStart, NoAdminPort) as problem:
        return _fail(str(problem), 1)
    _install_signals(server, written)
    url = "" if admin is None else admin.url
    server.service.operators_url = url
    banner.show(server, log_dir(arguments.data_dir), banner.limits_text(arguments), url)
    companions = Companions(arguments, server, admin)
    garbage.hold_back()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        server.serve_forever()
    except NoThread as problem:
        return _fail(f"{problem}; {_RAISE_THREADS}", 1)
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


def _fail(problem: str, code: int) -> int:
    print_problem(f"ota-server: {problem}")
    return code


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
