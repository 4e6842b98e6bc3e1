"""Making the device index from the journal: its devices, what they reported before, the rest. I/O.

It goes in pieces of some 20 ms. An index over a column cannot be made in pieces, and takes a second
where there are a million devices: a thread does that, and SQLite lets others run meanwhile.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from threading import Thread

from ota_server.journal.files import journal_files
from ota_server.journal.record import BadRecord, parse_fields, record_in
from ota_server.journal.replay import Replay, replay_in_pieces
from ota_server.journal.scan import MAX_LINE_BYTES
from ota_server.model.device import Device
from ota_server.model.identity import number_of, product_of
from ota_server.operations.index_row import NO_MARKS, NO_STATE, IndexRow, make_row
from ota_server.operations.index_schema import INDEXES, put_meta
from ota_server.operations.index_states import ProductStates
from ota_server.operations.index_table import insert_rows
from ota_server.operations.index_tally import IndexTally
from ota_server.system.files import open_regular

# What each part takes of the whole, about; the rest is for the indexes.
_REPLAY_SHARE, _SEARCH_SHARE, _ROWS_SHARE = 0.1, 0.1, 0.6
_ROWS = 100
_INTERRUPT_SECONDS = 0.05
_BLOCK_BYTES = 4 * 1024 * 1024
_CHANGED = b'"previous_version":"'

StatesOf = Callable[[str], ProductStates | None]


def build(
    connection: sqlite3.Connection, logs: Path, states_of: StatesOf, tally: IndexTally, now_ms: int
) -> Generator[float, None, None]:
    """Fill an index that is empty, and has no indexes over columns; yield how far that is.

    Args:
        states_of: returns what says how the devices of a product are; None: it is not there.
    """
    connection.execute("CREATE TEMP TABLE earliest (number INTEGER PRIMARY KEY, version TEXT)")
    for part in _search(connection, logs, tally):
        yield part * _SEARCH_SHARE
    (has_changes,) = connection.execute("SELECT EXISTS (SELECT 1 FROM temp.earliest)").fetchone()
    begun = _SEARCH_SHARE
    found = yield from _replayed(logs, begun)
    begun += _REPLAY_SHARE
    try:
        put_meta(connection, "bad_lines", str(found.bad_lines))
        total, done = max(len(found.locations), 1), 0
        devices = found.devices()
        while some := list(islice(devices, _ROWS)):
            rows = _rows(some, states_of, now_ms)
            for row in rows:
                tally.count(None, row, None)
                earliest = _earliest(connection, row) if has_changes else None
                _count_first(row, earliest, tally)
            insert_rows(connection, rows)
            done += len(some)
            yield begun + done / total * _ROWS_SHARE
    finally:
        found.close()
    del found
    connection.execute("DROP TABLE temp.earliest")


class ColumnIndexes(Thread):
    """Makes the indexes over columns. Nobody else may use the connection until it has ended.

    Attributes:
        problem: why it did not end well.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(name="index-columns", daemon=True)
        self.problem: sqlite3.Error | None = None
        self._connection = connection

    def run(self) -> None:
        """Make them, each in a transaction of its own."""
        begun = _SEARCH_SHARE + _REPLAY_SHARE + _ROWS_SHARE
        try:
            for number, (name, on) in enumerate(INDEXES.items()):
                progress = begun + number / len(INDEXES) * (1 - begun)
                put_meta(self._connection, "progress", f"{progress:.3f}")
                self._connection.execute(f"CREATE INDEX {name} {on}")
        except sqlite3.Error as problem:
            self.problem = problem

    def end(self) -> None:
        """Have it end soon."""
        while self.is_alive():
            self._connection.interrupt()
            self.join(_INTERRUPT_SECONDS)


def _replayed(logs: Path, begun: float) -> Generator[float, None, Replay]:
    pieces = replay_in_pieces(logs)
    while True:
        try:
            part = next(pieces)
        except StopIteration as end:
            found: Replay = end.value
            return found
        yield begun + part * _REPLAY_SHARE


def _rows(devices: list[tuple[str, Device]], states_of: StatesOf, now_ms: int) -> list[IndexRow]:
    rows = []
    for key, device in devices:
        states = states_of(product_of(key))
        state, marks, at_ms = NO_STATE, NO_MARKS, now_ms
        if states is not None:
            state, marks, at_ms = states.state(key, device), states.marks(key), states.now_ms
        rows.append(make_row(key, device, state, marks, None, at_ms))
    return rows


def _earliest(connection: sqlite3.Connection, row: IndexRow) -> str | None:
    """Return what a device reported before its first change that is on record."""
    sql = "SELECT version FROM temp.earliest WHERE number = ?"
    found = connection.execute(sql, (row.number,)).fetchone()
    return None if found is None else str(found[0])


def _count_first(row: IndexRow, earliest: str | None, tally: IndexTally) -> None:
    """Count with which version a device was first seen, as far as the journal shows it."""
    version = row.version if earliest is None else earliest
    if earliest is None and row.updated_ms:
        # The record of that change is in no file that is kept.
        tally.change(row.product, row.updated_ms, row.version, 1)
        tally.change(row.product, row.updated_ms, "", -1)
        version = ""
    tally.change(row.product, row.first_ms or row.updated_ms or row.seen_ms, version, 1)


# What devices reported before


def _search(connection: sqlite3.Connection, logs: Path, tally: IndexTally) -> Iterator[float]:
    """Count all changes of versions that the journal holds, the oldest first."""
    paths = journal_files(logs)
    for number, path in enumerate(paths):
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            continue  # rotated or deleted meanwhile
        try:
            for lines in lines_with_changes(_blocks(descriptor)):
                for line in lines:
                    _note_change(connection, line, tally)
                yield (number + 0.5) / len(paths)
        finally:
            os.close(descriptor)


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, _BLOCK_BYTES):
        yield block


def lines_with_changes(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield, block by block, the lines that say what their device reported before.

    By a search for bytes: they are few among all lines, and to split those takes much longer.
    """
    rest = b""
    for block in blocks:
        held = rest + block
        stop = held.rfind(b"\n") + 1
        found, at = [], held.find(_CHANGED, 0, stop)
        while at >= 0:
            end = held.find(b"\n", at)
            found.append(held[held.rfind(b"\n", 0, at) + 1 : end])
            at = held.find(_CHANGED, end, stop)
        yield found
        rest = held[stop:][-MAX_LINE_BYTES:]


def _note_change(connection: sqlite3.Connection, line: bytes, tally: IndexTally) -> None:
    try:
        fields = parse_fields(line)
        key, device = record_in(fields)
    except BadRecord:
        return
    before = fields.get("previous_version")
    if device is None or not isinstance(before, str) or not before.isascii():
        return
    at_ms = device.update_ms or device.time_ms
    tally.change(product_of(key), at_ms, device.firmware_version, 1)
    tally.change(product_of(key), at_ms, before, -1)
    sql = "INSERT OR IGNORE INTO temp.earliest VALUES (?, ?)"
    connection.execute(sql, (number_of(key), before))
