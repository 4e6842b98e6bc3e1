"""How much journal there is, and how fast it grows. I/O."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ota_server.journal.files import journal_files
from ota_server.model.device import DAY_MS
from ota_server.model.timestamp import parse_time
from ota_server.system.files import open_regular

# Longer than any line of ours, so a block from anywhere holds the beginning of one.
_BLOCK_BYTES = 8 * 1024
_CLOSE_BYTES = 1024
# What is written within less time than that says nothing of a day.
_LEAST_MS = 10 * 60 * 1000
_TIME = re.compile(rb'\{"time":"([^"]{20,40})"')


class JournalExtent(NamedTuple):
    """How much journal there is.

    Attributes:
        size: of all its files, in bytes.
        oldest_ms: the time of its first record, now at the latest; None: it holds none.
        day_bytes: what was written within the last day.
    """

    size: int = 0
    files: int = 0
    oldest_ms: int | None = None
    day_bytes: int = 0

    def days_kept(self, most_bytes: int, now_ms: int) -> float | None:
        """Return how many days it will hold at the rate of the last day; None: it is too young.

        Args:
            most_bytes: how large it may become.
        """
        if self.oldest_ms is None or not self.day_bytes:
            return None
        span_ms = min(now_ms - self.oldest_ms, DAY_MS)
        if span_ms < _LEAST_MS:
            return None
        return most_bytes / self.day_bytes * span_ms / DAY_MS


def journal_extent(log_dir: Path, now_ms: int) -> JournalExtent:
    """Look at the files of the journal; only some lines of each are read.

    Raises:
        OSError: a file cannot be read.
    """
    extent = JournalExtent()
    for path in journal_files(log_dir):
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            continue  # a running server deletes old files
        try:
            size = os.fstat(descriptor).st_size
            oldest_ms = extent.oldest_ms
            if oldest_ms is None:
                oldest_ms = _time_after(descriptor, 0)
                # A clock that was ahead may have written more.
                oldest_ms = None if oldest_ms is None else min(oldest_ms, now_ms)
            young = size - _begin_of(descriptor, size, now_ms - DAY_MS)
        finally:
            os.close(descriptor)
        extent = JournalExtent(
            extent.size + size, extent.files + 1, oldest_ms, extent.day_bytes + young
        )
    return extent


def _begin_of(descriptor: int, size: int, time_ms: int) -> int:
    """Return the byte at which, give or take a line, the records after a time begin."""
    low, high = 0, size
    while high - low > _CLOSE_BYTES:
        middle = (low + high) // 2
        found_ms = _time_after(descriptor, middle)
        if found_ms is None or found_ms >= time_ms:
            high = middle
        else:
            low = middle
    found_ms = _time_after(descriptor, low)
    return low if found_ms is not None and found_ms >= time_ms else high


def _time_after(descriptor: int, offset: int) -> int | None:
    """Return the time of the first record that begins at a byte or within a line after it."""
    block = os.pread(descriptor, _BLOCK_BYTES, offset)
    for match in _TIME.finditer(block):
        try:
            return parse_time(match[1].decode("ascii"))
        except ValueError:
            continue
    return None
