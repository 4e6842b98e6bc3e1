"""The command that serves: `python -m ota_server.server`. Arguments, wiring, signals."""

import argparse
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ota_server import __version__
from ota_server.device_port import banner
from ota_server.device_port.admission import Admission
from ota_server.device_port.admission_status import AdmissionFile
from ota_server.device_port.options import (
    WrongOptions,
    add_crowd_arguments,
    limits_text,
    make_admission,
    make_pacing,
)
from ota_server.device_port.server import OTAServer
from ota_server.device_port.service import Service
from ota_server.httpd.listener import GRACE_SECONDS, IDLE_SECONDS, MAX_LINGERING
from ota_server.httpd.transports import TRANSPORTS
from ota_server.journal.device_table import MAX_DEVICES, Fleet
from ota_server.journal.forget import Forgetting
from ota_server.journal.rejected import Rejected
from ota_server.journal.writer import FSYNC, KEEP_BYTES, KEEP_FILES, ROTATE_BYTES, Journal
from ota_server.policy import audit
from ota_server.policy.files import PolicyFiles
from ota_server.releases.hashing import SETTLE_SECONDS
from ota_server.releases.store import Store
from ota_server.rollouts.keeper import COMPLETION_UNKNOWN, Keeper
from ota_server.system import garbage
from ota_server.system.data_dir import add_data_dir_argument, log_dir
from ota_server.system.locks import InUse
from ota_server.system.server_log import LogThread

log = logging.getLogger("ota_server.server")  # run as a program, its __name__ is another

DEFAULT_PORT = 7777
# Descriptors for the journal, images, standard streams and what a library opens for a moment; and
# for refused connections, which are closed a second after their reply.
_RESERVED_FILES = 64 + MAX_LINGERING
_FALLBACK_FILES = 10240  # macOS says "unlimited" and refuses more than this
# A thread here needs a tenth of this; the default of 8 MiB is address space for ten thousand.
_STACK_BYTES = 512 * 1024
_MEBIBYTE = 1024 * 1024
# For so long another thread that computes may hold up the one that answers. While 401s were listed
# the longest of 60,000 checks took 7 ms by the default of 5, 4 ms by this; rates were the same.
_SWITCH_SECONDS = 0.001
_STOPPING = "stopping; downloads may go on for the grace time, a second signal cuts them"

EXAMPLES = """\
examples:
  python -m ota_server.server
  python -m ota_server.server --port 8080 --data-dir /srv/ota
  OTA_SERVER_DATA=/srv/ota python -m ota_server.server --host 127.0.0.1

A data directory holds version/version.txt, firmware/firmware_<version>.bin and log/devices.jsonl.
"""


class CannotStart(Exception):
    """The server cannot start; the message says why and what to do."""


def clock_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def add_commands(commands: Any) -> None:
    """Add the command to those of operators."""
    parser = commands.add_parser("serve", help="serve firmware to devices")
    _describe(parser)
    parser.set_defaults(run=serve)


