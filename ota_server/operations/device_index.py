"""The index of devices as pages, API and commands ask it: filtered, sorted, paged, counted. I/O.

It reads `log/index.sqlite`, which `index_writer` keeps up to date with the journal. It never writes
it. All methods can be called by several threads.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ota_server.journal.follow import end_of
from ota_server.model.device import Device
from ota_server.operations.device_filter import (
    ALL_DEVICES,
    NO_CONDITION,
    SORTS,
    DeviceFilter,
    Place,
    Where,
    format_cursor,
    parse_cursor,
    where,
    where_on_record,
)
from ota_server.operations.index_answers import (
    MOST_COUNTED,
    DevicePage,
    FleetSummary,
    IndexAway,
    IndexedDevice,
    Total,
    VersionsOverTime,
    indexed,
)
from ota_server.operations.index_figures import (
    by_group,
    counted_devices,
    counts_in_time,
    ends_of_spans,
    first_change_ms,
    reporting,
    summary_of,
    told_last,
)
from ota_server.operations.index_reading import (
    ListQuery,
    ReadingPool,
    best,
    is_whole,
    matching,
    part_of,
    rows_at,
    rows_in_trouble,
    walk,
)
from ota_server.operations.index_reports import IndexReports
from ota_server.operations.index_row import IndexRow, device_of
from ota_server.operations.index_schema import Unusable, get_meta, path_of
from ota_server.operations.index_table import matching_rows, number_of_rows, row_of
from ota_server.policy.device_state import Condition
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, product_names, root_of

# Of a part that is asked for, and of the pieces of a walk through all.
_MOST_ROWS, _PIECE_ROWS = 10_000, 1_000
# The index of a column is walked where one in so many devices is of the product.
_WALKED_SHARE = 2
_BELOW_ALL = -1


__all__ = [
    "MOST_COUNTED",
    "DeviceIndex",
    "DevicePage",
    "FleetSummary",
    "IndexAway",
    "IndexedDevice",
    "Total",
    "VersionsOverTime",
]


class DeviceIndex:
    """Reads the index of a data directory."""

    def __init__(self, data_dir: Path, why_not_made: Callable[[], str] = str) -> None:
        """Take the data directory of the server or a product, and who knows what is in the way."""
        self._root = root_of(data_dir)
        self._pool = ReadingPool(path_of(data_dir), why_not_made)

    def close(self) -> None:
        """Close the file."""
        self._pool.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._pool.reading() as connection:
                yield connection
        except (Unusable, sqlite3.Error, OSError) as problem:
            raise IndexAway(f"the index of devices cannot be read: {problem}") from problem

    @contextmanager
    def reports(self) -> Iterator[IndexReports]:
        """Return what devices report, as of one moment.

        Raises:
            IndexAway: there is no index now, or it is being made.
        """
        with self._reading() as connection:
            yield IndexReports(connection)

    def page(
        self,
        wanted: DeviceFilter = ALL_DEVICES,
        sort: str = "mac",
        descending: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> DevicePage:
        """Return a part of the list of devices.

        Args:
            sort: a name of `device_filter.SORTS`.
            cursor: `next` or `previous` of another part; None: the first part.
            limit: of rows, 10,000 at most.

        Raises:
            BadCursor: it is not one of this list.
            IndexAway: there is no index now.
        """
        now_ms, limit = clock.now_ms(), max(1, min(limit, _MOST_ROWS))
        place = None if cursor is None else parse_cursor(cursor, wanted, sort, descending)
        # One more shows whether there is another part.
        query = ListQuery(where(wanted, now_ms), sort, descending, place, limit + 1)
        with self._reading() as connection:
            numbers, total = self._part(connection, wanted, query)
            rows = rows_at(connection, numbers)
        goes_on, is_backward = len(rows) > limit, place is not None and place.is_backward
        rows = rows[:limit]
        if is_backward:
            rows.reverse()
        column = SORTS[sort].column

        def beside(row: IndexRow, is_before: bool) -> str:
            at = Place(getattr(row, column), row.number, is_before)
            return format_cursor(at, wanted, sort, descending)

        has_next, has_previous = is_backward or goes_on, place is not None and not is_backward
        return DevicePage(
            tuple(indexed(row, now_ms) for row in rows),
            beside(rows[-1], False) if rows and has_next else None,
            beside(rows[0], True) if rows and (has_previous or (is_backward and goes_on)) else None,
            total,
        )

    def _part(
        self, connection: sqlite3.Connection, wanted: DeviceFilter, query: ListQuery
    ) -> tuple[list[int], Total]:
        """Return the numbers of a part of a list, and how long the list is."""
        number = self._counted(connection, wanted)
        whole = is_whole(connection)
        most = self._counted(connection, ALL_DEVICES) or 0
        if number is not None and wanted.is_all and number * _WALKED_SHARE >= most and whole:
            return walk(connection, query), Total(number, is_exact=True)
        if number is None or number <= MOST_COUNTED:
            found = matching(connection, query, MOST_COUNTED)
            if found is not None:
                return part_of(found, query), Total(len(found), is_exact=True)
        is_exact = number is not None
        return best(connection, query), Total(number or MOST_COUNTED, is_exact)

    def _counted(self, connection: sqlite3.Connection, wanted: DeviceFilter) -> int | None:
        """Return how many devices match, where that is counted anyway; else None."""
        plain = DeviceFilter(product=wanted.product)
        by_state = replace(plain, states=wanted.states, apart=wanted.apart, held_by=wanted.held_by)
        if wanted != by_state:
            return None
        return counted_devices(connection, self._products(wanted.product), wanted)

    def _products(self, product: str | None) -> list[str]:
        """Return the products that are meant, and are there."""
        names = ["", *product_names(self._root)]
        return names if product is None else [name for name in names if name == product]

    def device(self, key: str) -> IndexedDevice | None:
        """Return a device; None: it is not on record.

        Raises:
            IndexAway: there is no index now.
        """
        row = self._row(key)
        if row is None or row.condition == NO_CONDITION:
            return None
        return indexed(row, clock.now_ms())

    def record(self, key: str) -> Device | None:
        """Return what is on record of a device, as far as decisions depend on it; None: nothing.

        Raises:
            IndexAway: there is no index now.
        """
        row = self._row(key)
        return None if row is None else device_of(row)

    def _row(self, key: str) -> IndexRow | None:
        with self._reading() as connection:
            return row_of(connection, key)

    def keys(self, wanted: DeviceFilter = ALL_DEVICES) -> Iterator[str]:
        """Yield the keys of all devices that a filter lets through.

        Raises:
            IndexAway: there is no index now.
        """
        for row in self._all(where(wanted, clock.now_ms())):
            yield row.key

    def rows(self, wanted: DeviceFilter = ALL_DEVICES) -> Iterator[IndexedDevice]:
        """Yield all devices that a filter lets through, in the order of their keys' numbers.

        For exports: to go through a long list part by part reads the table once for each part.

        Raises:
            IndexAway: there is no index now.
        """
        now_ms = clock.now_ms()
        for row in self._all(where(wanted, now_ms)):
            yield indexed(row, now_ms)

    def is_current(self) -> bool:
        """Return whether it holds what the journal does up to its end, and no more.

        Raises:
            IndexAway: there is no index now.
            OSError: the journal cannot be read.
        """
        with self._reading() as connection:
            said = {name: get_meta(connection, name) for name in ("position", "bad_lines")}
            is_made = is_whole(connection)
        # A replay counts bad lines of other files than those that were read here.
        is_clean = is_made and said["bad_lines"] == "0"
        return is_clean and said["position"] == json.dumps(end_of(journal_dir(self._root)))

    def devices(
        self, product: str, wanted: DeviceFilter, now_ms: int
    ) -> Iterator[tuple[str, Device]]:
        """Yield devices of a product with their keys, in the order of a replay of the journal.

        Args:
            wanted: what it says of records is heeded; how devices are is not asked here.

        Raises:
            IndexAway: there is no index now.
        """
        for row in self._all(where_on_record(product, wanted, now_ms)):
            yield row.key, device_of(row)

    def number_of_devices(self, products: Collection[str]) -> int:
        """Return how many devices of some products are on record.

        Raises:
            IndexAway: there is no index now.
        """
        with self._reading() as connection:
            return number_of_rows(connection, products)

    def _all(self, condition: Where) -> Iterator[IndexRow]:
        """Yield all rows that match, in pieces: a reader that takes its time lets the log grow."""
        number = _BELOW_ALL
        while True:
            with self._reading() as connection:
                rows = matching_rows(connection, condition, number, _PIECE_ROWS)
            yield from rows
            if len(rows) < _PIECE_ROWS:
                return
            number = rows[-1].number

    def count(self, wanted: DeviceFilter = ALL_DEVICES) -> int:
        """Return how many devices a filter lets through, exactly.

        Raises:
            IndexAway: there is no index now.
        """
        condition = where(wanted, clock.now_ms())
        sql = f"SELECT count(*) FROM devices NOT INDEXED WHERE {condition.sql}"
        with self._reading() as connection:
            number = self._counted(connection, wanted)
            if number is None:
                (number,) = connection.execute(sql, condition.values).fetchone()
        return int(number)

    def summary(self, product: str | None = None) -> FleetSummary:
        """Return the figures of a product, or of all together.

        Raises:
            IndexAway: there is no index now.
        """
        products = self._products(product)
        with self._reading() as connection:
            return summary_of(connection, products)

    def by_release(self, product: str, versions: Collection[str]) -> tuple[Counter[str], ...]:
        """Return how many devices report each of some versions, and were told each version last."""
        with self._reading() as connection:
            products = self._products(product)
            return reporting(connection, products, [*versions]), told_last(connection, products)

    def by_group(self, product: str) -> Mapping[str, Mapping[Condition, int]]:
        """Return how many devices of each group of a product are in which state."""
        with self._reading() as connection:
            return by_group(connection, product)

    def versions_over_time(
        self,
        product: str | None,
        since_ms: int,
        until_ms: int,
        buckets: int,
        least_ms: int | None = None,
    ) -> VersionsOverTime:
        """Return how many devices reported which versions, at the ends of so many equal spans.

        Args:
            least_ms: begin with the first device, but so long before the end; None: at `since_ms`.

        Raises:
            IndexAway: there is no index now.
        """
        products = self._products(product)
        with self._reading() as connection:
            if least_ms is not None:
                first_ms = first_change_ms(connection, products) or until_ms
                since_ms = max(since_ms, min(first_ms, until_ms - least_ms))
            return counts_in_time(connection, products, ends_of_spans(since_ms, until_ms, buckets))

    def lately(self, limit: int, product: str | None = None) -> list[IndexedDevice]:
        """Return the devices that failed or fell silent, the newest first.

        Raises:
            IndexAway: there is no index now.
        """
        with self._reading() as connection:
            rows = rows_in_trouble(connection, product, limit)
        now_ms = clock.now_ms()
        return [indexed(row, now_ms) for row in rows]
