"""Reading the journal at a start: which line is the newest of each device.

The cost of a start must not grow with the history, so it reads only from the newest file with the
end of a snapshot. It must not parse a million lines either, so it only finds their positions; a
line is parsed when it is needed. `scan` says how a file is scanned.
"""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ota_server.journal.files import CURRENT_NAME, journal_files
from ota_server.journal.record import BadRecord, Seal, is_marker, parse_fields, parse_record
from ota_server.journal.record_fields import key_in, time_in, whose
from ota_server.journal.scan import FILE_SHIFT, MAX_LINE_BYTES, OFFSET_MASK, FileScan, ScanResult
from ota_server.model.device import Device
from ota_server.model.identity import number_of, product_of
from ota_server.system.files import open_regular

_BLOCK_BYTES = 4 * 1024 * 1024
_LINE_BYTES = 1024
# As `format_marker` writes it. No device text can contain it: its quotes would be escaped.
_MARKER = b'"event":"snapshot"'


class Replay(ScanResult):
    """Where the newest record of each device is. `read` takes the values of `locations`.

    Attributes:
        unsealed: the seal that the end of the current file could get, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unsealed: Seal | None = None
        self._descriptors: list[int] = []

    @property
    def is_open(self) -> bool:
        """Whether locations can still be read."""
        return bool(self._descriptors)

    def read(self, location: int) -> Device | None:
        """Return the device at a location, or None if its line has become unreadable."""
        line = _line_at(self._descriptors[location >> FILE_SHIFT], location & OFFSET_MASK)
        try:
            return parse_record(line)[1]
        except BadRecord:
            return None

    def devices(self, product: str | None = None) -> Iterator[tuple[str, Device]]:
        """Yield devices with their keys: MACs of the default product first, in their order.

        Args:
            product: whose; None: of all.
        """
        for number in sorted(self.locations):
            key = self.names.key_of(number)
            if product is not None and product_of(key) != product:
                continue
            device = self.read(self.locations[number])
            if device is not None:
                yield key, device

    def close(self) -> None:
        """Close the files; `read` does not work after that."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def replay(log_dir: Path) -> Replay:
    """Find the newest record of each device in the journal of `log_dir`.

    Raises:
        OSError: a file of it cannot be read.
    """
    pieces = replay_in_pieces(log_dir)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            found: Replay = end.value
            return found


def replay_in_pieces(log_dir: Path) -> Generator[float, None, Replay]:
    """Do as `replay`, in pieces that take some 20 ms, for those with other things to do meanwhile.

    It yields which part of the bytes is read, from 0 to 1.
    """
    result = Replay()
    try:
        opened = _open_files(log_dir, _files_to_read)
        result._descriptors += (descriptor for _, descriptor in opened)
        total = sum(os.fstat(descriptor).st_size for _, descriptor in opened)
        done = 0
        for number, (path, descriptor) in enumerate(opened):
            scan = FileScan(result, number)
            while block := os.read(descriptor, _BLOCK_BYTES):
                scan.feed(block)
                done += len(block)
                yield min(done / max(total, 1), 1.0)
            result.unsealed = scan.end()
            if path.name != CURRENT_NAME:
                result.marker_end = result.unsealed = None
    except BaseException:  # also where nobody asks for the rest
        result.close()
        raise
    return result


def newest(log_dir: Path, key: str) -> Device | None:
    """Return what is known about one device, or None if it is not on record.

    Raises:
        OSError: a file of the journal cannot be read.
    """
    return next(newest_of(log_dir, [key]))[1]


def newest_of(log_dir: Path, keys: Iterable[str]) -> Iterator[tuple[str, Device | None]]:
    """Yield devices by their keys, each with what is known about it, as `newest` does.

    Raises:
        OSError: a file of the journal cannot be read.
    """
    found = replay(log_dir) if log_dir.is_dir() else Replay()
    try:
        for key in keys:
            location = found.locations.get(number_of(key))
            yield key, None if location is None else found.read(location)
    finally:
        found.close()


def history(log_dir: Path, key: str, since_ms: int | None = None) -> Iterator[dict[str, object]]:
    """Yield the records of one device, the oldest first, from all files that are kept.

    Args:
        since_ms: records of an earlier time are left out; None: none are.
    """
    pattern = re.compile(re.escape(whose(key).encode("ascii")))
    for fields in records_with(log_dir, pattern, (since_ms or 0) / 1000):
        time_ms = None if since_ms is None else time_in(fields.get("time"))
        is_old = since_ms is not None and time_ms is not None and time_ms < since_ms
        if key_in(fields) == key and not is_old:
            yield fields


def records_with(
    log_dir: Path, pattern: re.Pattern[bytes], since_seconds: float = 0.0
) -> Iterator[dict[str, object]]:
    """Yield the records with a match of `pattern` in their lines, the oldest first.

    Args:
        since_seconds: files last written before this time are left out.
    """
    for _, descriptor in _open_files(log_dir, journal_files):
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mtime < since_seconds:
                continue
            for line in _lines_of(file):
                if not pattern.search(line):
                    continue
                try:
                    yield parse_fields(line)
                except BadRecord:
                    continue


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file that are not too long to be records."""
    is_rest = False
    while part := file.readline(MAX_LINE_BYTES):
        is_whole = part.endswith(b"\n") or len(part) < MAX_LINE_BYTES
        if is_whole and not is_rest:
            yield part
        is_rest = not is_whole


def _open_files(log_dir: Path, choose: Callable[[Path], list[Path]]) -> list[tuple[Path, int]]:
    """Open the files to read; open them again if a running server rotates them meanwhile."""
    while True:
        there = journal_files(log_dir)
        opened: list[tuple[Path, int]] = []
        try:
            for path in choose(log_dir):
                opened.append((path, open_regular(path)))
            if journal_files(log_dir) == there:
                return opened
        except OSError as problem:
            # Deleted since it was listed, unless it is a link to nowhere.
            if not isinstance(problem, FileNotFoundError) or journal_files(log_dir) == there:
                _close_all(opened)
                raise
        _close_all(opened)


def _close_all(opened: list[tuple[Path, int]]) -> None:
    for _, descriptor in opened:
        os.close(descriptor)


def _files_to_read(log_dir: Path) -> list[Path]:
    files = journal_files(log_dir)
    for first in reversed(range(len(files))):
        if _holds_marker(files[first]):
            return files[first:]
    return files


def _holds_marker(path: Path) -> bool:
    """Look for a marker from the end of a file, since a large snapshot comes before it."""
    descriptor = open_regular(path)
    # Read, not mapped: a mapped file counts as memory of this process.
    with open(descriptor, "rb", buffering=0):
        stop = os.fstat(descriptor).st_size
        rest = b""
        while stop > 0:
            start = max(0, stop - _BLOCK_BYTES)
            block = os.pread(descriptor, stop - start, start) + rest
            if _marker_in(block):
                return True
            rest = block[:_LINE_BYTES]
            stop = start
    return False


def _marker_in(block: bytes) -> bool:
    at = block.find(_MARKER)
    while at >= 0:
        start = block.rfind(b"\n", 0, at) + 1
        stop = block.find(b"\n", at)
        if stop >= 0 and is_marker(block[start:stop]):
            return True
        at = block.find(_MARKER, at + 1)
    return False


def _line_at(descriptor: int, offset: int) -> bytes:
    line = b""
    while True:
        part = os.pread(descriptor, _LINE_BYTES, offset + len(line))
        end = part.find(b"\n")
        if end >= 0 or not part:
            return line + (part[:end] if end >= 0 else part)
        line += part