def _describe(parser: argparse.ArgumentParser) -> None:
    """Give a parser the help and the options of the serving command."""
    parser.description = "Serve firmware to a fleet of devices and keep a record of each."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=f"ota_server {__version__}")
    add_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the serving command."""
    parser.add_argument(
        "--host",
        default="",
        metavar="H",
        help="address to listen on (default: all interfaces, IPv4 and IPv6)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        metavar="N",
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    add_data_dir_argument(parser)
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=TRANSPORTS[0],
        help="what drives connections: one event loop, by epoll or poll, or a thread for each; "
        "epoll alone sends images by sendfile (default: %(default)s)",
    )
    parser.add_argument(
        "--max-connections",
        type=_positive,
        metavar="N",
        help="connections at once, beyond it 503 (default: what the limit of open files allows)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=_seconds,
        default=IDLE_SECONDS,
        metavar="SECONDS",
        help="close a connection on which nothing is asked for so long (default: %(default)g)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="how long downloads may go on after SIGTERM or SIGINT (default: %(default)g)",
    )
    parser.add_argument(
        "--max-devices",
        type=_positive,
        default=MAX_DEVICES,
        metavar="N",
        help="devices to keep on record; further ones are answered all the same "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--buffering-proxy",
        action="store_true",
        help="a cache, or a proxy that buffers images, stands before this server, so that what "
        "devices have is not known: a rollout counts one that was offered a release three times, "
        "past its grace, as failed",
    )
    add_crowd_arguments(parser)
    _add_journal_arguments(parser)


def _add_journal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--journal-rotate",
        type=_positive,
        default=ROTATE_BYTES // _MEBIBYTE,
        metavar="MIB",
        help="begin a new journal file after so many MiB (default: %(default)s)",
    )
    parser.add_argument(
        "--fsync",
        choices=FSYNC,
        default="interval",
        help="bring records to the disk before each reply (all devices wait for it), every 100 ms, "
        "or when the system likes: what a power cut may take (default: %(default)s)",
    )
    parser.add_argument(
        "--journal-files",
        type=_count,
        default=KEEP_FILES,
        metavar="N",
        help="rotated journal files to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--journal-disk",
        type=_positive,
        default=KEEP_BYTES // _MEBIBYTE,
        metavar="MIB",
        help="MiB that the rotated journal files may take (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m ota_server.server` and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ota_server.server")
    _describe(parser)
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
        server = _make_server(arguments)
    except WrongOptions as problem:
        print(f"ota_server: {problem}", file=sys.stderr)
        return 2
    except CannotStart as problem:
        print(f"ota_server: {problem}", file=sys.stderr)
        return 1
    _install_signals(server, written)
    banner.show(server, log_dir(arguments.data_dir), limits_text(arguments))
    options = [COMPLETION_UNKNOWN] if arguments.buffering_proxy else []
    offers = server.service.offers
    keeper = Keeper(
        arguments.data_dir, server.service.policies, offers.attended, clock_ms(), options
    )
    forgetting = Forgetting(arguments.data_dir, server.service.fleet)
    said = AdmissionFile(log_dir(arguments.data_dir), lambda: offers.standing(clock_ms()))
    server.chores += [keeper.look_after, forgetting.look_after, said.look_after]
    garbage.hold_back()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        server.serve_forever()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        server.server_close()
        keeper.end()
        said.remove()
        server.service.close()
    # While it ends Python puts the signals back, and a second SIGTERM would be told as a failure.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    log.info("stopped; all records are written")
    return 0


def open_service(
    data_dir: Path,
    *,
    max_devices: int = MAX_DEVICES,
    rotate_bytes: int = ROTATE_BYTES,
    keep_files: int = KEEP_FILES,
    keep_bytes: int = KEEP_BYTES,
    settle_seconds: float = SETTLE_SECONDS,
    fsync: str = "interval",
    admission: Admission | None = None,
) -> Service:
    """Open a data directory and make what answers requests; folders are made where missing.

    Raises:
        InUse: another server runs on it.
        OSError: it cannot be read or written.
    """
    for folder in ("version", "firmware", "log"):
        (data_dir / folder).mkdir(parents=True, exist_ok=True)
    audit.prepare(data_dir)
    logs = log_dir(data_dir)
    journal = Journal(logs, rotate_bytes, keep_files, keep_bytes, fsync)
    try:
        fleet = Fleet(journal, logs, clock_ms, max_devices)
    except OSError:
        journal.close()
        raise
    store, policies = Store(data_dir, settle_seconds), PolicyFiles(data_dir)
    return Service(store, policies, fleet, Rejected(logs), clock_ms, admission)


def _make_server(arguments: argparse.Namespace) -> OTAServer:
    files = _raise_file_limit()
    threading.stack_size(_STACK_BYTES)
    most = max(1, files - _RESERVED_FILES)
    connections = min(arguments.max_connections or most, most)
    if arguments.max_connections and connections < arguments.max_connections:
        log.warning("--max-connections is %d: the limit of open files is %d", connections, files)
    data_dir = arguments.data_dir
    try:
        service = open_service(
            data_dir,
            max_devices=arguments.max_devices,
            rotate_bytes=arguments.journal_rotate * _MEBIBYTE,
            keep_files=arguments.journal_files,
            keep_bytes=arguments.journal_disk * _MEBIBYTE,
            fsync=arguments.fsync,
            admission=make_admission(arguments),
        )
    except InUse as problem:
        raise CannotStart(f"{problem}; stop it first, or give --data-dir another one") from problem
    except OSError as problem:
        raise CannotStart(
            f"data directory {data_dir}: {problem.filename or ''}: {problem.strerror}; "
            "give --data-dir one that you can write"
        ) from problem
    try:
        return OTAServer(
            (arguments.host, arguments.port),
            service,
            transport=arguments.transport,
            max_connections=connections,
            idle_seconds=arguments.idle_timeout,
            grace_seconds=arguments.grace,
            pacing=make_pacing(arguments),
        )
    except (OSError, UnicodeError) as problem:
        service.close()
        where = f"{arguments.host[:80] or 'all interfaces'}, port {arguments.port}"
        reason = problem.strerror if isinstance(problem, OSError) else "no name of a host"
        raise CannotStart(
            f"cannot listen on {where}: {reason}; give another --port or --host"
        ) from problem


def _raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _FALLBACK_FILES):
        if wanted == resource.RLIM_INFINITY or wanted <= soft:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (OSError, ValueError):
            continue
    return soft


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed: a file of ours must not get its number."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _end_start(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Nothing was answered yet, so that there is nothing to finish.
    os._exit(0)


def _install_signals(server: OTAServer, written: LogThread) -> None:
    def end(signum: int, _frame: FrameType | None) -> None:
        if server.is_draining:
            server.end_at_once()
            return
        server.drain()
        # No logging here: its lock may be held by the very code that was interrupted.
        written.say(_STOPPING)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda *_: server.service.fleet.reopen_journal())


def _port(text: str) -> int:
    return _whole_number(text, 0, 65535)


def _positive(text: str) -> int:
    return _whole_number(text, 1, 10**12)


def _count(text: str) -> int:
    return _whole_number(text, 0, 10**12)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time from 0 to 86400 seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
