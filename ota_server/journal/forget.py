"""Forgetting devices, in a running server: by a record of that they go from the table. I/O.

The journal has one writer, so a command asks for it by `version/forget.json`.
"""

from pathlib import Path

from ota_server.journal.device_table import Fleet
from ota_server.model.device import parse_mac
from ota_server.model.json_object import parse_object
from ota_server.model.timestamp import parse_time
from ota_server.system.files import Signature, find, open_found

FILE_NAME = "forget.json"
_MAX_BYTES = 16 * 1024 * 1024


class Forgetting:
    """Does in a running server what commands ask for."""

    def __init__(self, data_dir: Path, fleet: Fleet) -> None:
        self._version_dir = data_dir / "version"
        self._fleet = fleet
        self._done: Signature | None = None

    def look_after(self) -> None:
        """Forget who is to be forgotten and was not heard from since."""
        try:
            found = find(self._version_dir, FILE_NAME)
            if found is None or found.signature == self._done:
                return
            with open(open_found(found), "rb") as file:
                asked = parse_asked(file.read(_MAX_BYTES))
        except OSError:
            return  # it is looked at again in a moment
        for mac, asked_ms in asked.items():
            self._fleet.forget(mac, asked_ms)
        self._fleet.journal.flush()
        self._done = found.signature


def parse_asked(content: bytes) -> dict[str, int]:
    """Return who is to be forgotten, and when that was asked for; what makes no sense is not."""
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
