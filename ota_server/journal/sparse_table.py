"""`--record-interval`: a device that says again what it said is not on record each time.

A check is answered from memory alone if the device said the same less than an interval after its
newest record: the same version from the same address, and it is told to stay on that. Memory then
knows when it was last seen; the journal is behind by an interval at most. All else is on record as
ever: each offer, each change, each download, and, while a rollout is on, each check.
"""

import marshal
from collections.abc import Callable, Mapping
from pathlib import Path

from ota_server.journal.device_table import MAX_DEVICES, SHARDS, DeviceTable
from ota_server.journal.record import Scalar
from ota_server.journal.writer import Journal
from ota_server.model.device import Report
from ota_server.model.identity import number_of


class SparseDeviceTable(DeviceTable):
    """A device table that leaves out records which would say nothing new."""

    def __init__(
        self,
        journal: Journal,
        log_dir: Path,
        clock_ms: Callable[[], int],
        max_devices: int = MAX_DEVICES,
        *,
        interval_seconds: int,
        is_rollout_on: Callable[[], bool],
    ) -> None:
        """Read the table from the journal.

        Args:
            is_rollout_on: while that is true, each check is on record.

        Raises:
            OSError: the journal cannot be read.
        """
        super().__init__(journal, log_dir, clock_ms, max_devices)
        self._interval_ms = interval_seconds * 1000
        self._is_rollout_on = is_rollout_on

    def check(
        self,
        report: Report,
        target_version: str | None,
        address: str,
        now_ms: int,
        details: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Do as `DeviceTable.check`, but record nothing if that would say nothing new."""
        version = report.firmware_version
        if not details and target_version == version and not self._is_rollout_on():
            number = number_of(report.key)
            rows = self.rows[number % SHARDS]
            with self.lock:
                row = rows.get(number)
                if type(row) is bytes:
                    seen = _seen_again(row, version, address, now_ms, self._interval_ms)
                    if seen is not None:
                        rows[number] = seen
                        return
        super().check(report, target_version, address, now_ms, details)


def _seen_again(
    row: bytes, version: str, address: str, now_ms: int, interval_ms: int
) -> bytes | None:
    """Return the row of a device that says nothing new; None: its check has to be on record."""
    recorded_ms, reported, _, updated_ms, target, from_, image_only, *rest = marshal.loads(row)
    is_same = (reported, target, from_, image_only) == (version, version, address, False)
    if not is_same or not 0 <= now_ms - recorded_ms < interval_ms:
        return None
    return marshal.dumps(
        (recorded_ms, reported, now_ms, updated_ms, target, from_, image_only, *rest)
    )
