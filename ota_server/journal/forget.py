"""Forgetting devices in a running server: a record says so, and the table drops them. I/O.

While a server runs, it alone writes the journal, so commands ask it with `version/forget.json`.
Without one the command writes it: `policy/forget_device.py`.
"""

from pathlib import Path

from ota_server.journal.device_table import DeviceTable
from ota_server.journal.forget_file import (
    FILE_NAME,
    MOST_BYTES,
    SKEW_MS,
    UNSEEN,
    parse_forget_file,
)
from ota_server.model.identity import product_of
from ota_server.system.data_dir import product_at
from ota_server.system.files import Stamp, find, open_found


class ForgetRequests:
    """Does in a running server what `version/forget.json` asks for."""

    def __init__(self, data_dir: Path, fleet: DeviceTable) -> None:
        self._version_dir = data_dir / "version"
        self._product = product_at(data_dir)
        self._fleet = fleet
        self._done: Stamp | None = None
        self._many_begun: set[int] = set()

    def look_after(self) -> None:
        """Forget the devices in the file that have not sent a request since.

        Raises:
            OSError: it cannot be read; the next call tries again.
        """
        found = find(self._version_dir, FILE_NAME)
        if found is None or found.stamp == self._done:
            return
        with open(open_found(found), "rb") as file:
            asked = parse_forget_file(file.read(MOST_BYTES))
        now_ms = self._fleet.clock_ms()
        self._many_begun &= asked.many.keys()
        for asked_ms, keys in asked.many.items():
            if asked_ms <= now_ms + SKEW_MS and asked_ms not in self._many_begun:
                self._many_begun.add(asked_ms)
                self._fleet.forget_many(keys, asked_ms, self._product)
        for name, asked_ms in asked.asked.items():
            if asked_ms > now_ms + SKEW_MS:
                continue  # by a clock that was ahead; or this would be done at each start
            if name == UNSEEN:
                self._fleet.forget_unseen(asked_ms, self._product)
            elif product_of(name) == self._product:
                self._fleet.forget(name, asked_ms)
        self._fleet.journal.flush()
        self._done = found.stamp
