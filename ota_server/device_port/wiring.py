"""Puts the server together: from options to a server that listens, and what runs beside it."""

import argparse
import logging
import resource
import threading
from pathlib import Path

from ota_server.device_port.admission import Admission
from ota_server.device_port.admission_status import AdmissionFile
from ota_server.device_port.options import MEBIBYTE
from ota_server.device_port.server import OTAServer
from ota_server.device_port.service import Service
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours
from ota_server.httpd.listener import MAX_LINGERING
from ota_server.httpd.pacing import Pacing
from ota_server.journal.device_table import MAX_DEVICES, DeviceTable
from ota_server.journal.forget import ForgetRequests
from ota_server.journal.rejected import Rejected
from ota_server.journal.writer import KEEP_BYTES, KEEP_FILES, ROTATE_BYTES, Journal
from ota_server.policy import audit
from ota_server.policy.files import PolicyFiles
from ota_server.releases.hashing import SETTLE_SECONDS
from ota_server.releases.store import Store
from ota_server.rollouts.keeper import COMPLETION_UNKNOWN, Keeper
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import InUse

log = logging.getLogger(__name__)

# Descriptors for the journal, images, standard streams and what libraries open for a moment; and
# for refused connections, which close a second after their reply.
_RESERVED_FILES = 64 + MAX_LINGERING
_FALLBACK_FILES = 10240  # macOS says "unlimited" and refuses more than this
# A thread needs a tenth of this; the default of 8 MiB would take too much for ten thousand threads.
_STACK_BYTES = 512 * 1024


class WrongOptions(Exception):
    """Options do not fit together; the message says what to do."""


class CannotStart(Exception):
    """The server cannot start; the message says why and what to do."""


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
    """Open a data directory and make the service; missing folders are made.

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
        fleet = DeviceTable(journal, logs, clock.now_ms, max_devices)
    except OSError:
        journal.close()
        raise
    store, policies = Store(data_dir, settle_seconds), PolicyFiles(data_dir)
    return Service(store, policies, fleet, Rejected(logs), clock.now_ms, admission)


def make_server(arguments: argparse.Namespace) -> OTAServer:
    """Make the server that the options describe; it listens already.

    Raises:
        WrongOptions, CannotStart: the message says why and what to do.
    """
    files = _raise_file_limit()
    threading.stack_size(_STACK_BYTES)
    most = max(1, files - _RESERVED_FILES)
    connections = min(arguments.max_connections or most, most)
    if arguments.max_connections and connections < arguments.max_connections:
        log.warning("--max-connections is %d: the limit of open files is %d", connections, files)
    service = _make_service(arguments)
    try:
        return OTAServer(
            (arguments.host, arguments.port),
            service,
            transport=arguments.transport,
            max_connections=connections,
            idle_seconds=arguments.idle_timeout,
            grace_seconds=arguments.grace,
            pacing=_make_pacing(arguments),
        )
    except (OSError, UnicodeError) as problem:
        service.close()
        where = f"{arguments.host[:80] or 'all interfaces'}, port {arguments.port}"
        reason = problem.strerror if isinstance(problem, OSError) else "not the name of a host"
        raise CannotStart(
            f"cannot listen on {where}: {reason}; give another --port or --host"
        ) from problem


def _make_service(arguments: argparse.Namespace) -> Service:
    data_dir = arguments.data_dir
    try:
        return open_service(
            data_dir,
            max_devices=arguments.max_devices,
            rotate_bytes=arguments.journal_rotate * MEBIBYTE,
            keep_files=arguments.journal_files,
            keep_bytes=arguments.journal_disk * MEBIBYTE,
            fsync=arguments.fsync,
            admission=_make_admission(arguments),
        )
    except InUse as problem:
        raise CannotStart(f"{problem}; stop it first, or give --data-dir another one") from problem
    except OSError as problem:
        raise CannotStart(
            f"data directory {data_dir}: {problem.filename or ''}: {problem.strerror}; "
            "give --data-dir one that you can write"
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


def _make_admission(arguments: argparse.Namespace) -> Admission | None:
    """Make the limits on downloads; None if there are none.

    Raises:
        WrongOptions: the options do not fit together.
    """
    if not arguments.window:
        for option in ("window-zone", "window-overdue"):
            if getattr(arguments, option.replace("-", "_")) is not None:
                raise WrongOptions(f"--{option} has no effect without --window; give that too")
    if arguments.max_downloads is None and not arguments.window:
        return None
    return Admission(
        DownloadSlots(arguments.max_downloads) if arguments.max_downloads is not None else None,
        Hours(arguments.window, arguments.window_zone) if arguments.window else None,
        arguments.window_overdue,
    )


def _make_pacing(arguments: argparse.Namespace) -> Pacing | None:
    """Make the pacing of images; None if their rate is not limited."""
    rates = arguments.max_rate, arguments.max_download_rate
    return None if rates == (None, None) else Pacing(*rates)


class Companions:
    """What runs beside the server in its process, and ends after it."""

    def __init__(self, arguments: argparse.Namespace, server: OTAServer) -> None:
        """Make them, and add their chores to those of the server."""
        data_dir, service = arguments.data_dir, server.service
        options = [COMPLETION_UNKNOWN] if arguments.buffering_proxy else []
        self._keeper = Keeper(data_dir, service.policies, service.attended, clock.now_ms(), options)
        self._admission = AdmissionFile(log_dir(data_dir), service.standing)
        forget_requests = ForgetRequests(data_dir, service.fleet)
        looking = self._keeper, forget_requests, self._admission
        server.chores += [each.look_after for each in looking]

    def end(self) -> None:
        """End the controller, and delete the file that describes a running server."""
        self._keeper.end()
        self._admission.remove()
