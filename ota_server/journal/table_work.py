"""Work on all devices of the table: loading them, the snapshot, forgetting many. I/O.

A million devices take a minute. So each of these is a generator that does a slice of the work in
each step; the table says when, between its other chores.
"""

import logging
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Protocol

from ota_server.journal.forget_file import each_key
from ota_server.journal.packing import Packer
from ota_server.journal.record import format_marker, format_record, format_seal
from ota_server.journal.replay import Replay
from ota_server.journal.writer import Journal
from ota_server.model.device import Device, flatten
from ota_server.model.identity import KeyNames, product_of

log = logging.getLogger(__name__)

# Requests wait for a slice, since the interpreter runs one thread at a time: half a millisecond.
_SLICE = 50
_Rows = dict[int, bytes | int]


class Table(Protocol):
    """What the work needs of the table (`DeviceTable`), which explains it."""

    lock: Lock
    journal: Journal
    names: KeyNames
    rows: list[_Rows]
    known: int
    packer: Packer
    replay: Replay
    is_ending: bool

    clock_ms: Callable[[], int]

    def device_in(self, row: bytes | int) -> Device | None:
        """Return the device in a row."""

    def note_attempts(self, number: int, device: Device) -> None:
        """Record whether the loop breaker may hold a device back."""

    def forget(self, key: str, asked_ms: int) -> None:
        """Remove a device."""


def write_snapshot(table: Table) -> Iterator[None]:
    """Write all known devices to the current file, in slices between the live records."""
    journal = table.journal
    generation = journal.generation
    for rows in table.rows:
        # The file may be moved meanwhile.
        journal.look_after()
        journal.seal(format_seal(table.clock_ms()))
        for numbers in _slices(table, rows):
            if table.is_ending or journal.failing or generation != journal.generation:
                return
            _queue_lines(table, rows, numbers)
            journal.flush()
            yield
    journal.close_snapshot(format_marker(table.clock_ms(), table.known), generation)


def _slices(table: Table, rows: _Rows) -> Iterator[list[int]]:
    with table.lock:
        numbers = list(rows)
    for first in range(0, len(numbers), _SLICE):
        yield numbers[first : first + _SLICE]


def _queue_lines(table: Table, rows: _Rows, numbers: list[int]) -> None:
    """Queue the lines of some devices; they are made before the lock is taken."""
    lines = []
    for number in numbers:
        row = rows.get(number)
        device = None if row is None else table.device_in(row)
        if device is not None:
            key = table.names.key_of(number)
            lines.append((number, row, key, format_record("device", key, device)))
    with table.lock:
        for number, row, key, line in lines:
            # A device that changed meanwhile has a newer line in this file, or is marked.
            if rows.get(number) is row:
                table.journal.append(key, line)


def load_rows(table: Table) -> Iterator[None]:
    """Parse the rows that nobody has asked for; close the old files at the end."""
    unreadable = 0
    for rows in table.rows:
        for numbers in _slices(table, rows):
            unreadable += _load(table, rows, numbers)
            yield
    with table.lock:
        table.replay.close()
    if unreadable:
        log.error("%d records of devices became unreadable after the start", unreadable)


def _load(table: Table, rows: _Rows, numbers: list[int]) -> int:
    """Load some rows; return how many have become unreadable."""
    unreadable = 0
    loaded = []
    for number in numbers:
        row = rows.get(number)
        if type(row) is int:
            device = table.device_in(row)
            packed = None if device is None else table.packer.pack(flatten(device))
            loaded.append((number, row, device, packed))
    with table.lock:
        for number, row, device, packed in loaded:
            if rows.get(number) is not row:
                continue  # the device has sent a request meanwhile, or was forgotten
            if packed is not None and device is not None:
                rows[number] = packed
                table.note_attempts(number, device)
            else:
                del rows[number]
                table.names.hashed.pop(number, None)
                table.known -= 1
                unreadable += 1
    return unreadable


def forget_unseen(table: Table, before_ms: int, product: str) -> Iterator[None]:
    """Forget the devices of a product that have sent no request since a time."""
    count = 0
    for rows in table.rows:
        for numbers in _slices(table, rows):
            for number in numbers:
                row, key = rows.get(number), table.names.key_of(number)
                if row is None or product_of(key) != product:
                    continue
                device = table.device_in(row)
                if device is not None and max(device.time_ms, device.last_seen_ms) < before_ms:
                    table.forget(key, before_ms)
                    count += 1
            table.journal.flush()
            yield
    log.info("%d devices that have not been heard from are forgotten", count)


def forget_many(table: Table, keys: str, asked_ms: int, product: str) -> Iterator[None]:
    """Forget devices of a product that have sent no request since that was asked for."""
    for number, key in enumerate(each_key(keys), start=1):
        if product_of(key) == product:
            table.forget(key, asked_ms)
        if number % _SLICE == 0:
            table.journal.flush()
            yield
    table.journal.flush()
