"""The controller: a child process of the server that moves rollouts and answers operators. I/O.

It reads what operators want and what devices did, and writes how far each rollout is. It answers no
device, so none ever waits for it.
"""

import sys

from ota_server.system import process_start

if __name__ == "__main__":
    process_start.begin_to_control()  # before the imports, which take a while

import argparse
import logging
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from ota_server.device_port.option_values import admin_argument, host_name_argument
from ota_server.httpd.adopted import listen_on
from ota_server.policy.admin_address import check_address
from ota_server.rollouts.controller_loop import TICK_SECONDS, Controller
from ota_server.rollouts.find_rollout import must_name_fleet
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.keeper import (
    ADMIN_NAME,
    ADMIN_SOCKET,
    COMPLETION_UNKNOWN,
    HEARTBEAT,
    KEEP_UNGROUPED,
    LOCK_NAME,
)
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system import clock
from ota_server.system.data_dir import (
    add_data_dir_argument,
    default_data_dir,
    log_dir,
    product_at,
    root_of,
)
from ota_server.system.hints import hints
from ota_server.system.locks import InUse, take_lock
from ota_server.system.server_log import LogThread
from ota_server.system.wished import wish

if TYPE_CHECKING:
    from ota_server.operator_port.side import OperatorSide

log = logging.getLogger(__name__)

_NICENESS = 10
# How long another thread that computes may hold up the one that answers; Python's 5 ms are too long
# where a hundred connections are answered at once.
_SWITCH_SECONDS = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ota_server.controller` and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ota_server.controller",
        description="Move rollouts, and answer operators. The server starts it by itself, and "
        "again when it dies; it ends when its standard input is closed. With --admin it answers "
        "operators of a data directory until it is stopped, and moves no rollouts: for a page "
        "beside a server with --no-admin, or where none runs.",
    )
    add_data_dir_argument(parser)
    parser.add_argument(
        "--tick",
        type=float,
        default=TICK_SECONDS,
        metavar="SECONDS",
        help="the pause between two looks (default: %(default)s)",
    )
    parser.add_argument(
        "--server-started",
        type=int,
        default=0,
        metavar="MS",
        help="when the server started to answer, in milliseconds since the epoch",
    )
    parser.add_argument(
        COMPLETION_UNKNOWN,
        action="store_true",
        help="a proxy in front of the server buffers images (`serve --buffering-proxy`)",
    )
    parser.add_argument(
        KEEP_UNGROUPED,
        action="store_true",
        help="rollouts leave devices in no group alone (`serve --unknown-devices keep`)",
    )
    parser.add_argument(
        HEARTBEAT,
        action="store_true",
        help="after each look write lines to standard output, which is a pipe",
    )
    _add_operators_arguments(parser)
    arguments = parser.parse_args(argv)
    written = LogThread()
    logging.basicConfig(handlers=[written], level=logging.INFO)
    try:
        return _run(arguments)
    finally:
        written.end()


def _add_operators_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        type=admin_argument,
        metavar="HOST:PORT",
        help="answer operators here, and do nothing else",
    )
    parser.add_argument(
        ADMIN_SOCKET,
        type=int,
        metavar="FD",
        help="answer operators on this descriptor of a listening socket",
    )
    parser.add_argument(
        ADMIN_NAME,
        type=host_name_argument,
        action="append",
        default=[],
        metavar="NAME",
        help="a name of a host by which browsers reach that port; may be repeated",
    )


def _run(arguments: argparse.Namespace) -> int:
    process_start.begin_to_control()
    wish("a low priority", lambda: os.nice(_NICENESS))
    data_dir = arguments.data_dir
    if (root := root_of(data_dir)) != default_data_dir(is_elsewhere=True):
        hints.data_dir = root
    hints.product = product_at(data_dir) or None  # "" would be the default product alone
    hints.must_name_fleet = partial(must_name_fleet, data_dir)
    if arguments.admin is not None:
        return _answer_operators(arguments)
    try:
        lock = take_lock(log_dir(data_dir) / LOCK_NAME)
    except InUse:
        log.error("another controller already runs on %s", data_dir)
        return 1
    except OSError as problem:
        log.error("%s: %s", problem.filename, problem.strerror)
        return 1
    heartbeat = sys.stdout.fileno() if arguments.heartbeat else None
    if heartbeat is not None:
        os.set_blocking(heartbeat, False)
    operators = memory = None
    if arguments.admin_socket is not None:
        memory = RolloutMemory(data_dir)
        sock = socket.socket(fileno=arguments.admin_socket)
        operators = _operator_side(data_dir, sock, arguments.admin_name, memory)
    controller = Controller(
        data_dir,
        arguments.tick,
        ServerFacts(arguments.server_started, arguments.completion_unknown),
        lock,
        heartbeat,
        arguments.keep_ungrouped,
        operators,
        memory,
    )
    signal.signal(signal.SIGTERM, controller.end)
    controller.run(sys.stdin.fileno())
    os.close(lock)
    return 0


def _operator_side(
    data_dir: Path, sock: socket.socket, names: Sequence[str], memory: RolloutMemory | None = None
) -> "OperatorSide":
    """Begin to answer operators."""
    # Loaded here, since it takes memory that a controller without operators does not need.
    from ota_server.operator_port.side import OperatorSide

    sys.setswitchinterval(_SWITCH_SECONDS)
    return OperatorSide(data_dir, sock, names, memory)


def _answer_operators(arguments: argparse.Namespace) -> int:
    """Answer operators until a signal; return the exit code."""
    address = arguments.admin
    if not arguments.data_dir.is_dir():  # or one that was mistyped would be made
        log.error("there is no folder %s; is --data-dir right?", arguments.data_dir)
        return 1
    if problem := check_address(arguments.data_dir, address.host):
        log.error("%s", hints.paste(problem))
        return 1
    try:
        sock = listen_on(*address)
    except (OSError, UnicodeError) as problem:
        log.error("cannot listen on %s: %s", address, problem)
        return 1
    stopping = Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    operators = _operator_side(arguments.data_dir, sock, arguments.admin_name)
    log.info("operators: http://%s/", address._replace(port=sock.getsockname()[1]))
    try:
        while not stopping.wait(0.0 if operators.step(clock.now_ms()) else TICK_SECONDS):
            pass
    finally:
        operators.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
