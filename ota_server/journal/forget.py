"""Forgetting devices in a running server: a record says so, and the table drops them. I/O.

Only the server writes the journal, so commands ask for it with `version/forget.json`.
"""

from pathlib import Path

from ota_server.journal.device_table import DeviceTable
from ota_server.model.device import parse_mac
from ota_server.model.json_object import parse_object
from ota_server.model.timestamp import parse_time
from ota_server.system.files import Signature, find, open_found

FILE_NAME = "forget.json"
_MAX_BYTES = 16 * 1024 * 1024


class ForgetRequests:
    """Does in a running server what `version/forget.json` asks for."""

    def __init__(self, data_dir: Path, fleet: DeviceTable) -> None:
        self._version_dir = data_dir / "version"
        self._fleet = fleet
        self._done: Signature | None = None

    def look_after(self) -> None:
        """Forget the devices in the file that have not sent a request since."""
        try:
            found = find(self._version_dir, FILE_NAME)
            if found is None or found.signature == self._done:
                return
            with open(open_found(found), "rb") as file:
                asked = parse_asked(file.read(_MAX_BYTES))
        except OSError:
            return  # this is called again in a moment
        for mac, asked_ms in asked.items():
            self._fleet.forget(mac, asked_ms)
        self._fleet.journal.flush()
        self._done = found.signature


def parse_asked(content: bytes) -> dict[str, int]:
    """Return the MACs to forget and when that was asked for; malformed entries are ignored."""
    try:
        fields = parse_object(content or b"{}")
    except ValueError:
        return {}
    asked = {}
    for name, text in fields.items():
        try:
            mac = parse_mac(name)
            if mac is not None:
                asked[mac] = parse_time(text)
        except (ValueError, TypeError, OverflowError):
            continue
    return asked
