"""The lines of one device in the journal, found by their bytes: from its end back, or forward. I/O.

A journal has hundreds of megabytes, and one device a few lines in it. To look for bytes in a whole
block takes a tenth of the time of a look at each line, and the newest lines are at the end.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.journal.files import numbered_files
from ota_server.journal.record import BadRecord, parse_fields
from ota_server.journal.record_fields import key_in, whose
from ota_server.journal.scan import MAX_LINE_BYTES
from ota_server.system.files import open_regular

# The first blocks are small: most often the newest lines are wanted, and nothing else. None holds
# up other threads for more than some milliseconds.
_FIRST_BYTES, _MOST_BYTES = 256 * 1024, 4 * 1024 * 1024
# A file may be rotated between listing the folder and opening it, but never this often.
_MOST_TRIES = 100


class LinePlace(NamedTuple):
    """Where a line begins: a file, and the byte in it.

    Attributes:
        number: of the file; for the current file the one that it gets when it is rotated.
    """

    number: int
    offset: int


def newest_first(
    log_dir: Path, key: str, before: LinePlace | None = None, with_bytes: bytes = b""
) -> Iterator[tuple[LinePlace, dict[str, Any]]]:
    """Yield the records of a device with their places, the newest first.

    Args:
        before: those before this place; None: all.
        with_bytes: only those whose lines hold this too; the others are not parsed.

    Raises:
        OSError: a file of the journal cannot be read.
    """
    needle = whose(key).encode("ascii")
    for place, line in _lines_back(log_dir, [needle], before):
        if with_bytes not in line:
            continue
        try:
            fields = parse_fields(line)
        except BadRecord:
            continue
        if key_in(fields) == key:
            yield place, fields


def oldest_first(
    log_dir: Path, key: str, once: bytes = b""
) -> Iterator[tuple[LinePlace, dict[str, Any]]]:
    """Yield the records of a device with their places, the oldest first.

    Args:
        once: bytes; the first record with these is yielded too, whosever it is.

    Raises:
        OSError: a file of the journal cannot be read.
    """
    mine = whose(key).encode("ascii")
    needles = [mine, once] if once else [mine]
    with ExitStack() as files:
        for number, descriptor in _opened(log_dir, files):
            for offset, line in _lines_on(descriptor, needles):
                if mine not in line and len(needles) == 1:
                    continue  # the same block has another one
                try:
                    fields = parse_fields(line)
                except BadRecord:
                    continue
                if once in line:
                    # To look for it takes as long as to look for the device.
                    del needles[1:]
                if mine not in line or key_in(fields) == key:
                    yield LinePlace(number, offset), fields


def _opened(log_dir: Path, files: ExitStack) -> list[tuple[int, int]]:
    """Open the files of the journal in order; return their numbers and descriptors."""
    for tries in range(_MOST_TRIES):
        there = numbered_files(log_dir)
        opened: list[tuple[int, int]] = []
        for number, path in there:
            with suppress(FileNotFoundError):  # a running server deletes old files
                opened.append((number, open_regular(path)))
                files.callback(os.close, opened[-1][1])
        if numbered_files(log_dir) == there or tries == _MOST_TRIES - 1:
            break
        files.close()
    return opened


def _lines_on(descriptor: int, needles: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that hold any of some bytes, the first one first.

    Args:
        needles: may become fewer meanwhile.
    """
    rest, at = b"", 0
    while part := os.pread(descriptor, _MOST_BYTES, at + len(rest)):
        block = rest + part
        end = block.rfind(b"\n") + 1
        yield from ((at + offset, line) for offset, line in _lines_with(block[:end], needles))
        # A line that is too long is not a record; the end of it stands for all.
        rest = block[end:][-MAX_LINE_BYTES:]
        at += len(block) - len(rest)
    yield from ((at + offset, line) for offset, line in _lines_with(rest, needles))


def objects_back(
    path: Path, needle: bytes, before: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a file of lines that hold some bytes, the last one first.

    Each with the byte where its line begins. Lines that are not objects are left out.

    Args:
        before: those whose lines begin before this byte; None: all.

    Raises:
        OSError: it cannot be read; it is no error that it is not there.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return
    with open(descriptor, "rb", buffering=0):
        size = os.fstat(descriptor).st_size
        stop = size if before is None else min(before, size)
        for offset, line in _lines_of(descriptor, stop, [needle], _FIRST_BYTES):
            try:
                yield offset, parse_fields(line)
            except BadRecord:
                continue


def _lines_back(
    log_dir: Path, needles: Sequence[bytes], before: LinePlace | None
) -> Iterator[tuple[LinePlace, bytes]]:
    """Yield the lines that hold any of some bytes, the last one first."""
    files = numbered_files(log_dir)
    size = _FIRST_BYTES
    for tries in range(_MOST_TRIES):
        try:
            current = open_regular(files[-1][1]) if files else -1
        except FileNotFoundError:
            current = -1
        again = numbered_files(log_dir)
        if again == files or tries == _MOST_TRIES - 1:
            break
        if current >= 0:
            os.close(current)
        files = again
    for place, (number, path) in enumerate(reversed(files)):
        try:
            descriptor = current if place == 0 else open_regular(path)
        except FileNotFoundError:
            return  # a running server deletes old files, and the older ones before
        if descriptor < 0:
            continue
        with open(descriptor, "rb", buffering=0):
            stop = os.fstat(descriptor).st_size
            if before is not None and number >= before.number:
                stop = min(before.offset, stop) if number == before.number else 0
            for offset, line in _lines_of(descriptor, stop, needles, size):
                yield LinePlace(number, offset), line
        size = _MOST_BYTES


def _lines_of(
    descriptor: int, stop: int, needles: Sequence[bytes], size: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that begin before `stop`, the last one first."""
    begun = 0  # bytes after `stop` that belong to the line in which the next block ends
    while stop > 0:
        start = max(0, stop - size)
        # Read again rather than kept and joined: to copy blocks takes as long as to search them.
        block = os.pread(descriptor, stop - start + begun, start)
        # The line in which the block begins is a part of the block before.
        cut = block.find(b"\n") + 1 if start else 0
        yield from ((start + at, line) for at, line in reversed(_lines_with(block, needles, cut)))
        begun = min(cut, MAX_LINE_BYTES)
        stop, size = start, min(size * 2, _MOST_BYTES)


def _lines_with(block: bytes, needles: Sequence[bytes], cut: int = 0) -> list[tuple[int, bytes]]:
    """Return the lines of a block from `cut` on that hold any of some bytes, with their places."""
    found: dict[int, bytes] = {}
    for needle in needles:
        at = block.find(needle, cut)
        while at >= 0:
            start = block.rfind(b"\n", max(cut - 1, 0), at) + 1
            end = block.find(b"\n", at)
            end = len(block) if end < 0 else end
            if end - start < MAX_LINE_BYTES:
                found[start] = block[start:end]
            at = block.find(needle, end)
    return sorted(found.items())
