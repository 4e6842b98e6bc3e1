"""Reading the journal while it grows: its records in the order of lines, from a position on. I/O.

Meanwhile its files may be rotated, moved, cut or deleted. A file is read to its end also after the
next one has begun. A reader that stopped continues at its position; if that is gone, `losses` says
so.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from ota_server.journal.files import CURRENT_NAME, numbered_files
from ota_server.journal.record import BadRecord, parse_fields
from ota_server.journal.scan import MAX_LINE_BYTES
from ota_server.system.files import open_regular

# A few milliseconds of parsing, so that the reader can do something else in between.
_BLOCK_BYTES = 4 * MAX_LINE_BYTES
# So many last bytes show that this is still the same file with the same content.
_TAIL_BYTES = 256
# A file may be rotated between listing the folder and opening it, but never this often.
_MOST_TRIES = 100


class Position(NamedTuple):
    """A position in the journal: a file, and the byte where the next line to read begins.

    Attributes:
        number: of the file; for the current file the one that it gets when it is rotated.
        tail_crc: CRC-32 of the last bytes before `offset`.
    """

    device: int
    inode: int
    number: int
    offset: int
    tail_crc: int


def end_of(log_dir: Path) -> Position | None:
    """Return the position after the last whole line of the journal; None: there is no file yet.

    Raises:
        OSError: it cannot be read.
    """
    for number, path in reversed(numbered_files(log_dir)):
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            continue  # rotated meanwhile; an older position is good as well
        with open(descriptor, "rb", buffering=0):
            status = os.fstat(descriptor)
            start = max(0, status.st_size - MAX_LINE_BYTES)
            rest = os.pread(descriptor, MAX_LINE_BYTES, start)
            offset = start + rest.rfind(b"\n") + 1
            length = min(_TAIL_BYTES, offset)
            tail = os.pread(descriptor, length, offset - length)
            return Position(status.st_dev, status.st_ino, number, offset, crc32(tail))
    return None


class Follower:
    """Reads the journal of one directory. Used by one thread.

    Lines that a snapshot repeats are returned like all others; their event is `device`.

    Attributes:
        losses: how often its file was gone or cut before it was read to the end.
        bad_lines: how many lines were skipped because they were not records.
    """

    def __init__(self, log_dir: Path, position: Position | None = None) -> None:
        """Continue at a position, or begin with the oldest line that is kept."""
        self._dir = log_dir
        self.losses = 0
        self.bad_lines = 0
        self._fd = -1
        self._number = 0 if position is None else position.number
        self._offset = 0
        self._tail = b""
        self._identity: tuple[int, int] | None = None
        self._is_in_long_line = False
        self._sought = position

    def close(self) -> None:
        """Close the open file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def position(self) -> Position | None:
        """The position after the last record that was returned; None before the first `read`."""
        if self._identity is None:
            return self._sought
        return Position(*self._identity, self._number, self._offset, crc32(self._tail))

    def read(self) -> list[dict[str, Any]]:
        """Return the next records; an empty list if there are no more at this moment.

        Raises:
            OSError: the journal cannot be read.
        """
        while self._fd >= 0 or self._open_next():
            # Asked before the last read, so that this read gets all that was written.
            is_finished = self._is_finished()
            lines = self._next_lines()
            if lines is None:
                if not is_finished:
                    return []
                self._number = self._number_now()
                self.close()
            elif records := self._parsed(lines):
                return records
        return []

    def _parsed(self, lines: list[bytes]) -> list[dict[str, Any]]:
        records = []
        for line in lines:
            try:
                records.append(parse_fields(line))
            except BadRecord:
                self.bad_lines += 1
        return records

    def _next_lines(self) -> list[bytes] | None:
        """Return the whole lines of the next block; None if there is no whole line yet."""
        self._look_for_cut()
        block = os.pread(self._fd, _BLOCK_BYTES, self._offset)
        end = block.rfind(b"\n") + 1
        if not end:
            if len(block) < _BLOCK_BYTES:
                return None
            # No record is so long; a block of NULs may be. It counts as one bad line.
            self._is_in_long_line = True
            end = len(block)
        self._take(block[:end])
        lines = block[:end].split(b"\n")
        rest = lines.pop()
        if rest or not self._is_in_long_line:
            return [line for line in lines if self._is_short(line)]
        self._is_in_long_line = False
        self.bad_lines += 1
        return [line for line in lines[1:] if self._is_short(line)]

    def _is_short(self, line: bytes) -> bool:
        self.bad_lines += len(line) > MAX_LINE_BYTES
        return len(line) <= MAX_LINE_BYTES

    def _take(self, content: bytes) -> None:
        self._offset += len(content)
        self._tail = (self._tail + content[-_TAIL_BYTES:])[-_TAIL_BYTES:]

    def _look_for_cut(self) -> None:
        """Begin at the start again if the bytes that were read are no longer there."""
        length = len(self._tail)
        if os.pread(self._fd, length, self._offset - length) != self._tail:
            self.losses += 1
            self._offset, self._tail, self._is_in_long_line = 0, b"", False

    def _is_finished(self) -> bool:
        """Return whether the open file is complete: another file is the current one now."""
        try:
            current = os.stat(self._dir / CURRENT_NAME)
        except FileNotFoundError:
            # It was moved, and the server writes to it until it notices.
            return self._newest_number() > self._number_now()
        return (current.st_dev, current.st_ino) != self._identity

    def _newest_number(self) -> int:
        return max((number for number, _ in numbered_files(self._dir)), default=self._number)

    def _number_now(self) -> int:
        """Return the number of the open file, which changes if older files are removed."""
        return next(
            (number for number, identity, _ in self._files() if identity == self._identity),
            self._number,
        )

    def _files(self) -> list[tuple[int, tuple[int, int], Path]]:
        files = []
        for number, path in numbered_files(self._dir):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # rotated or deleted between two looks
            files.append((number, (status.st_dev, status.st_ino), path))
        return files

    def _open_next(self) -> bool:
        """Open the file after the one that was read; return False if it does not exist yet."""
        for _ in range(_MOST_TRIES):
            files = self._files()
            chosen = self._sought_among(files) if self._sought else self._following(files)
            if chosen is None:
                return False
            number, identity, path = chosen
            try:
                descriptor = open_regular(path)
            except FileNotFoundError:
                continue
            status = os.fstat(descriptor)
            # If it differs, the file was rotated meanwhile and another one has its name.
            if (status.st_dev, status.st_ino) == identity:
                return self._begin(descriptor, number, identity)
            os.close(descriptor)
        return False

    def _begin(self, descriptor: int, number: int, identity: tuple[int, int]) -> bool:
        sought, self._sought = self._sought, None
        self._fd, self._number, self._identity = descriptor, number, identity
        self._offset, self._tail, self._is_in_long_line = 0, b"", False
        if sought is None:
            return True
        length = min(_TAIL_BYTES, sought.offset)
        tail = os.pread(descriptor, length, sought.offset - length)
        if (sought.device, sought.inode) == identity and crc32(tail) == sought.tail_crc:
            self._offset, self._tail = sought.offset, tail
        else:
            self.losses += 1
        return True

    def _sought_among(
        self, files: list[tuple[int, tuple[int, int], Path]]
    ) -> tuple[int, tuple[int, int], Path] | None:
        """Return the file of the position to continue at; if it is gone, the one after it."""
        assert self._sought is not None
        for file in files:
            if file[1] == self._sought[:2]:
                return file
        return self._following(files)

    def _following(
        self, files: list[tuple[int, tuple[int, int], Path]]
    ) -> tuple[int, tuple[int, int], Path] | None:
        # If the file that is open was moved, the next one has its number: so `>=`, without it.
        others = [file for file in files if file[1] != self._identity]
        for file in others:
            if file[0] >= self._number:
                return file
        # Older files were removed and numbers begin at 1 again: read the current file, once.
        is_current_there = bool(others) and others[-1][2].name == CURRENT_NAME
        return others[-1] if is_current_there else None
