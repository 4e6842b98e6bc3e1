"""When tokens were used last: `log/token_use.json`, for `token list`. I/O.

It is a file of its own, since it changes with each use: what operators decide is rewritten only
when they do. Losing it does no harm.
"""

import logging
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.tokens import USE_NAME
from ota_server.system.data_dir import log_dir
from ota_server.system.files import open_regular, replace
from ota_server.system.new_files import OWNER_ONLY

log = logging.getLogger(__name__)

_EVERY_MS = 60 * 1000
_MAX_BYTES = 1024 * 1024


def read_uses(data_dir: Path) -> dict[str, int]:
    """Return when tokens were used last, by digest, in milliseconds since the epoch."""
    with suppress(OSError, ValueError, TypeError):
        with open(open_regular(log_dir(data_dir) / USE_NAME), "rb") as file:
            fields = parse_object(file.read(_MAX_BYTES))
        return {digest: parse_time(text) for digest, text in fields.items()}
    return {}


class TokenUse:
    """Notes uses, and writes them once a minute at most. Threads may share it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = Lock()
        self._new: dict[str, int] = {}
        self._written_ms = 0
        self._said = False

    def note(self, digest: str, now_ms: int) -> None:
        """Note that a token was used: one that is on record, so that this stays small."""
        with self._lock:
            self._new[digest] = now_ms

    def look_after(self, known: frozenset[str], now_ms: int) -> None:
        """Write what is new if the last time was over a minute ago.

        Args:
            known: the digests of the tokens that are on record; all others are forgotten.
        """
        if self._new and not 0 <= now_ms - self._written_ms < _EVERY_MS:
            self.write(known, now_ms)

    def write(self, known: frozenset[str], now_ms: int) -> None:
        """Write what is new, now."""
        with self._lock:
            new, self._new = self._new, {}
        if not new:
            return
        self._written_ms = now_ms
        uses = {**read_uses(self._data_dir), **new}
        content = {each: format_time(ms) for each, ms in uses.items() if each in known}
        try:
            path = log_dir(self._data_dir) / USE_NAME
            replace(path, format_object(content), mode=OWNER_ONLY)
            self._said = False
        except OSError as problem:
            if not self._said:
                log.warning("%s cannot be written: %s", problem.filename, problem.strerror)
            self._said = True
