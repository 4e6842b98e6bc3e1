"""The fleet: the live table of devices, kept in step with the journal.

Each change of a device queues its record under the same `lock`, so that lines are in the order of
changes and the newest line of a device is its state.
"""

import logging
import marshal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock

from ota_server.journal.packing import PLAIN_FIELDS, Packer
from ota_server.journal.record import (
    FORGET,
    Scalar,
    format_flat,
    format_marker,
    format_record,
    format_seal,
)
from ota_server.journal.replay import replay
from ota_server.journal.transfers import Transfers
from ota_server.journal.writer import Journal
from ota_server.model.device import (
    FREE_ATTEMPTS,
    Device,
    Report,
    checked,
    checked_again,
    flatten,
    mac_of,
    number_of,
    previous_version,
    unflatten,
)

log = logging.getLogger(__name__)

MAX_DEVICES = 2_000_000
# Work on all devices takes seconds, and requests wait meanwhile, since the interpreter runs one
# thread at a time. So it works for a millisecond at most, then rests.
_SLICE = 50
_WORK_SECONDS = 0.0008
_REST_SECONDS = 0.003
# Loading the rows of a large fleet takes a minute: in portions, since the journal needs care too.
_LOAD_SECONDS = 0.2
# Small tables grow without the pause of a large one (50 ms at a million entries) and can be listed
# one by one. The low byte of a MAC is the most random one.
_SHARDS = 256


