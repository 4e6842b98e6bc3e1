"""Which clients were rejected recently (401, 400, 404 …), by address and reason.

A device with an empty version header, for example, is recorded nowhere else. The list is bounded
and kept in `log/rejected.jsonl`, so that commands see it whether the server runs or not.
"""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from ota_server.model.json_object import parse_object
from ota_server.model.timestamp import format_time
from ota_server.system.files import open_regular, replace

log = logging.getLogger(__name__)

FILE_NAME = "rejected.jsonl"
# A bound, against attackers; a broken build sends a few hundred devices at once.
MAX_ENTRIES = 1000
SAVE_EVERY_SECONDS = 1.0
_MAX_BYTES = 1024 * 1024  # so many entries take less


class Rejected:
    """Counts rejections for each address, reason and MAC (if that was valid)."""

    def __init__(self, log_dir: Path) -> None:
        self._path = log_dir / FILE_NAME
        self._lock = Lock()
        self._changed = False
        self._said = False
        self._saved_at = -SAVE_EVERY_SECONDS
        self._entries: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()
        for entry in read_rejected(log_dir):
            self._entries[entry["address"], entry["reason"], entry["mac"] or ""] = entry

    def note(self, address: str, reason: str, mac: str | None, now_ms: int) -> int:
        """Count one rejection and return how many there were of its kind."""
        key = (address, reason, mac or "")
        time = format_time(now_ms)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = {
                    "address": address,
                    "reason": reason,
                    "mac": mac,
                    "first_time": time,
                    "count": 0,
                }
                if len(self._entries) >= MAX_ENTRIES:
                    self._entries.popitem(last=False)
                self._entries[key] = entry
            entry["count"] += 1
            entry["time"] = time
            self._entries.move_to_end(key)
            self._changed = True
            return int(entry["count"])

    def save(self, now_seconds: float) -> None:
        """Write the list if it has changed, once a second at most."""
        with self._lock:
            if not self._changed or now_seconds - self._saved_at < SAVE_EVERY_SECONDS:
                return
            self._changed = False
            self._saved_at = now_seconds
            lines = [json.dumps(entry) + "\n" for entry in self._entries.values()]
        try:
            replace(self._path, "".join(lines).encode("ascii"))
            self._said = False
        except OSError as problem:
            if not self._said:
                log.warning("%s cannot be written: %s", self._path, problem.strerror)
            self._said = True
            with self._lock:
                self._changed = True


def read_rejected(log_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the saved entries, the oldest first; malformed lines are skipped."""
    try:
        with open(open_regular(log_dir / FILE_NAME), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_BYTES))
            lines = file.read(_MAX_BYTES).splitlines()
    except OSError:
        return
    for line in lines[-MAX_ENTRIES:]:
        try:
            entry = parse_object(line)
            texts = (entry["address"], entry["reason"], entry["first_time"], entry["time"])
            mac = entry.get("mac")
            if not all(isinstance(text, str) for text in texts):
                continue
            if isinstance(mac, str | None) and isinstance(entry["count"], int):
                yield {**entry, "mac": mac}
        except (ValueError, KeyError, TypeError):
            continue
