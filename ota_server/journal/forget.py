"""Forgetting devices in a running server: a record says so, and the table drops them. I/O.

While a server runs, it alone writes the journal, so commands ask it with `version/forget.json`.
Without one the command writes it: `policy/forget_device.py`.
"""

from pathlib import Path

from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record_fields import time_in
from ota_server.model.identity import parse_key, product_of
from ota_server.model.json_object import parse_object
from ota_server.system.data_dir import product_at
from ota_server.system.files import Stamp, find, open_found

FILE_NAME = "forget.json"
UNSEEN = "unseen"
# The clock of a machine that runs commands on the same folder may be ahead by that.
SKEW_MS = 5 * 60 * 1000
_MAX_BYTES = 16 * 1024 * 1024


class ForgetRequests:
    """Does in a running server what `version/forget.json` asks for."""

    def __init__(self, data_dir: Path, fleet: DeviceTable) -> None:
        self._version_dir = data_dir / "version"
        self._product = product_at(data_dir)
        self._fleet = fleet
        self._done: Stamp | None = None

    def look_after(self) -> None:
        """Forget the devices in the file that have not sent a request since.

        Raises:
            OSError: it cannot be read; the next call tries again.
        """
        found = find(self._version_dir, FILE_NAME)
        if found is None or found.stamp == self._done:
            return
        with open(open_found(found), "rb") as file:
            asked = parse_asked(file.read(_MAX_BYTES))
        now_ms = self._fleet.clock_ms()
        for name, asked_ms in asked.items():
            if asked_ms > now_ms + SKEW_MS:
                continue  # by a clock that was ahead; or this would be done at each start
            if name == UNSEEN:
                self._fleet.forget_unseen(asked_ms, self._product)
            elif product_of(name) == self._product:
                self._fleet.forget(name, asked_ms)
        self._fleet.journal.flush()
        self._done = found.stamp


def parse_asked(content: bytes) -> dict[str, int]:
    """Return which devices to forget, by key, and when that was asked; bad entries are ignored.

    Under `UNSEEN`: all devices are to be forgotten that have not been heard from since that time.
    """
    try:
        fields = parse_object(content or b"{}")
    except ValueError:
        return {}
    asked = {}
    for name, text in fields.items():
        key, time_ms = name if name == UNSEEN else parse_key(name), time_in(text)
        if key is not None and time_ms is not None:
            asked[key] = time_ms
    return asked
