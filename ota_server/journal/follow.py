"""The journal as it grows: its records in the order of lines, from a position on. I/O.

A file of it may be rotated, moved away, cut or deleted meanwhile. What is read of a file is gone on
with after the next file has begun; who stopped goes on where it stood, or is told that it cannot.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from ota_server.journal.files import CURRENT_NAME, numbered_files
from ota_server.journal.record import BadRecord, parse_fields
from ota_server.journal.scan import MAX_LINE_BYTES
from ota_server.system.files import open_regular

# A few milliseconds of parsing: whoever follows may do something else in between.
_BLOCK_BYTES = 4 * MAX_LINE_BYTES
# Tells a file from another one that got its inode, and from what was written over it.
_TAIL_BYTES = 256
# A file is rotated between the look at the folder and its opening: seldom, and never so often.
_MOST_TRIES = 100


class Position(NamedTuple):
    """Where somebody stands in the journal: a file, and the byte where its next line begins.

    Attributes:
        number: of the file; that of the current one is what it gets when it is rotated.
        tail_crc: CRC-32 of the last bytes before `offset`.
    """

    device: int
    inode: int
    number: int
    offset: int
    tail_crc: int


class Follower:
    """Reads the journal of one directory. Used by one thread.

    Lines that a snapshot repeats are handed on like all others; their event is `device`.

    Attributes:
        losses: how often the file that it stood in was gone or cut before it was read to its end.
        bad_lines: how many lines were no records and were skipped. Kept for metrics: nothing shows
            it yet.
    """

    def __init__(self, log_dir: Path, position: Position | None = None) -> None:
        """Go on from a position; None: from the oldest line that is kept."""
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
        """Close the file that it stands in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def position(self) -> Position | None:
        """Where it stands: after the last record that was returned. None: nowhere yet."""
        if self._identity is None:
            return self._sought
        return Position(*self._identity, self._number, self._offset, crc32(self._tail))

    def read(self) -> list[dict[str, Any]]:
        """Return the next records; none: at this moment there are no more.

        Raises:
            OSError: the journal cannot be read.
        """
        while self._fd >= 0 or self._open_next():
            # Asked before the last read: what is written until then is read by that.
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
        """Return the whole lines of the next block; None: there is no such line yet."""
        self._look_for_cut()
        block = os.pread(self._fd, _BLOCK_BYTES, self._offset)
        end = block.rfind(b"\n") + 1
        if not end:
            if len(block) < _BLOCK_BYTES:
                return None
            # No record is so long; a block of NULs may be. It is one bad line, up to its end.
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
        """Begin the file anew where it is not the one any more that was read."""
        length = len(self._tail)
        if os.pread(self._fd, length, self._offset - length) != self._tail:
            self.losses += 1
            self._offset, self._tail, self._is_in_long_line = 0, b"", False

    def _is_finished(self) -> bool:
        """Say whether nothing is written to the open file any more: another one has its name."""
        try:
            current = os.stat(self._dir / CURRENT_NAME)
        except FileNotFoundError:
            # It was moved away, and the server goes on writing to it until it notices.
            return self._newest_number() > self._number_now()
        return (current.st_dev, current.st_ino) != self._identity

    def _newest_number(self) -> int:
        return max((number for number, _ in numbered_files(self._dir)), default=self._number)

    def _number_now(self) -> int:
        """Return the number of the open file: another one where older files were taken away."""
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
        """Open the file that follows the one that was read; False where there is none yet."""
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
            # Rotated meanwhile: the one that has the name now is not the one that follows.
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
        """Return the file of the position to go on from; where it is gone, what follows it."""
        assert self._sought is not None
        for file in files:
            if file[1] == self._sought[:2]:
                return file
        return self._following(files)

    def _following(
        self, files: list[tuple[int, tuple[int, int], Path]]
    ) -> tuple[int, tuple[int, int], Path] | None:
        # One that was moved away leaves its number to the next one; one that is read is left out.
        others = [file for file in files if file[1] != self._identity]
        for file in others:
            if file[0] >= self._number:
                return file
        # Older files were taken away, and numbers began anew: nothing is to be read twice.
        is_current_there = bool(others) and others[-1][2].name == CURRENT_NAME
        return others[-1] if is_current_there else None
