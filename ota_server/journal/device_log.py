"""What the server's log says of single devices: a new version; with `-v`, each request on record.

Without `-v` an event that a device can repeat at will has to be bounded: so many lines a minute,
and the next line says how many were left out.
"""

import logging
import time
from collections.abc import Mapping

from ota_server.journal.record import Scalar, parse_fields
from ota_server.journal.writer import Journal
from ota_server.system.server_log import Budget

log = logging.getLogger(__name__)

_LINES = 60
_LINES_SECONDS = 60.0


class VersionLog:
    """Logs each device that reports another version. The caller holds a lock."""

    def __init__(self) -> None:
        self._budget = Budget(_LINES, _LINES_SECONDS)
        self._left_out = 0

    def say(self, key: str, version: str, before: Scalar) -> None:
        """Log that a device runs another version than `before`."""
        if not self._budget.allows(time.monotonic()):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} more changes of devices were not logged)" if left_out else ""
        log.info("%s runs %s, and ran %s before%s", key, version, before, more)


class VerboseJournal(Journal):
    """A journal that logs what it gets as well."""

    def append(self, key: str, line: bytes) -> None:
        """Log one line and queue it. The caller holds the lock of the device table."""
        if said := in_words(parse_fields(line)):
            log.info("%s %s", key, said)
        super().append(key, line)


def in_words(fields: Mapping[str, object]) -> str:
    """Return what a request on record was, and how it ended; "": the record is of no request."""
    event, status = fields.get("event"), fields.get("status", 200)
    runs = f"at {fields.get('address')} runs {fields.get('firmware_version')}"
    start = f" from byte {fields['range_start']}" if "range_start" in fields else ""
    if event == "check":
        told = fields.get("target_version") if status == 200 else None
        return f"{runs}, {f'is told {told}' if told else f'and is answered {status}'}"
    if event == "begin":
        what = "asks for the size of" if fields.get("method") == "HEAD" else "begins to fetch"
        size = f"{fields.get('download_size')} bytes"
        return f"{runs}, {what} {fields.get('download_version')}, {size}{start}"
    if event != "download":
        return ""
    if "release_version" not in fields:
        return f"{runs}, asks for an image and is answered {status}"
    version, sent = fields.get("release_version"), fields.get("bytes_sent")
    seconds = fields.get("duration_seconds")
    if fields.get("complete") is True:
        return f"has all {sent} bytes of {version}{start}, after {seconds} s"
    return f"was cut after {sent} bytes of {version}{start}, after {seconds} s"
