"""The rows of the device index, read and written one by one. I/O.

SQLite writes each index of each column that a statement names, whether it changes or not. So a
statement names what changes, and no more: of a check the time, and perhaps the interval.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache

from ota_server.model.identity import number_of
from ota_server.operations.device_filter import Where
from ota_server.operations.index_row import NARROW, IndexRow

_FIELDS = IndexRow._fields
_JOINED = (
    "SELECT devices.number, "
    + ", ".join(_FIELDS[1:])
    + " FROM devices LEFT JOIN details ON details.number = devices.number"
)
_ONE = f"{_JOINED} WHERE devices.number = ?"
_SOME_AFTER = f"{_JOINED} WHERE devices.number > ? AND product = ? ORDER BY devices.number LIMIT ?"
_INSERT = f"INSERT INTO devices VALUES ({', '.join('?' * NARROW)})"
_DETAIL = "INSERT OR REPLACE INTO details VALUES (?, ?, ?)"


def row_at(connection: sqlite3.Connection, number: int) -> IndexRow | None:
    """Return a row by its number; None: there is none."""
    with closing(connection.execute(_ONE, (number,))) as found:
        values = found.fetchone()
    return None if values is None else IndexRow._make(values)


def row_of(connection: sqlite3.Connection, key: str) -> IndexRow | None:
    """Return the row of a device by its key; None: there is none."""
    row = row_at(connection, number_of(key))
    return None if row is None or row.key != key else row


def number_of_rows(connection: sqlite3.Connection, products: Iterable[str]) -> int:
    """Return how many devices of some products have a row."""
    sql = "SELECT count(*) FROM devices WHERE product = ?"
    return sum(connection.execute(sql, (each,)).fetchone()[0] for each in products)


def rows_after(
    connection: sqlite3.Connection, product: str, number: int, limit: int
) -> list[IndexRow]:
    """Return the next rows of a product beyond a number, in the order of numbers."""
    found = connection.execute(_SOME_AFTER, (number, product, limit))
    return [IndexRow._make(values) for values in found]


def matching_rows(
    connection: sqlite3.Connection, condition: Where, number: int, limit: int
) -> list[IndexRow]:
    """Return the next rows beyond a number that match, in the order of numbers."""
    some = (
        f"SELECT number AS found FROM devices NOT INDEXED WHERE number > ? AND {condition.sql} "
        "ORDER BY number LIMIT ?"
    )
    sql = f"{_JOINED} WHERE devices.number IN ({some}) ORDER BY devices.number"
    found = connection.execute(sql, (number, *condition.values, limit))
    return [IndexRow._make(values) for values in found]


def insert_rows(connection: sqlite3.Connection, rows: Iterable[IndexRow]) -> None:
    """Put rows in that are not there yet."""
    listed = list(rows)
    connection.executemany(_INSERT, [row[:NARROW] for row in listed])
    connection.executemany(_DETAIL, _details(listed))


def put_row(connection: sqlite3.Connection, before: IndexRow | None, row: IndexRow) -> None:
    """Put a row in the place of what was there."""
    if before is None:
        insert_rows(connection, (row,))
        return
    changed = tuple(place for place in range(1, NARROW) if before[place] != row[place])
    if changed:
        connection.execute(_update_of(changed), (*(row[at] for at in changed), row.number))
    if before[NARROW:] != row[NARROW:]:
        if row.rest is None and row.cause is None:
            connection.execute("DELETE FROM details WHERE number = ?", (row.number,))
        else:
            connection.execute(_DETAIL, (row.number, row.rest, row.cause))


def drop_row(connection: sqlite3.Connection, number: int) -> None:
    """Take a row out."""
    connection.execute("DELETE FROM devices WHERE number = ?", (number,))
    connection.execute("DELETE FROM details WHERE number = ?", (number,))


@lru_cache(maxsize=512)
def _update_of(places: tuple[int, ...]) -> str:
    return f"UPDATE devices SET {', '.join(f'{_FIELDS[at]} = ?' for at in places)} WHERE number = ?"


def _details(rows: Iterable[IndexRow]) -> Iterator[tuple[int, str | None, str | None]]:
    for row in rows:
        if row.rest is not None or row.cause is not None:
            yield row.number, row.rest, row.cause
