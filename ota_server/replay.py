"""Reading the journal back: which line of it is the newest of each device.

A start must not cost by the history, so it looks for the newest file that a marker closes and reads
from there; and it must not parse a million lines, so it notes where they are, and they are parsed
when they are asked for.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ota_server.device import Device
from ota_server.files import open_regular
from ota_server.journal import CURRENT_NAME, journal_files
from ota_server.record import COMMON_LINE, BadRecord, is_marker, parse_fields, parse_record

_BLOCK_BYTES = 4 * 1024 * 1024
_LINE_BYTES = 1024
# Ten times the longest record; what is longer was written by nobody who means well.
_MAX_LINE_BYTES = 64 * 1024
# As `format_marker` has it: no device text can hold it, not even a version named "snapshot".
_MARKER = b'"event":"snapshot"'
# A location is one integer, file number above and offset below: half the memory of a pair.
_FILE_SHIFT = 48
_OFFSET_MASK = (1 << _FILE_SHIFT) - 1


@dataclass
class Replay:
    """Where the newest record of each device is.

    Attributes:
        locations: by MAC as a number; values for `read`.
        bad_lines: how many lines were no records and were skipped.
        marker_end: where the last snapshot in the current file ends, in bytes; None: it holds none.
    """

    locations: dict[int, int] = field(default_factory=dict)
    bad_lines: int = 0
    marker_end: int | None = None
    _descriptors: list[int] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether locations can still be read."""
        return bool(self._descriptors)

    def read(self, location: int) -> Device | None:
        """Return the device at a location; None where the line has gone bad since."""
        line = _line_at(self._descriptors[location >> _FILE_SHIFT], location & _OFFSET_MASK)
        try:
            return parse_record(line)[1]
        except BadRecord:
            return None

    def devices(self) -> Iterator[tuple[str, Device]]:
        """Yield each device, in the order of their MACs."""
        for number in sorted(self.locations):
            device = self.read(self.locations[number])
            if device is not None:
                yield mac_of(number), device

    def close(self) -> None:
        """Close the files; no location can be read any more."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


def number_of(mac: str) -> int:
    """Return a MAC address as a number: 32 bytes in a table where the text takes 66."""
    return int(mac.replace(":", ""), 16)


def mac_of(number: int) -> str:
    """Return the text of a MAC address that `number_of` made a number."""
    return number.to_bytes(6).hex(":")


def replay(log_dir: Path) -> Replay:
    """Find the newest record of each device in the journal of `log_dir`.

    Raises:
        OSError: a file of it cannot be read.
    """
    result = Replay()
    for number, (path, descriptor) in enumerate(_open_files(log_dir, _files_to_read)):
        result._descriptors.append(descriptor)
        result.marker_end = None
        _read_file(descriptor, number, result)
        if path.name != CURRENT_NAME:
            result.marker_end = None
    return result


def history(log_dir: Path, mac: str) -> Iterator[dict[str, object]]:
    """Yield the records of one device, the oldest first, from all files that are kept."""
    needle = f'"{mac}"'.encode("ascii")
    for _, descriptor in _open_files(log_dir, journal_files):
        with open(descriptor, "rb") as file:
            for line in _lines_of(file):
                if needle not in line:
                    continue
                try:
                    fields = parse_fields(line)
                except BadRecord:
                    continue
                if fields.get("mac") == mac:
                    yield fields


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file that are not too long to be records."""
    is_rest = False
    while part := file.readline(_MAX_LINE_BYTES):
        is_whole = part.endswith(b"\n") or len(part) < _MAX_LINE_BYTES
        if is_whole and not is_rest:
            yield part
        is_rest = not is_whole


def _open_files(log_dir: Path, choose: Callable[[Path], list[Path]]) -> list[tuple[Path, int]]:
    """Open the files to read; anew if a running server rotates them meanwhile."""
    while True:
        there = journal_files(log_dir)
        opened: list[tuple[Path, int]] = []
        try:
            for path in choose(log_dir):
                opened.append((path, open_regular(path)))
            if journal_files(log_dir) == there:
                return opened
        except OSError as problem:
            # Pruned between the look and the opening, unless it is a link to nowhere.
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
    # Read, not mapped: a mapped file counts as memory of this process.
    rest = b""
    with open(open_regular(path), "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            block = rest + block
            if _marker_in(block):
                return True
            rest = block[-_LINE_BYTES:]
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


def _read_file(descriptor: int, file_number: int, result: Replay) -> None:
    base, rest = 0, b""
    while block := os.read(descriptor, _BLOCK_BYTES):
        block = rest + block
        end = block.rfind(b"\n") + 1
        _read_lines(block[:end], file_number << _FILE_SHIFT | base, result)
        base += end
        rest = block[end:]
        if len(rest) > _BLOCK_BYTES:
            # No line is so long; a NUL block may be. One byte stands for it until the line ends.
            base += len(rest) - 1
            rest = b"\0"
    if rest:
        # The journal ends each line; a last one without its end was torn, or left by an editor.
        _read_other_line(rest, file_number << _FILE_SHIFT | base, result)


def _read_lines(block: bytes, location: int, result: Replay) -> None:
    """Note all records in a block of whole lines that begins at `location`."""
    expected = 0
    locations = result.locations
    for match in COMMON_LINE.finditer(block):
        start, stop = match.span()
        if stop - start > _MAX_LINE_BYTES:
            continue
        if start != expected:
            _read_other_lines(block, expected, start, location, result)
        locations[int(match[1].replace(b":", b""), 16)] = location + start
        expected = stop + 1
    _read_other_lines(block, expected, len(block), location, result)


def _read_other_lines(block: bytes, start: int, stop: int, location: int, result: Replay) -> None:
    while start < stop:
        end = block.find(b"\n", start, stop)
        end = stop if end < 0 else end
        _read_other_line(block[start:end], location + start, result)
        start = end + 1


def _read_other_line(line: bytes, location: int, result: Replay) -> None:
    """Note a line that is not of the common form: a marker, a record made by hand, or a bad one."""
    if len(line) > _MAX_LINE_BYTES:
        result.bad_lines += 1
        return
    if is_marker(line):
        result.marker_end = (location & _OFFSET_MASK) + len(line) + 1
        return
    try:
        mac, _ = parse_record(line)
    except BadRecord:
        result.bad_lines += _claims_a_device(line)
        return
    result.locations[number_of(mac)] = location


def _claims_a_device(line: bytes) -> bool:
    """Say whether a line is bad, and not just a kind of record that this version does not know."""
    try:
        fields = parse_fields(line)
    except BadRecord:
        return True
    return "mac" in fields or "event" not in fields


def _line_at(descriptor: int, offset: int) -> bytes:
    line = b""
    while True:
        part = os.pread(descriptor, _LINE_BYTES, offset + len(line))
        end = part.find(b"\n")
        if end >= 0 or not part:
            return line + (part[:end] if end >= 0 else part)
        line += part
