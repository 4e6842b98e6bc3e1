"""Gathers from the parts of a running server what it says of itself. Waits for nothing but locks.

Transfers whose ends nobody has recorded yet are found in the channels: the counters of all others
are read where they are counted.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from ota_server.device_port.beside import PartTransfer
from ota_server.device_port.counts import CountedRoute
from ota_server.device_port.download_records import DeviceTransfer
from ota_server.device_port.live_figures import (
    MOST_DOWNLOADS,
    JournalFigures,
    LiveFigures,
    RunningDownload,
    SlotFigures,
)
from ota_server.device_port.server import OTAServer
from ota_server.httpd.reply import Transfer
from ota_server.httpd.turn_counts import TurnCounts
from ota_server.journal.files import CURRENT_NAME

# Routes under which clients ask that are no devices.
_OF_NO_DEVICE = (
    CountedRoute.HEALTH,
    CountedRoute.OTHER,
    CountedRoute.MALFORMED,
    CountedRoute.NAMED_IMAGE,
)
_OK = 200


class ServerFigures:
    """Says how a server is. Used by one thread."""

    def __init__(
        self, server: OTAServer, log_dir: Path, since_ms: int, clock_ms: Callable[[], int]
    ) -> None:
        self._server = server
        self._journal_path = log_dir / CURRENT_NAME
        self._since_ms = since_ms
        self._clock_ms = clock_ms
        self._common_checks = 0
        self._answered = 0
        self._last_request_ms = 0

    def look_after(self) -> None:
        """Notice that devices were answered since the last look: checks have no time for that."""
        answered = self._server.drivers.quick + sum(
            count
            for (route, status), count in self._server.service.counts.copied().items()
            if route not in _OF_NO_DEVICE and status < 400
        )
        if answered > self._answered:
            self._answered = answered
            self._last_request_ms = self._clock_ms()

    def now(self) -> LiveFigures:
        """Return how it is now."""
        server, service = self._server, self._server.service
        turns, transfers = server.drivers.turns, service.fleet.transfers
        requests = self._requests(turns)
        now_ms = self._clock_ms()
        with service.fleet.lock:
            ends = {str(end): count for end, count in transfers.ends.items()}
            running, sent_bytes = transfers.running, transfers.sent_bytes
        return LiveFigures(
            time_ms=now_ms,
            pid=os.getpid(),
            since_ms=self._since_ms,
            requests={
                str(route): {str(status): count for status, count in by_status.items()}
                for route, by_status in requests.items()
            },
            durations=tuple(turns.buckets),
            duration_seconds=turns.seconds,
            last_request_ms=self._last_request_ms,
            rejected={str(why): count for why, count in service.counts.rejected.items()},
            running=running,
            downloads=self._downloads(now_ms) if running else (),
            ends=ends,
            sent_bytes=sent_bytes,
            connections=server.drivers.connections,
            accepted_connections=server.accepted_connections,
            refused_connections=server.refused_connections,
            devices=len(service.fleet),
            turned_away=service.fleet.turned_away,
            journal=self._journal(),
            slots=self._slots(),
        )

    def _requests(self, turns: TurnCounts) -> dict[CountedRoute, dict[int, int]]:
        counts = self._server.service.counts
        requests: dict[CountedRoute, dict[int, int]] = {}
        for (route, status), count in counts.copied().items():
            requests.setdefault(route, {})[status] = count
        # A failure is counted before the turn that it is in: no counter may ever go back.
        common = turns.quick - counts.quick_failures
        self._common_checks = common = max(self._common_checks, common)
        checks = requests.setdefault(CountedRoute.CHECK, {})
        checks[_OK] = checks.get(_OK, 0) + common
        return requests

    def _journal(self) -> JournalFigures:
        journal = self._server.service.fleet.journal
        try:
            written_ms = os.stat(self._journal_path).st_mtime_ns // 1_000_000
        except OSError:
            written_ms = 0
        return JournalFigures(
            journal.lines,
            journal.lost_writes,
            journal.failures,
            journal.failing,
            len(journal.unrecorded),
            written_ms,
        )

    def _slots(self) -> SlotFigures | None:
        admission = self._server.service.offers.admission
        return None if admission is None else admission.slot_figures

    def _downloads(self, now_ms: int) -> tuple[RunningDownload, ...]:
        found = self._server.drivers.transfers(MOST_DOWNLOADS)
        now = time.monotonic()
        downloads = (_download(each, sent_bytes, now_ms, now) for each, sent_bytes in found)
        return tuple(each for each in downloads if each is not None)


def _download(
    transfer: Transfer, sent_bytes: int, now_ms: int, now: float
) -> RunningDownload | None:
    if isinstance(transfer, DeviceTransfer):
        version, piece = transfer.pin.version, transfer.coverage.piece
        file, start = "" if piece is None else piece.name, transfer.coverage.range_start or 0
    elif isinstance(transfer, PartTransfer):
        version, file, start = transfer.image.version, str(transfer.details["file"]), 0
    else:
        return None
    size, since_ms = transfer.stop - transfer.start, now_ms - int((now - transfer.began_at) * 1000)
    return RunningDownload(transfer.key, version, file, start, sent_bytes, size, since_ms)
