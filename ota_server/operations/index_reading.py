"""Connections to the device index for reading, and the queries behind a list and its figures. I/O.

A filter is not answered by walking the index of the column that is sorted by: where few devices
match, that walks all of them, each by a read somewhere else. Reading the whole narrow table once is
quick whatever the filter is. So:

| the list | how its part is found |
|---|---|
| all devices, or most of them by their product | along the index of the column |
| no more than 10,000 devices match | they are read once, and sorted here |
| more match | read again, and SQLite keeps the best of them |
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ota_server.operations.device_filter import SORTS, Place, SortColumn, Where, beyond
from ota_server.operations.index_row import IndexRow
from ota_server.operations.index_schema import Unusable, delete, get_meta, is_damage, open_to_read
from ota_server.operations.index_table import row_at

_MOST_IDLE = 4


class _Opened(NamedTuple):
    connection: sqlite3.Connection
    inode: int


class ReadingPool:
    """Connections to one file, each used by one thread at a time."""

    def __init__(self, path: Path, why_not_made: Callable[[], str]) -> None:
        """Open nothing yet.

        Args:
            why_not_made: returns why a file that is missing cannot be made; "": nobody knows.
        """
        self._path = path
        self._why_not_made = why_not_made
        self._lock = Lock()
        self._idle: list[_Opened] = []

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Return a connection that sees one state of the file until the block ends.

        Raises:
            Unusable: the file is missing or damaged; one that is damaged is deleted, which has it
                made again.
            OSError, sqlite3.Error: it cannot be read now.
        """
        opened = self._take()
        try:
            opened.connection.execute("BEGIN")
            yield opened.connection
            opened.connection.execute("COMMIT")
        except sqlite3.Error as problem:
            opened.connection.close()
            if is_damage(problem):
                self._delete(opened.inode)
                raise Unusable(f"it is damaged: {problem}") from problem
            raise
        except BaseException:
            opened.connection.close()
            raise
        self._give_back(opened)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            while self._idle:
                self._idle.pop().connection.close()

    def _take(self) -> _Opened:
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            self.close()
            why = self._why_not_made()
            raise Unusable(f"it is not there{why and ', and cannot be made: '}{why}") from None
        with self._lock:
            while self._idle:
                opened = self._idle.pop()
                if opened.inode == inode:
                    return opened
                opened.connection.close()  # of a file that was made again since
        return _Opened(open_to_read(self._path), inode)

    def _give_back(self, opened: _Opened) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(opened)
                return
        opened.connection.close()

    def _delete(self, inode: int) -> None:
        with suppress(OSError):
            if self._path.stat().st_ino == inode:
                delete(self._path)


class ListQuery(NamedTuple):
    """A list of devices, and the part of it that is asked for.

    Attributes:
        place: beyond which it begins; None: at the beginning.
        limit: of its rows.
    """

    where: Where
    sort: str
    descending: bool
    place: Place | None
    limit: int

    @property
    def column(self) -> SortColumn:
        """What it is sorted by."""
        return SORTS[self.sort]

    @property
    def goes_down(self) -> bool:
        """Whether it is read from the greatest value to the least."""
        return self.descending != (self.place is not None and self.place.is_backward)


def is_whole(connection: sqlite3.Connection) -> bool:
    """Return whether the index is made, so that its columns have their indexes."""
    return get_meta(connection, "progress") == "1"


def walk(connection: sqlite3.Connection, query: ListQuery) -> list[int]:
    """Return the numbers of a part, along the index of its column."""
    column, way = query.column.column, "DESC" if query.goes_down else "ASC"
    parts: Sequence[Where] = (Where("1", ()),)
    if query.place is not None:
        parts = beyond(query.place, query.sort, query.descending)
    found: list[int] = []
    for part in parts:
        # With the same value first: SQLite goes to a number within it without reading the others.
        sql = (
            f"SELECT number FROM devices INDEXED BY by_{column} WHERE {part.sql} "
            f"AND {query.where.sql} ORDER BY {column} {way}, number {way} LIMIT ?"
        )
        values = (*part.values, *query.where.values, query.limit - len(found))
        found += (number for (number,) in connection.execute(sql, values))
    return found


def matching(
    connection: sqlite3.Connection, query: ListQuery, most: int
) -> list[tuple[str | int | bytes, int]] | None:
    """Return what all devices that match have in the column, with their numbers; None: too many."""
    sql = (
        f"SELECT {query.column.column}, number FROM devices NOT INDEXED "
        f"WHERE {query.where.sql} LIMIT ?"
    )
    found = connection.execute(sql, (*query.where.values, most + 1)).fetchall()
    return None if len(found) > most else found


def part_of(found: list[tuple[str | int | bytes, int]], query: ListQuery) -> list[int]:
    """Return the numbers of a part of the devices that match."""
    place, down = query.place, query.goes_down
    if place is not None:
        at = (place.value, place.number)
        found = [each for each in found if (each < at if down else each > at)]
    found.sort(reverse=down)
    return [number for _, number in found[: query.limit]]


def best(connection: sqlite3.Connection, query: ListQuery) -> list[int]:
    """Return the numbers of a part, by reading all devices."""
    column, way = query.column.column, "DESC" if query.goes_down else "ASC"
    beyond_place = Where("1", ())
    if query.place is not None:
        same, other = beyond(query.place, query.sort, query.descending)
        beyond_place = Where(f"({same.sql}) OR {other.sql}", (*same.values, *other.values))
    sql = (
        f"SELECT number FROM devices NOT INDEXED WHERE ({query.where.sql}) "
        f"AND ({beyond_place.sql}) ORDER BY +{column} {way}, +number {way} LIMIT ?"
    )
    values = (*query.where.values, *beyond_place.values, query.limit)
    return [number for (number,) in connection.execute(sql, values)]


def rows_at(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[IndexRow]:
    """Return rows by their numbers, in their order."""
    rows = (row_at(connection, number) for number in numbers)
    return [row for row in rows if row is not None]


def rows_in_trouble(
    connection: sqlite3.Connection, product: str | None, limit: int
) -> list[IndexRow]:
    """Return the rows of devices that failed or fell silent, the newest first."""
    among = Where("1", ()) if product is None else Where("product = ?", (product,))
    by = "INDEXED BY by_trouble" if is_whole(connection) else "NOT INDEXED"
    sql = (
        f"SELECT number FROM devices {by} WHERE condition < 2 AND {among.sql} "
        "ORDER BY since_ms DESC LIMIT ?"
    )
    found = connection.execute(sql, (*among.values, limit)).fetchall()
    return rows_at(connection, [number for (number,) in found])