class DeviceTable:
    """All known devices, in memory and on record.

    A row is a device as bytes (`packing`), or, until it is first needed after the start, an
    integer: the position of its line in the journal.

    Attributes:
        lock: held around `get` and `record` if one follows from the other.
        transfers: the transfers of images that are running.
        turned_away: how often a new device was answered but not kept, since the table was full.
        bad_lines: how many lines of the journal were skipped at the start.
    """

    def __init__(
        self,
        journal: Journal,
        log_dir: Path,
        clock_ms: Callable[[], int],
        max_devices: int = MAX_DEVICES,
    ) -> None:
        """Read the table from the journal.

        Raises:
            OSError: the journal cannot be read.
        """
        self.lock = Lock()
        self.journal = journal
        self.transfers = Transfers()
        self.turned_away = 0
        self._clock_ms = clock_ms
        self._max_devices = max_devices
        self._rows: list[dict[int, bytes | int]] = [{} for _ in range(_SHARDS)]
        self._repeating: set[int] = set()
        self._packer = Packer()
        self._replay = replay(log_dir)
        self.bad_lines = self._replay.bad_lines
        for number, location in self._replay.locations.items():
            self._rows[number % _SHARDS][number] = location
        self._known = len(self._replay.locations)
        self._replay.locations.clear()
        if self._replay.marker_end is not None:
            journal.adopt_marker(self._replay.marker_end)
        if self._replay.unsealed is not None:
            journal.adopt_segment(self._replay.unsealed)
        self._loading = self._load_rows()
        self._unreadable = 0
        self._rest_at = 0.0
        self._reopen = False
        self._ended = False

    def __len__(self) -> int:
        """Return the number of known devices."""
        return self._known

    def get(self, mac: str) -> Device | None:
        """Return what is known about a device, or None. The caller holds `lock`."""
        number = number_of(mac)
        row = self._rows[number % _SHARDS].get(number)
        return None if row is None else self._device(row)

    def _device(self, row: bytes | int) -> Device | None:
        return (
            self._replay.read(row) if isinstance(row, int) else unflatten(self._packer.unpack(row))
        )

    def check(
        self,
        report: Report,
        target_version: str | None,
        address: str,
        now_ms: int,
        details: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Record that a device asked for the version. Call `flush` of the journal afterwards.

        The caller does not hold `lock`.
        """
        mac = report.mac
        number = number_of(mac)
        rows = self._rows[number % _SHARDS]
        with self.lock:
            row = rows.get(number)
            if type(row) is bytes and details is None:
                # What it shares with other devices does not change: only the line needs that.
                packed = checked_again(marshal.loads(row), report, target_version, address, now_ms)
                if packed is not None:
                    rows[number] = marshal.dumps(packed)
                    flat = packed if len(packed) == PLAIN_FIELDS else self._packer.whole(packed)
                    self.journal.append(mac, format_flat("check", mac, flat))
                    return
            before = None if row is None else self._device(row)
            device = checked(before, report, target_version, address, now_ms)
            details = {**(details or {}), **previous_version(before, report)}
            self._keep(rows, number, "check", mac, device, details)

    def row(self, mac: str) -> object:
        """Return an object that each change of the device replaces. The caller holds `lock`."""
        number = number_of(mac)
        return self._rows[number % _SHARDS].get(number)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for further devices."""
        return self._known >= self._max_devices

    def turns_away(self, mac: str) -> bool:
        """Return whether a device is not on record and there is no room for it."""
        if self._known < self._max_devices:
            return False
        number = number_of(mac)
        return number not in self._rows[number % _SHARDS]

    def needs_look(self, mac: str) -> bool:
        """Return whether the loop breaker may hold a device back: look at its record."""
        if not self._repeating and not self._replay.is_open:
            return False  # all rows are loaded, and it holds nobody back
        number = number_of(mac)
        return number in self._repeating or type(self._rows[number % _SHARDS].get(number)) is int

    def record(
        self, event: str, mac: str, device: Device, details: Mapping[str, Scalar] | None = None
    ) -> None:
        """Keep a device and queue its record. The caller holds `lock` and flushes afterwards."""
        number = number_of(mac)
        self._keep(self._rows[number % _SHARDS], number, event, mac, device, details)

    def _keep(
        self,
        rows: dict[int, bytes | int],
        number: int,
        event: str,
        mac: str,
        device: Device,
        details: Mapping[str, Scalar] | None,
    ) -> None:
        if number not in rows:
            if self._known >= self._max_devices:
                self.turned_away += 1
                return
            self._known += 1
        self._note_attempts(number, device)
        flat = flatten(device)
        rows[number] = self._packer.pack(flat)
        self.journal.append(mac, format_flat(event, mac, flat, details))

    def _note_attempts(self, number: int, device: Device) -> None:
        if device.download is not None and device.download.attempts >= FREE_ATTEMPTS:
            self._repeating.add(number)
        else:
            self._repeating.discard(number)

    def reopen_journal(self) -> None:
        """Ask for the journal to be opened by its name again. Safe in a signal handler."""
        self._reopen = True

    def end(self) -> None:
        """Make `look_after` return soon."""
        self._ended = True

    def close(self) -> None:
        """Write what is left and close the journal; `look_after` is not called again."""
        if self.journal.failing and not self.journal.resume(self._lines):
            lost = len(self.journal.unrecorded)
            log.error("the last reports of %d devices are not on record: no room to write", lost)
        self.journal.close()
        self._replay.close()

    def look_after(self) -> None:
        """Do the work of the journal that no request should wait for."""
        if self._reopen:
            self._reopen = False
            self.journal.reopen()
            log.info("the journal was opened by its name again")
        self.journal.look_after()
        if self.journal.failing and not self.journal.resume(self._lines):
            return
        if self.journal.needs_snapshot:
            self._write_snapshot()
        self.journal.seal(format_seal(self._clock_ms()))
        if self._replay.is_open:
            self._load_some_rows()

    def forget(self, mac: str, asked_ms: int) -> None:
        """Remove a device, unless it sent a request after `asked_ms`. Flush afterwards."""
        number = number_of(mac)
        with self.lock:
            device = self.get(mac)
            if device is None or device.time_ms > asked_ms:
                return
            del self._rows[number % _SHARDS][number]
            self._known -= 1
            self._repeating.discard(number)
            now_ms = self._clock_ms()
            self.journal.append(mac, format_record(FORGET, mac, device._replace(time_ms=now_ms)))

    def _lines(self, macs: list[str]) -> bytes:
        with self.lock:
            return b"".join(self._line(mac, self.get(mac)) for mac in macs)

    def _line(self, mac: str, device: Device | None) -> bytes:
        if device is not None:
            return format_record("device", mac, device)
        now_ms = self._clock_ms()
        nobody = Device(now_ms, "-", now_ms, None, None, "", False, None)
        return format_record(FORGET, mac, nobody)

    def _write_snapshot(self) -> None:
        """Write all known devices to the current file, in slices between the live records."""
        generation = self.journal.generation
        for rows in self._rows:
            # A million devices take half a minute, and the file may be moved meanwhile.
            self.journal.look_after()
            self.journal.seal(format_seal(self._clock_ms()))
            with self.lock:
                numbers = list(rows)
            for first in range(0, len(numbers), _SLICE):
                if self._ended or self.journal.failing or generation != self.journal.generation:
                    return
                self._queue_lines(rows, numbers[first : first + _SLICE])
                self.journal.flush()
                self._rest()
        self.journal.close_snapshot(format_marker(self._clock_ms(), self._known), generation)

    def _queue_lines(self, rows: dict[int, bytes | int], numbers: list[int]) -> None:
        """Queue the lines of some devices; they are made before the lock is taken."""
        lines = []
        for number in numbers:
            row = rows.get(number)
            device = None if row is None else self._device(row)
            if device is not None:
                mac = mac_of(number)
                lines.append((number, row, mac, format_record("device", mac, device)))
        with self.lock:
            for number, row, mac, line in lines:
                # A device that changed meanwhile has a newer line in this file, or is marked.
                if rows.get(number) is row:
                    self.journal.append(mac, line)

    def _rest(self) -> None:
        """Rest after some work, so that the threads that answer requests can run."""
        if time.monotonic() >= self._rest_at:
            time.sleep(_REST_SECONDS)
            self._rest_at = time.monotonic() + _WORK_SECONDS

    def _load_some_rows(self) -> None:
        """Parse some of the rows that nobody has asked for; close the old files at the end."""
        until = time.monotonic() + _LOAD_SECONDS
        for _ in self._loading:
            if self._ended or time.monotonic() > until:
                return
            self._rest()
        with self.lock:
            self._replay.close()
        if self._unreadable:
            log.error("%d records of devices became unreadable after the start", self._unreadable)

    def _load_rows(self) -> Iterator[None]:
        for rows in self._rows:
            with self.lock:
                numbers = [number for number, row in rows.items() if type(row) is int]
            for first in range(0, len(numbers), _SLICE):
                self._load_slice(rows, numbers[first : first + _SLICE])
                yield

    def _load_slice(self, rows: dict[int, bytes | int], numbers: list[int]) -> None:
        loaded = []
        for number in numbers:
            row = rows.get(number)
            if type(row) is int:
                device = self._replay.read(row)
                packed = None if device is None else self._packer.pack(flatten(device))
                loaded.append((number, row, device, packed))
        with self.lock:
            for number, row, device, packed in loaded:
                if rows.get(number) is not row:
                    continue  # the device has sent a request meanwhile, or was forgotten
                if packed is not None and device is not None:
                    rows[number] = packed
                    self._note_attempts(number, device)
                else:
                    del rows[number]
                    self._known -= 1
                    self._unreadable += 1
