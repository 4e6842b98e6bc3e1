"""Scanning a file of the journal: which line is the newest of each device. Pure.

There are two ways. Bytes with a valid seal are as a server wrote them, so only the MAC of each line
is read. All other lines are matched in full: a line that somebody has broken with an editor must
not hide an older good one.
"""

import binascii
import re
import struct
from collections.abc import Sequence
from itertools import accumulate, count
from operator import add, itemgetter
from zlib import crc32

from ota_server.journal.record import (
    COMMON_LINE,
    SEALED,
    BadRecord,
    Seal,
    is_marker,
    parse_fields,
    parse_record,
    parse_seal,
)
from ota_server.journal.record_fields import key_in
from ota_server.model.identity import KeyNames, number_of

# Ten times the longest record; no server wrote a longer line.
MAX_LINE_BYTES = 64 * 1024
# Many times the distance between two seals. A file without seals is scanned in such pieces.
_MAX_HELD_BYTES = 16 * 1024 * 1024
# A location is one integer, with the file number in its high bits and the offset in its low bits:
# half the memory of a pair.
FILE_SHIFT = 48
OFFSET_MASK = (1 << FILE_SHIFT) - 1
# How a record begins; 100 bytes are longer than that, but too short for two of them.
_HEAD = re.compile(
    rb'\{"time":".{24}","event":"(?!forget")[a-z]+","product":"","mac":"((?:[0-9a-f]{2}:){5}[0-9a-f]{2})"'
)
_head_of = itemgetter(slice(100))
# The same of a line of any product and identity; the longest is within 200 bytes.
_ANY_HEAD = re.compile(
    rb'\{"time":".{24}","event":"(?!forget")[a-z]+"'
    rb',"product":"([a-z0-9_\-]*)","(mac|id)":"((?:[^"\\]|\\.)+)"'
)
_ESCAPED = re.compile(rb"\\(.)")


class ScanResult:
    """What was found up to now.

    Attributes:
        locations: where the newest line of each device is, by the number of its key.
        names: which keys these are.
        bad_lines: how many lines were skipped because they were not records.
        marker_end: the byte where the last snapshot in the newest file ends, None without one.
    """

    def __init__(self) -> None:
        self.locations: dict[int, int] = {}
        self.names = KeyNames()
        self.bad_lines = 0
        self.marker_end: int | None = None


