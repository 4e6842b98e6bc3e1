"""An image: its digests, its open file, and a private copy of its bytes.

`sendfile` hands pages of a file to the network, not their content, and those change on the way if
somebody writes to the file (docs/adr/0003). So it is used only on a private copy: a file without a
name, to which nobody else can write.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ota_server.model.archive import ArchivedFile, files_in
from ota_server.model.image_header import HEAD_BYTES, read_header
from ota_server.model.version import entity_tag
from ota_server.releases.reported_hashes import ReportedHashes
from ota_server.system.files import Stamp, is_of, stamp_of
from ota_server.system.wished import do_without

_CHUNK_BYTES = 1024 * 1024
# On the disk, for all images that are being served. Others are read and sent, which is slower.
COPY_BYTES = 1024 * 1024 * 1024


class Digests(NamedTuple):
    """The digests of an image, in hex.

    Attributes:
        reported: others that devices report of it (`reported_hashes`).
    """

    sha256: str
    md5: str
    sha1: str
    reported: tuple[str, ...] = ()


def digest(descriptor: int, take: Callable[[bytes], object]) -> Digests:
    """Hash an open file, read once from its beginning; pass each piece of it to `take`.

    Raises:
        OSError: it cannot be read.
    """
    # MD5 and SHA-1 are there for clients that compare nothing else.
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    sha1 = hashlib.sha1(usedforsecurity=False)
    reported = ReportedHashes(lambda start, length: os.pread(descriptor, length, start))
    offset = 0
    while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
        sha256.update(chunk)
        md5.update(chunk)
        sha1.update(chunk)
        reported.take(chunk)
        offset += len(chunk)
        take(chunk)
    return Digests(sha256.hexdigest(), md5.hexdigest(), sha1.hexdigest(), reported.result())


def _file_without_name(folder: Path) -> Any:
    """Make a file that nobody else can open: without a name, or unlinked at once."""
    try:
        flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_TMPFILE
        return FileIO(os.open(folder, flags, 0o600), "r+")
    except (OSError, AttributeError):  # not every file system has it, nor every system
        import tempfile  # only here: it takes 1.4 MB with what it imports

        return tempfile.TemporaryFile(dir=folder, buffering=0)


class PrivateCopy:
    """The bytes of one image. Closed when the last reference to it is gone.

    Attributes:
        is_unsendable: the system refused to send it with sendfile.
    """

    def __init__(self, copies: "Copies", size: int) -> None:
        """Make an empty file with room for `size` bytes.

        Raises:
            OSError: there is no room, or the folder cannot be written.
        """
        self.is_unsendable = False
        self._copies = copies
        self._size = 0
        self._file = _file_without_name(copies.folder)
        self.descriptor = self._file.fileno()
        copies.reserve(size)
        self._size = size

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: the disk is full.
        """
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
            self._copies.give_back(self._size)


class Copies:
    """Makes private copies in a folder, within a budget."""

    def __init__(self, folder: Path, budget_bytes: int = COPY_BYTES) -> None:
        self.folder = folder
        self._lock = Lock()
        self._left_bytes = budget_bytes

    def begin(self, size: int) -> PrivateCopy | None:
        """Return an empty copy for an image of `size` bytes, or None if there is no room for it."""
        try:
            status = os.statvfs(self.folder)
            # Never more than half of what is free: the journal needs room too.
            if size > status.f_bavail * status.f_frsize // 2:
                return None
            return PrivateCopy(self, size)
        except OSError as problem:
            do_without("a private copy of an image", problem)
            return None

    def reserve(self, size: int) -> None:
        """Take from the budget.

        Raises:
            OSError: not so much is left.
        """
        with self._lock:
            if size > self._left_bytes:
                raise OSError(f"{size} bytes exceed the budget for copies")
            self._left_bytes -= size

    def give_back(self, size: int) -> None:
        """Give back what a copy took."""
        with self._lock:
            self._left_bytes += size


class Image:
    """An open image and what is known of its bytes. Closed when its last download ends.

    Attributes:
        copy: a private copy of the bytes; None: there was no room for it.
        hashes: by any of these a device can say that it runs it.
        is_withdrawn: its downloads end now.
    """

    def __init__(
        self,
        version: str,
        descriptor: int,
        stamp: Stamp,
        digests: Digests,
        copy: PrivateCopy | None,
    ) -> None:
        self.version = version
        self.descriptor = descriptor
        self.stamp = stamp
        self.copy = copy
        self.is_withdrawn = False
        self.sha256 = digests.sha256
        self.md5 = digests.md5
        self.sha1 = digests.sha1
        self.hashes = frozenset((digests.sha256, digests.md5, *digests.reported))
        self.size = stamp.size
        self.modified_seconds = stamp.modified_ns // 1_000_000_000
        self.etag = entity_tag(digests.sha256)
        self._links = os.fstat(descriptor).st_nlink

    @cached_property
    def files(self) -> dict[str, ArchivedFile]:
        """Where the files are that this is an archive of, by their paths; {}: it is not one."""
        return files_in(self.read, self.size)

    @cached_property
    def chip(self) -> str | None:
        """The chip that it is for, as it says itself; None: it does not say."""
        header = read_header(self.read(0, HEAD_BYTES))
        return None if header is None else header.chip

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer if the file was cut."""
        return os.pread(self.descriptor, length, offset)

    def is_unchanged(self) -> bool:
        """Return whether the file still holds the bytes that were hashed."""
        status = os.fstat(self.descriptor)
        if is_of(status, self.stamp):
            return True
        now = stamp_of(status)
        if now != self.stamp._replace(changed_ns=now.changed_ns):
            return False
        # Deleting, renaming and linking move the change time and no byte. But so may a copy over it
        # that keeps the time of a reproducible build, even with a link made after that: then only
        # the private copy is known to be whole.
        if status.st_nlink == 0:
            return True
        return self.copy is not None and status.st_nlink != self._links

    def __del__(self) -> None:
        os.close(self.descriptor)
