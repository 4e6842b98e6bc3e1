"""Archives: the image of a release of several files, such as one for MicroPython. Pure.

It is a plain tar file, since a person can look into that, and make one by hand. Devices get pieces
of it, so that one SHA-256 stands for all files of a release.
"""

from collections.abc import Callable
from typing import NamedTuple

from ota_server.model.parts import MAX_FILES, is_file_path

_BLOCK_BYTES = 512
_MAGIC, _MAGIC_AT = b"ustar", 257
_TYPE_AT = 156
_FILE_TYPES, _FOLDER_TYPE = (b"0", b"\0"), b"5"
# Folders, which an archive that was made by hand also lists.
_MOST_ENTRIES = 4 * MAX_FILES


class ArchivedFile(NamedTuple):
    """Where a file is in an archive, in bytes.

    The entries of all files that are not empty cover the whole archive: each from its `first` byte
    up to `end`.
    """

    start: int
    stop: int
    first: int
    end: int


def is_archive(head: bytes) -> bool:
    """Return whether an image that begins so is an archive."""
    return head.startswith(_MAGIC, _MAGIC_AT)


def files_in(read: Callable[[int, int], bytes], size: int) -> dict[str, ArchivedFile]:
    """Return where the files are in an image, by their paths; {}: it is not an archive of files.

    Args:
        read: returns so many bytes (the second) from an offset (the first).
        size: of the image, in bytes.
    """
    found: dict[str, ArchivedFile] = {}
    at = first = 0
    for _ in range(_MOST_ENTRIES):
        head = read(at, _BLOCK_BYTES)
        if len(head) < _BLOCK_BYTES or not head.strip(b"\0"):
            break
        kind, length = head[_TYPE_AT : _TYPE_AT + 1], _octal(head[124:136])
        start, path = at + _BLOCK_BYTES, _path(head)
        is_file = kind in _FILE_TYPES and path is not None
        if length is None or not is_archive(head) or not (is_file or kind == _FOLDER_TYPE):
            return {}  # an image of another kind, or a link
        at = start + -(-length // _BLOCK_BYTES) * _BLOCK_BYTES
        if start + length > size or path in found:
            return {}
        if is_file:
            assert path is not None
            found[path] = ArchivedFile(start, start + length, first, at)
            first = at if length else first
    last = next((path for path in reversed(found) if found[path].start < found[path].stop), None)
    if last is not None:
        found[last] = found[last]._replace(end=size)
    return found


def _octal(field: bytes) -> int | None:
    text = field.rstrip(b" \0")
    return int(text, 8) if text.isdigit() and not text.strip(b"01234567") else None


def _path(head: bytes) -> str | None:
    """Return the path in the head of an entry; None if no file of a release can have it."""
    path = head[:100].partition(b"\0")[0].decode("latin-1").removeprefix("./")
    return path if is_file_path(path) and not head[345:500].strip(b"\0") else None
