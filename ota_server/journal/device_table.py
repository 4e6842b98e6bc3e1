"""The fleet: the live table of devices, kept in step with the journal.

Each change of a device queues its record under the same `lock`, so that lines are in the order of
changes and the newest line of a device is its state.
"""

import logging
import marshal
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from threading import Lock

from ota_server.journal import table_work
from ota_server.journal.device_log import VersionLog
from ota_server.journal.packing import PLAIN_FIELDS, Packer
from ota_server.journal.record import (
    FORGET,
    Scalar,
    format_flat,
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
    not_later,
    previous_version,
    unflatten,
    updater_of,
)
from ota_server.model.identity import number_of
from ota_server.model.updater import Updater

log = logging.getLogger(__name__)

MAX_DEVICES = 2_000_000
# Work on all devices takes seconds, and requests wait meanwhile, since the interpreter runs one
# thread at a time. So it works for a millisecond at most, then rests.
_WORK_SECONDS = 0.0008
_REST_SECONDS = 0.003
# Loading the rows of a large fleet takes a minute, and so does a snapshot: in portions, since a
# withdrawn release and a dead controller are noticed by chores too.
_LOAD_SECONDS, _SNAPSHOT_SECONDS = 0.2, 1.0
# Small tables grow without the pause of a large one (50 ms at a million entries) and can be listed
# one by one. The low byte of a MAC is the most random one.
SHARDS = 256


