"""Puts the server together: from options to a server that listens, and what runs beside it."""

import argparse
import errno
import logging
import math
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ota_server.device_port.admission import Admission
from ota_server.device_port.admission_status import read_serving
from ota_server.device_port.notice_options import wrong_notice_options
from ota_server.device_port.options import KEEP, MEBIBYTE
from ota_server.device_port.poll_interval import DEFAULT_SECONDS
from ota_server.device_port.products import Common, Products, open_product
from ota_server.device_port.server import OTAServer
from ota_server.device_port.service import Service
from ota_server.device_port.slots import SLOWEST_BYTES_A_SECOND, DownloadSlots
from ota_server.device_port.window import Hours
from ota_server.httpd.connection import CONFIRM_SECONDS
from ota_server.httpd.listener import MAX_LINGERING
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.journal.device_log import VerboseJournal
from ota_server.journal.device_table import MAX_DEVICES, DeviceTable
from ota_server.journal.rejected import Rejected
from ota_server.journal.sparse_table import SparseDeviceTable
from ota_server.journal.writer import KEEP_BYTES, KEEP_FILES, ROTATE_BYTES, Journal
from ota_server.releases.hashing import SETTLE_SECONDS, Hasher
from ota_server.releases.image import Copies
from ota_server.system import clock
from ota_server.system.data_dir import log_dir, product_at, root_of
from ota_server.system.limits import raise_file_limit, say_limits
from ota_server.system.locks import InUse
from ota_server.system.new_files import make_folder

log = logging.getLogger(__name__)

# Descriptors for the journal, images, standard streams and what libraries open for a moment; and
# for refused connections, which close a second after their reply. Half of all where these are few.
_RESERVED_FILES = 64 + MAX_LINGERING
_LEAST_FILES = 48  # a server without connections has 20 open
_FEW_CONNECTIONS = 100
_RAISE_FILES = "raise it (ulimit -n, LimitNOFILE=) to 1024 or more"
# A thread needs a tenth of this; the default of 8 MiB would take too much for ten thousand threads.
_STACK_BYTES = 512 * 1024
# A proxy may hold the end of an image for so long after its kernel has acknowledged it; if its
# client leaves meanwhile, it resets our connection. The idle time ends that sooner.
_PROXY_SECONDS = 60.0


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
    is_development: bool = False,
    is_verbose: bool = False,
    keeps_ungrouped: bool = False,
    record_interval: int | None = None,
    is_behind_proxy: bool = False,
    is_anonymous: bool = False,
    poll_interval_seconds: float = DEFAULT_SECONDS,
) -> Service:
    """Open a data directory and make the service; missing folders are made.

    Raises:
        InUse: another server runs on it.
        OSError: it cannot be read or written.
    """
    make_folder(data_dir / "version")
    logs = log_dir(data_dir)
    make_folder(logs)
    journal_of = VerboseJournal if is_verbose else Journal
    journal = journal_of(logs, rotate_bytes, keep_files, keep_bytes, fsync)
    table_of: Callable[..., DeviceTable] = DeviceTable
    service: Service
    if record_interval is not None:
        table_of = partial(
            SparseDeviceTable,
            interval_seconds=record_interval,
            is_rollout_on=lambda: any(port.policies.has_open_rollout for port in service.ports),
        )
    try:
        fleet = table_of(journal, logs, clock.now_ms, max_devices)
    except OSError:
        journal.close()
        raise
    limits = admission, is_development, keeps_ungrouped, poll_interval_seconds
    common = Common(fleet, clock.now_ms, Hasher(Copies(logs), settle_seconds), *limits)
    default = open_product(data_dir, common)
    products, rejected = Products(data_dir, common), Rejected(logs)
    service = Service(default, products, fleet, rejected, clock.now_ms, is_behind_proxy)
    service.refusals.logs_each, service.is_anonymous = is_verbose, is_anonymous
    return service


