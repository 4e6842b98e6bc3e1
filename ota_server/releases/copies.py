"""Private copies of images: files without a name, so that nobody else can write to their bytes.

`sendfile` hands pages of a file to the network, not their content, and those change on their way
when somebody writes to the file (docs/adr/0003). A private copy is what it can be used on.
"""

import logging
import os
import tempfile
from pathlib import Path
from threading import Lock

log = logging.getLogger(__name__)

# On the disk, for all images that are being served. What goes beyond it is read and sent, slower.
COPY_BYTES = 1024 * 1024 * 1024


class PrivateCopy:
    """The bytes of one image. Closed when nobody refers to it any more."""

    def __init__(self, copies: "Copies", size: int) -> None:
        """Make an empty file with room for `size` bytes.

        Raises:
            OSError: there is no room, or the folder cannot be written.
        """
        self._copies = copies
        self._size = 0
        # Without a name from the start where the file system can, else unlinked at once.
        self._file = tempfile.TemporaryFile(dir=copies.folder, buffering=0)  # noqa: SIM115
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
    """Makes private copies in a folder, as long as they take no more than their budget."""

    def __init__(self, folder: Path, budget_bytes: int = COPY_BYTES) -> None:
        self.folder = folder
        self._lock = Lock()
        self._left_bytes = budget_bytes

    def begin(self, size: int) -> PrivateCopy | None:
        """Return an empty copy for an image of `size` bytes; None where there is no room for it."""
        try:
            status = os.statvfs(self.folder)
            # Never the last half of a disk that the journal needs too.
            if size > status.f_bavail * status.f_frsize // 2:
                return None
            return PrivateCopy(self, size)
        except OSError as problem:
            log.debug("no private copy of an image: %s", problem)
            return None

    def reserve(self, size: int) -> None:
        """Take from the budget.

        Raises:
            OSError: so much is not left.
        """
        with self._lock:
            if size > self._left_bytes:
                raise OSError(f"{size} bytes are beyond the budget for copies")
            self._left_bytes -= size

    def give_back(self, size: int) -> None:
        """Give back what a copy took."""
        with self._lock:
            self._left_bytes += size