class DeviceTable:
    """All known devices, in memory and on record.

    A row is a device as bytes (`packing`), or, until it is first needed after the start, an
    integer: the position of its line in the journal.

    Attributes:
        lock: held around `get` and `record` if one follows from the other.
        transfers: the transfers of images that are running.
        turned_away: how often a new device was answered but not kept, since the table was full.
        bad_lines: how many lines of the journal were skipped at the start.
        names: which keys the numbers of the rows are.
        rows, known: the devices, and how many they are. What else is public here is for
            `table_work`, which does what concerns all of them.
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
        self.clock_ms = clock_ms
        self._began_ms = self._looked_ms = clock_ms()
        self._max_devices = max_devices
        self.rows: list[dict[int, bytes | int]] = [{} for _ in range(SHARDS)]
        self._repeating: set[int] = set()
        self._version_log = VersionLog()
        self.packer = Packer()
        self.replay = replay(log_dir)
        self.bad_lines = self.replay.bad_lines
        for number, location in self.replay.locations.items():
            self.rows[number % SHARDS][number] = location
        self.names = self.replay.names
        self.known = len(self.replay.locations)
        self.replay.locations.clear()
        if self.replay.marker_end is not None:
            journal.adopt_marker(self.replay.marker_end)
        if self.replay.unsealed is not None:
            journal.adopt_segment(self.replay.unsealed)
        self._loading: Iterator[None] | None = table_work.load_rows(self)
        self._snapshot: Iterator[None] | None = None
        self._forgetting: Iterator[None] | None = None
        self._rest_at = 0.0
        self._reopen = False
        self.is_ending = False

    def __len__(self) -> int:
        """Return the number of known devices."""
        return self.known

    def get(self, key: str) -> Device | None:
        """Return what is known about a device, or None. The caller holds `lock`."""
        number = number_of(key)
        row = self.rows[number % SHARDS].get(number)
        return None if row is None else self.device_in(row)

    def device_in(self, row: bytes | int) -> Device | None:
        """Return the device in a row, or None if its line in the journal has become unreadable."""
        device = self._as_recorded(row)
        # A row that is still to be loaded, as if it had been loaded at the start.
        now_ms = self._began_ms if isinstance(row, int) else self.clock_ms()
        return None if device is None else not_later(device, now_ms)

    def _as_recorded(self, row: bytes | int) -> Device | None:
        """Return what `device_in` does, with the times that a clock which was ahead has written."""
        if isinstance(row, int):
            return self.replay.read(row)
        return unflatten(self.packer.unpack(row))

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
        key = report.key
        number = number_of(key)
        rows = self.rows[number % SHARDS]
        with self.lock:
            row = rows.get(number)
            if type(row) is bytes and details is None:
                # What it shares with other devices does not change: only the line needs that.
                packed = checked_again(marshal.loads(row), report, target_version, address, now_ms)
                if packed is not None:
                    rows[number] = marshal.dumps(packed)
                    flat = packed if len(packed) == PLAIN_FIELDS else self.packer.whole(packed)
                    self.journal.append(key, format_flat("check", key, flat))
                    return
            before = None if row is None else self.device_in(row)
            device = checked(before, report, target_version, address, now_ms)
            details = {**(details or {}), **previous_version(before, report)}
            self._keep(rows, number, "check", key, device, details)

    def row(self, key: str) -> object:
        """Return an object that each change of the device replaces. The caller holds `lock`."""
        number = number_of(key)
        return self.rows[number % SHARDS].get(number)

    def updater(self, key: str) -> Updater | None:
        """Return the updater of a device as far as it is on record. The caller holds no lock."""
        number = number_of(key)
        row = self.rows[number % SHARDS].get(number)
        if type(row) is bytes:
            return updater_of(marshal.loads(row))  # in a third of the time that `get` takes
        with self.lock:
            device = self.get(key)
        return None if device is None else device.updater

    @property
    def is_full(self) -> bool:
        """Whether there is no room for further devices."""
        return self.known >= self._max_devices

    def turns_away(self, key: str) -> bool:
        """Return whether a device is not on record and there is no room for it."""
        if self.known < self._max_devices:
            return False
        number = number_of(key)
        return number not in self.rows[number % SHARDS]

    def needs_look(self, key: str) -> bool:
        """Return whether the loop breaker may hold a device back: look at its record."""
        if not self._repeating and not self.replay.is_open:
            return False  # all rows are loaded, and it holds nobody back
        number = number_of(key)
        return number in self._repeating or type(self.rows[number % SHARDS].get(number)) is int

    def record(
        self, event: str, key: str, device: Device, details: Mapping[str, Scalar] | None = None
    ) -> None:
        """Keep a device and queue its record. The caller holds `lock` and flushes afterwards."""
        number = number_of(key)
        self._keep(self.rows[number % SHARDS], number, event, key, device, details)

    def _keep(
        self,
        rows: dict[int, bytes | int],
        number: int,
        event: str,
        key: str,
        device: Device,
        details: Mapping[str, Scalar] | None,
    ) -> None:
        if number not in rows:
            if self.known >= self._max_devices:
                self.turned_away += 1
                return
            self.known += 1
            self.names.number_of(key)
        self.note_attempts(number, device)
        if details and "previous_version" in details:
            self._version_log.say(key, device.firmware_version, details["previous_version"])
        flat = flatten(device)
        rows[number] = self.packer.pack(flat)
        self.journal.append(key, format_flat(event, key, flat, details))

    def note_attempts(self, number: int, device: Device) -> None:
        """Record whether the loop breaker may hold a device back."""
        if device.download is not None and device.download.attempts >= FREE_ATTEMPTS:
            self._repeating.add(number)
        else:
            self._repeating.discard(number)

    def reopen_journal(self) -> None:
        """Ask for the journal to be opened by its name again. Safe in a signal handler."""
        self._reopen = True

    def end(self) -> None:
        """Make `look_after` return soon."""
        self.is_ending = True

    def close(self) -> None:
        """Write what is left and close the journal; `look_after` is not called again."""
        if self.journal.failing and not self.journal.resume(self._lines):
            lost = len(self.journal.unrecorded)
            log.error("the last reports of %d devices are not on record: no room to write", lost)
        self.journal.close()
        self.replay.close()

    def look_after(self) -> None:
        """Do the work of the journal that no request should wait for."""
        self._look_at_clock()
        if self._reopen:
            self._reopen = False
            self.journal.reopen()
            log.info("the journal was opened by its name again")
        self.journal.look_after()
        if self.journal.failing and not self.journal.resume(self._lines):
            return
        if self.journal.needs_snapshot:
            snapshot = self._snapshot or table_work.write_snapshot(self)
            self._snapshot = self._go_on(snapshot, _SNAPSHOT_SECONDS)
        self.journal.seal(format_seal(self.clock_ms()))
        if self._loading is not None:
            self._loading = self._go_on(self._loading, _LOAD_SECONDS)
        if self._forgetting is not None:
            self._forgetting = self._go_on(self._forgetting, _SNAPSHOT_SECONDS)

    def _look_at_clock(self) -> None:
        """If the clock was set back, bring back the times that the loop breaker compares.

        At once, so that a `retry` is later than the attempts that it is to lift.
        """
        before_ms, self._looked_ms = self._looked_ms, self.clock_ms()
        if self._looked_ms >= before_ms:
            return
        with self.lock:
            for number in self._repeating:
                rows = self.rows[number % SHARDS]
                device = self.device_in(rows[number])
                if device is not None:
                    rows[number] = self.packer.pack(flatten(device))

    def forget(self, key: str, asked_ms: int) -> None:
        """Remove a device, unless it sent a request after `asked_ms`. Flush afterwards."""
        number = number_of(key)
        with self.lock:
            row = self.rows[number % SHARDS].get(number)
            device = None if row is None else self._as_recorded(row)
            now_ms = self.clock_ms()
            if device is None or asked_ms < max(device.time_ms, device.last_seen_ms) <= now_ms:
                return
            del self.rows[number % SHARDS][number]
            self.names.hashed.pop(number, None)
            self.known -= 1
            self._repeating.discard(number)
            self.journal.append(key, format_record(FORGET, key, device._replace(time_ms=now_ms)))

    def forget_unseen(self, before_ms: int, product: str = "") -> None:
        """Begin to forget the devices of a product that were not heard from since a time."""
        forgetting = table_work.forget_unseen(self, before_ms, product)
        self._forgetting = chain(self._forgetting or (), forgetting)

    def forget_many(self, keys: str, asked_ms: int, product: str = "") -> None:
        """Begin to do as `forget` for devices of a product; `keys` as `forget_file` has them."""
        forgetting = table_work.forget_many(self, keys, asked_ms, product)
        self._forgetting = chain(self._forgetting or (), forgetting)

    def _lines(self, keys: list[str]) -> bytes:
        with self.lock:
            return b"".join(self._line(key, self.get(key)) for key in keys)

    def _line(self, key: str, device: Device | None) -> bytes:
        if device is not None:
            return format_record("device", key, device)
        now_ms = self.clock_ms()
        nobody = Device(now_ms, "-", now_ms, None, None, "", False, None)
        return format_record(FORGET, key, nobody)

    def _go_on(self, work: Iterator[None], seconds: float) -> Iterator[None] | None:
        """Go on with work on all devices for a time; return what is left of it, None if nothing.

        Other chores wait meanwhile, and the threads that answer requests run in the pauses.
        """
        until = time.monotonic() + seconds
        for _ in work:
            if self.is_ending or time.monotonic() > until:
                return work
            if time.monotonic() >= self._rest_at:
                time.sleep(_REST_SECONDS)
                self._rest_at = time.monotonic() + _WORK_SECONDS
        return None