def make_server(arguments: argparse.Namespace) -> OTAServer:
    """Make the server that the options describe; it listens already.

    Raises:
        WrongOptions, CannotStart: the message says why and what to do.
    """
    files = raise_file_limit()
    say_limits(arguments.journal_rotate * MEBIBYTE)
    connections = _connections(arguments.max_connections, files)
    threading.stack_size(_STACK_BYTES)
    service = _make_service(arguments)
    # Not `has_open_rollout`: only a server that runs lets the controller record an end.
    on = [port for port in service.ports if port.policies.latest.rollouts]
    if arguments.development and on:
        service.close()
        rollouts = on[0].policies.latest.rollouts
        option = "" if list(rollouts) == [""] else f" --group {min(rollouts) or repr('')}"
        option += f" --product {on[0].name}" if on[0].name else ""
        raise CannotStart(
            "a rollout is on, and --development is for a desk: a device that fetches a bad release "
            "again and again would not be stopped; leave --development out, or end the rollout by "
            f"`rollout abort{option}`"
        )
    try:
        server = OTAServer(
            (arguments.host, arguments.port),
            service,
            transport=arguments.transport,
            max_connections=connections,
            idle_seconds=arguments.idle_timeout,
            grace_seconds=arguments.grace,
            pacing=_make_pacing(arguments),
            proxies=TrustedProxies(arguments.trusted_proxy) if arguments.trusted_proxy else None,
            confirm_seconds=_PROXY_SECONDS if is_behind_proxy(arguments) else CONFIRM_SECONDS,
        )
    except (OSError, UnicodeError) as problem:
        service.close()
        where = f"{arguments.host[:80] or 'all interfaces'}, port {arguments.port}"
        reason = problem.strerror if isinstance(problem, OSError) else "not the name of a host"
        hint = "give another --port or --host"
        if arguments.host.lower().startswith("fe80:") and "%" not in arguments.host:
            hint = f"name its interface, as in {arguments.host[:80]}%eth0"
        elif isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE:
            hint = f"perhaps another ota_server has it: {hint}"
        raise CannotStart(f"cannot listen on {where}: {reason}; {hint}") from problem
    server.max_lingering = min(MAX_LINGERING, files // 4)
    return server


def _connections(wanted: int | None, files: int) -> int:
    """Return how many connections there may be at once under a limit of open files.

    Raises:
        CannotStart: there is room for none.
    """
    if files < _LEAST_FILES:
        raise CannotStart(
            f"the limit of open files is {files}, which is not enough; {_RAISE_FILES}"
        )
    most = max(files - _RESERVED_FILES, files // 2)
    if wanted is not None and wanted > most:
        log.warning("--max-connections is %d: the limit of open files is %d", most, files)
    elif wanted is None and most < _FEW_CONNECTIONS:
        log.warning(
            "only %d connections at once, since the limit of open files is %d; %s",
            most,
            files,
            _RAISE_FILES,
        )
    return min(wanted or most, most)


def _make_service(arguments: argparse.Namespace) -> Service:
    data_dir = arguments.data_dir
    if wrong := wrong_notice_options(arguments):
        raise WrongOptions(wrong)
    if product := product_at(data_dir):
        raise CannotStart(
            f"{data_dir} is the product {product} of {root_of(data_dir)}: serve that, with all "
            "products"
        )
    try:
        return open_service(
            data_dir,
            max_devices=arguments.max_devices,
            rotate_bytes=arguments.journal_rotate * MEBIBYTE,
            keep_files=arguments.journal_files,
            keep_bytes=arguments.journal_disk * MEBIBYTE,
            fsync=arguments.fsync,
            admission=_make_admission(arguments),
            is_development=arguments.development,
            is_verbose=arguments.verbose,
            keeps_ungrouped=arguments.unknown_devices == KEEP,
            record_interval=arguments.record_interval,
            is_behind_proxy=is_behind_proxy(arguments),
            is_anonymous=arguments.anonymous,
            poll_interval_seconds=arguments.poll_interval,
        )
    except InUse as problem:
        serving = read_serving(log_dir(data_dir))
        which = f" (process {serving.pid}, port {serving.port})" if serving.pid else ""
        raise CannotStart(
            f"{problem}{which}; stop it first, or give --data-dir another one"
        ) from problem
    except OSError as problem:
        raise CannotStart(
            f"data directory {data_dir}: {problem.filename or ''}: {problem.strerror}; "
            "give --data-dir one that you can write"
        ) from problem


def is_behind_proxy(arguments: argparse.Namespace) -> bool:
    """Return whether proxies acknowledge what devices do not have yet."""
    return arguments.buffering_proxy or bool(arguments.trusted_proxy)


def _make_admission(arguments: argparse.Namespace) -> Admission | None:
    """Make the limits on downloads; None if there are none.

    Raises:
        WrongOptions: the options do not fit together.
    """
    if not arguments.window:
        for option in ("window-zone", "window-overdue"):
            if getattr(arguments, option.replace("-", "_")) is not None:
                raise WrongOptions(f"--{option} has no effect without --window; give that too")
    elif arguments.window_zone is None and not clock.knows_zone(zone := os.environ.get("TZ", "")):
        raise WrongOptions(
            f"--window would be in UTC, since this system does not know the time zone {zone!r:.60} "
            "of the variable TZ; correct it, or give --window-zone"
        )
    if arguments.max_downloads is None and not arguments.window:
        return None
    slots = None
    if arguments.max_downloads is not None:
        # No download is too slow because of what was asked for.
        shared = (arguments.max_rate or math.inf) / arguments.max_downloads
        wanted = min(shared, arguments.max_download_rate or math.inf)
        slowest = min(SLOWEST_BYTES_A_SECOND, wanted / 2)
        slots = DownloadSlots(arguments.max_downloads, slowest=slowest)
    return Admission(
        slots,
        Hours(arguments.window, arguments.window_zone) if arguments.window else None,
        arguments.window_overdue,
    )


def _make_pacing(arguments: argparse.Namespace) -> Pacing | None:
    """Make the pacing of images; None if their rate is not limited."""
    rates = arguments.max_rate, arguments.max_download_rate
    return None if rates == (None, None) else Pacing(*rates)