class FileScan:
    """Takes one file in pieces of any size, and adds what it holds to `found`."""

    def __init__(self, found: ScanResult, file_number: int) -> None:
        found.marker_end = None
        self._found = found
        self._file = file_number << FILE_SHIFT
        # What is not scanned yet. It begins at byte `_base` of the file, with a line.
        self._held = bytearray()
        self._base = 0
        self._searched = 0
        self._bad_until = 0

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the file."""
        held = self._held
        held += block
        while (at := held.find(SEALED, self._searched)) >= 0:
            end = held.find(b"\n", at) + 1
            if not end:
                self._searched = at
                break
            self._scan_segment(held.rfind(b"\n", 0, at) + 1, end)
            self._drop(end)
        else:
            self._searched = max(0, len(held) - len(SEALED))
        if len(held) > _MAX_HELD_BYTES:
            self._scan_without_seal()

    def end(self) -> Seal | None:
        """Take the end of the file; return the seal that its last good lines could get.

        None if its last line has no newline.
        """
        rest = bytes(self._held)
        stop = rest.rfind(b"\n") + 1
        self._scan_strictly(0, stop)
        if stop < len(rest):
            # The journal ends each line with one; this line was torn, or an editor left it so.
            self._scan_line(rest[stop:], self._base + stop)
            return None
        start = max(self._base, self._bad_until)
        return Seal(start, crc32(rest[start - self._base :]))

    def _drop(self, length: int) -> None:
        del self._held[:length]
        self._base += length
        self._searched = 0

    def _scan_without_seal(self) -> None:
        stop = self._held.rfind(b"\n") + 1
        if stop:
            self._scan_strictly(0, stop)
            self._drop(stop)
        else:
            # No record is so long; a block of NULs may be. One byte stands for it until it ends.
            self._drop(len(self._held) - 1)
            self._held[0] = 0

    def _scan_segment(self, stop: int, end: int) -> None:
        """Scan what is held up to `end`; its last line, from `stop` on, seems to hold a seal."""
        line = bytes(self._held[stop : end - 1])
        begin = self._sealed_from(stop, parse_seal(line))
        self._scan_strictly(0, begin)
        if not self._scan_sealed(begin, stop):
            self._scan_strictly(begin, stop)
        self._scan_line(line, self._base + stop)

    def _sealed_from(self, stop: int, seal: Seal | None) -> int:
        """Return where the bytes that `seal` covers begin; `stop` if it is not valid."""
        begin = stop if seal is None else seal.start - self._base
        if not 0 <= begin < stop or (begin and self._held[begin - 1] != ord("\n")):
            return stop
        with memoryview(self._held) as held, held[begin:stop] as segment:
            is_whole = seal is not None and crc32(segment) == seal.crc
        return begin if is_whole else stop

    def _scan_sealed(self, start: int, stop: int) -> bool:
        """Take the lines of a sealed segment; unless all are records, take none, return False."""
        lines = bytes(self._held[start:stop]).split(b"\n")
        lines.pop()
        # So few bytes hold at most one beginning: as many of them as lines means one in each.
        macs = _HEAD.findall(b"\n".join(map(_head_of, lines)))
        if len(macs) == len(lines):
            numbers: Sequence[int] | None = _numbers(macs)
        else:
            numbers = self._numbers_of_any(lines)
        if numbers is None:
            return False
        starts = accumulate(map(len, lines), initial=self._file | self._base + start)
        locations = map(add, starts, count())  # the newlines
        self._found.locations.update(zip(numbers, locations, strict=False))
        return True

    def _numbers_of_any(self, lines: list[bytes]) -> list[int] | None:
        """Return the numbers of the keys in lines of any products; None if one is no record."""
        numbers, number_of = [], self._found.names.number_of
        for line in lines:
            head = _ANY_HEAD.match(line)
            if head is None:
                return None
            product, name, identity = (
                part.decode("latin-1") for part in (head[1], head[2], _ESCAPED.sub(rb"\1", head[3]))
            )
            key = key_in({"product": product, name: identity})
            if key is None:
                return None
            numbers.append(number_of(key))
        return numbers

    def _scan_strictly(self, start: int, stop: int) -> None:
        """Take all records in whole lines."""
        lines = bytes(self._held[start:stop])
        base = self._base + start
        expected = 0
        locations = self._found.locations
        for match in COMMON_LINE.finditer(lines):
            begin, end = match.span()
            if end - begin > MAX_LINE_BYTES:
                continue
            if begin != expected:
                self._scan_lines(lines[expected:begin], base + expected)
            locations[int(match[1].replace(b":", b""), 16)] = self._file | base + begin
            expected = end + 1
        self._scan_lines(lines[expected:], base + expected)

    def _scan_lines(self, lines: bytes, offset: int) -> None:
        start = 0
        while start < len(lines):
            end = lines.find(b"\n", start)
            self._scan_line(lines[start:end], offset + start)
            start = end + 1

    def _scan_line(self, line: bytes, offset: int) -> None:
        """Take a line of another form: a marker, a record that was edited, or a bad line."""
        end = offset + len(line) + 1
        found = self._found
        if len(line) > MAX_LINE_BYTES:
            found.bad_lines += 1
            self._bad_until = end
        elif is_marker(line):
            found.marker_end = end
        else:
            try:
                key, device = parse_record(line)
            except BadRecord:
                if _claims_a_device(line):
                    found.bad_lines += 1
                    self._bad_until = end
            else:
                if device is None:
                    found.locations.pop(number_of(key), None)
                else:
                    found.locations[found.names.number_of(key)] = self._file | offset


def _numbers(macs: list[bytes]) -> tuple[int, ...]:
    """Return MAC addresses as numbers, with few calls for all of them."""
    digits = b"0000".join([b"", *macs]).replace(b":", b"")
    return struct.unpack(f">{len(macs)}Q", binascii.unhexlify(digits))


def _claims_a_device(line: bytes) -> bool:
    """Return whether a line is bad, and not only a kind of record that is unknown here."""
    try:
        fields = parse_fields(line)
    except BadRecord:
        return True
    return "mac" in fields or "id" in fields or "event" not in fields
