"""What devices report, as the index has it, for many devices by their numbers. I/O."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice

from ota_server.model.version import order_of
from ota_server.operations.index_reading import is_whole
from ota_server.operations.index_schema import Unusable

# Older builds of SQLite take 999 values.
_AT_ONCE = 900


class IndexReports:
    """Reads them by one connection, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take a connection to an index that is whole.

        Raises:
            Unusable: it is not.
        """
        if not is_whole(connection):
            raise Unusable("it is being made")
        self._connection = connection

    def of(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, int]]:
        """Yield the devices that are on record: number, version, when it was seen last in ms."""
        left = iter(numbers)
        while some := tuple(islice(left, _AT_ONCE)):
            places = ", ".join("?" * len(some))
            sql = f"SELECT number, version, seen_ms FROM devices WHERE number IN ({places})"
            yield from self._connection.execute(sql, some)

    def versions(self, product: str) -> list[str]:
        """Return all versions that devices of a product report."""
        sql = "SELECT version FROM version_tally WHERE product = ? AND devices > 0"
        return [version for (version,) in self._connection.execute(sql, (product,))]

    def reporting(self, version: str) -> Iterator[int]:
        """Yield the numbers of the devices of all products that report a version."""
        sql = (
            "SELECT number FROM devices INDEXED BY by_version_order "
            "WHERE version_order = ? AND version = ?"
        )
        for (number,) in self._connection.execute(sql, (order_of(version), version)):
            yield number
