"""The rows of the device index in step with the journal, with decisions and with time. I/O.

`IndexWriter` calls it within a transaction, for a short time each.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ota_server.journal.follow import Follower
from ota_server.journal.record import BadRecord, record_in
from ota_server.model.device import DAY_MS, Device
from ota_server.model.identity import number_of, product_of
from ota_server.operations.index_row import (
    NO_MARKS,
    NO_STATE,
    IndexRow,
    device_of,
    make_row,
    rest_of,
    restated,
)
from ota_server.operations.index_schema import Unusable, put_meta
from ota_server.operations.index_states import ProductStates
from ota_server.operations.index_table import drop_row, put_row, row_at, rows_after
from ota_server.operations.index_tally import IndexTally

_ROWS = 100
# States are found for a moment up to a second ago.
_STATES_LAG_MS = 1_500
_DUE = "SELECT number FROM devices WHERE due_ms <= ? ORDER BY due_ms LIMIT ?"
_AWAY = (
    "SELECT seen_ms, number FROM devices INDEXED BY by_seen_ms "
    "WHERE seen_ms >= ? AND seen_ms <= ? AND (seen_ms, number) > (?, ?) "
    "ORDER BY seen_ms, number LIMIT ?"
)


class IndexUpkeep:
    """Keeps the rows of an index that is whole up to date. Used by one thread.

    Attributes:
        named: keys of devices whose states have to be found again.
        sweeps: products for whose devices that is so, each with the number up to which it is done.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        follower: Follower,
        states: Mapping[str, ProductStates],
        tally: IndexTally,
        away: tuple[int, int],
    ) -> None:
        """Take what it works with.

        Args:
            states: by product; grows and shrinks with them.
            away: the newest row that was looked at since it was not seen for a day: its time, its
                number.
        """
        self.named: set[str] = set()
        self.sweeps: dict[str, int] = {}
        self._connection = connection
        self._follower = follower
        self._states = states
        self._tally = tally
        self._away = away
        self._saved = follower.position
        self._bad_lines = 0
        self._now_ms = 0

    def close(self) -> None:
        """Close the journal."""
        self._follower.close()

    def work(self, now_ms: int, end_at: float) -> bool:
        """Do what comes first until the time is over; return whether there is more to do.

        Raises:
            Unusable: a part of the journal was gone before it was read.
        """
        self._now_ms = now_ms
        return (
            self._read_journal(end_at)
            or self._renew_named(end_at)
            or self._renew_due(end_at)
            or self._renew_away(end_at)
            or self._sweep(end_at)
        )

    def note_jump(self, now_ms: int) -> None:
        """Record that the clock was set: who was away may not be so now."""
        self.sweeps.update(dict.fromkeys(self._states, -1))
        self._away = (min(self._away[0], now_ms - DAY_MS), 0)

    # The journal

    def _read_journal(self, end_at: float) -> bool:
        follower, has_more = self._follower, False
        while records := follower.read():
            for fields in records:
                self._take(fields)
            if time.monotonic() >= end_at:
                has_more = True
                break
        if follower.losses:
            raise Unusable("a part of the journal was gone before it was read")
        if (position := follower.position) != self._saved:
            self._saved = position
            put_meta(self._connection, "position", json.dumps(position))
        if bad_lines := self._bad_lines + follower.bad_lines:
            self._bad_lines = follower.bad_lines = 0
            sql = "UPDATE meta SET value = value + ? WHERE name = 'bad_lines'"
            self._connection.execute(sql, (bad_lines,))
        return has_more

    def _take(self, fields: dict[str, Any]) -> None:
        try:
            key, device = record_in(fields)
        except BadRecord:
            # As a replay counts them.
            self._bad_lines += "mac" in fields or "id" in fields or "event" not in fields
            return
        number = number_of(key)
        before = row_at(self._connection, number)
        if device is None:
            if before is not None:
                drop_row(self._connection, number)
                self._tally.count(before, None, self._now_ms)
        elif before is None or fields.get("event") != "device" or not _is_in(before, device):
            self._put(key, device, before, min(device.time_ms, self._now_ms))

    # States

    def _put(self, key: str, device: Device, before: IndexRow | None, at_ms: int) -> None:
        states = self._states.get(product_of(key))
        state, marks = NO_STATE, NO_MARKS
        if states is not None:
            state, marks = states.state(key, device), states.marks(key)
        self._write(before, make_row(key, device, state, marks, before, at_ms), at_ms)

    def _renew(self, rows: Iterable[IndexRow | None]) -> None:
        for row in rows:
            if row is None:
                continue
            key, states = row.key, self._states.get(row.product)
            state, marks = NO_STATE, NO_MARKS
            if states is not None:
                state, marks = states.state(key, device_of(row)), states.marks(key)
            self._write(row, restated(row, state, marks, self._now_ms), self._now_ms)

    def _write(self, before: IndexRow | None, row: IndexRow, at_ms: int) -> None:
        if row != before:
            put_row(self._connection, before, row)
            self._tally.count(before, row, at_ms)

    def _row(self, number: int) -> IndexRow | None:
        return row_at(self._connection, number)

    def _renew_named(self, end_at: float) -> bool:
        while self.named:
            if time.monotonic() >= end_at:
                return True
            self._renew([self._row(number_of(self.named.pop()))])
        return False

    def _renew_due(self, end_at: float) -> bool:
        """Find the states again of devices that may have fallen silent, or may update again."""
        due_ms = self._now_ms - _STATES_LAG_MS
        while due := self._connection.execute(_DUE, (due_ms, _ROWS)).fetchall():
            self._renew([self._row(number) for (number,) in due])
            if len(due) < _ROWS or time.monotonic() >= end_at:
                return len(due) == _ROWS
        return False

    def _renew_away(self, end_at: float) -> bool:
        """Find the states again of devices that were not heard from for a day by now."""
        until_ms = self._now_ms - _STATES_LAG_MS - DAY_MS
        before = self._away
        while True:
            since_ms, _ = self._away
            values = (since_ms, until_ms, *self._away, _ROWS)
            found = self._connection.execute(_AWAY, values).fetchall()
            self._renew([self._row(number) for _, number in found])
            if found:
                self._away = found[-1]
            if len(found) < _ROWS or time.monotonic() >= end_at:
                break
        if self._away != before:
            put_meta(self._connection, "away", json.dumps(self._away))
        return len(found) == _ROWS

    def _sweep(self, end_at: float) -> bool:
        """Find the states again of all devices of a product."""
        while self.sweeps:
            if time.monotonic() >= end_at:
                return True
            product, number = next(iter(self.sweeps.items()))
            rows = rows_after(self._connection, product, number, _ROWS)
            self._renew(rows)
            if len(rows) < _ROWS:
                del self.sweeps[product]
            else:
                self.sweeps[product] = rows[-1].number
        return False


def _is_in(row: IndexRow, device: Device) -> bool:
    """Return whether a snapshot says nothing of a device that its row does not."""
    return (row.seen_ms, row.version, row.target, row.address, row.rest) == (
        device.last_seen_ms,
        device.firmware_version,
        device.target_version,
        device.address,
        rest_of(device),
    )
