"""The counts that the device index keeps, so that no figure of the overview reads all devices. I/O.

Each row that changes is taken out of its counts, and put into others. What changes within a
transaction is added up first.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ota_server.operations.device_filter import NO_CONDITION
from ota_server.operations.index_row import IndexRow

# As finely as it is on record when devices reported other versions.
SPAN_MS = 5 * 60_000
# Devices that report a new version again and again must not fill the disk.
_MOST_VERSIONS_IN_A_SPAN = 100
_KEPT_SPANS = 100 * 24 * 12
_KEYS = {
    "state_tally": ("product", "condition", "apart", "reason"),
    "version_tally": ("product", "version"),
    "version_changes": ("product", "span", "version"),
}


class IndexTally:
    """Counts what changes, until it is written."""

    def __init__(self) -> None:
        self._states: Counter[tuple[str, int, int, int]] = Counter()
        self._versions: Counter[tuple[str, str]] = Counter()
        self._changes: Counter[tuple[str, int, str]] = Counter()

    def count(self, before: IndexRow | None, after: IndexRow | None, at_ms: int | None) -> None:
        """Count a row that changed; None: there was none, or there is none any more.

        Args:
            at_ms: when a change of its version came to light; None: that is counted elsewhere.
        """
        for row, sign in ((before, -1), (after, 1)):
            if row is not None and row.condition != NO_CONDITION:
                self._states[row.product, row.condition, row.apart, row.reason] += sign
        old = None if before is None else before.version
        new = None if after is None else after.version
        row = after or before
        if old == new or row is None:
            return
        for version, sign in ((old, -1), (new, 1)):
            if version is not None:
                self._versions[row.product, version] += sign
                if at_ms is not None:
                    self.change(row.product, at_ms, version, sign)

    def change(self, product: str, at_ms: int, version: str, devices: int) -> None:
        """Count that from a time on so many more devices report a version."""
        self._changes[product, max(at_ms, 0) // SPAN_MS, version] += devices

    def write(self, connection: sqlite3.Connection) -> None:
        """Add what was counted to the tables."""
        _add(connection, "state_tally", self._states)
        _add(connection, "version_tally", self._versions)
        self._leave_out(connection)
        _add(connection, "version_changes", self._changes)
        connection.executemany(
            "DELETE FROM version_tally WHERE product = ? AND version = ? AND devices <= 0",
            list(self._versions),
        )
        for counter in (self._states, self._versions, self._changes):
            counter.clear()

    def _leave_out(self, connection: sqlite3.Connection) -> None:
        """Drop what goes beyond the versions of a span; the sum of all stays right elsewhere."""
        spans = Counter((product, span) for product, span, _ in self._changes)
        for (product, span), number in spans.items():
            known = _versions_of(connection, product, span)
            if not known:
                _forget_old(connection, product, span)
            if number + len(known) <= _MOST_VERSIONS_IN_A_SPAN:
                continue
            room = _MOST_VERSIONS_IN_A_SPAN - len(known)
            new = [
                key for key in self._changes if key[:2] == (product, span) and key[2] not in known
            ]
            for key in new[max(room, 0) :]:
                del self._changes[key]


def _add(connection: sqlite3.Connection, table: str, counts: Mapping[Any, int]) -> None:
    keys = _KEYS[table]
    sql = (
        f"INSERT INTO {table} VALUES ({', '.join('?' * len(keys))}, ?) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET devices = devices + excluded.devices"
    )
    connection.executemany(sql, [(*key, devices) for key, devices in counts.items() if devices])


def _versions_of(connection: sqlite3.Connection, product: str, span: int) -> set[str]:
    sql = "SELECT version FROM version_changes WHERE product = ? AND span = ?"
    return {version for (version,) in connection.execute(sql, (product, span))}


def _forget_old(connection: sqlite3.Connection, product: str, span: int) -> None:
    sql = "DELETE FROM version_changes WHERE product = ? AND span < ?"
    connection.execute(sql, (product, span - _KEPT_SPANS))
