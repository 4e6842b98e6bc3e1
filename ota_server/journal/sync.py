"""Bringing the journal to the disk itself, for a power cut. Holds up nobody who writes."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

log = logging.getLogger(__name__)


class DiskSync:
    """What of the journal is on the disk, and what is not yet. Safe for use by many threads.

    Lock order: this one's before the write lock.
    """

    def __init__(
        self, path: Path, write_lock: Lock, current: Callable[[], tuple[int, int]]
    ) -> None:
        """Take the current file.

        Args:
            current: returns its descriptor, below 0 where it is not open, and its size in bytes;
                called under `write_lock`.
        """
        self._path = path
        self._current = current
        self._write_lock = write_lock
        self._lock = Lock()
        self._synced_size = -1
        self._fails = False
        self._unsynced: list[int] = []  # files that are written no more
        self._is_folder_synced = True

    def begin_file(self) -> None:
        """Note that another file is the current one: neither it nor its name is on the disk."""
        self._synced_size = -1
        self._is_folder_synced = False

    def end_file(self, descriptor: int) -> None:
        """Take a file that is written no more: it is synced with the next one, then closed."""
        self._unsynced.append(descriptor)

    def sync_at_once(self, descriptor: int, size: int) -> None:
        """Bring the current file to the disk. The caller holds the write lock.

        Raises:
            OSError: that failed.
        """
        os.fsync(descriptor)
        self._sync_folder()
        self._synced_size = size

    def sync(self) -> bool:
        """Bring all files to the disk that are not there; return whether they are there now."""
        # One at a time: whoever comes second must not believe that it is done while it is going on.
        with self._lock:
            with self._write_lock:
                descriptors, self._unsynced = self._unsynced, []
                descriptor, size = self._current()
                if descriptor >= 0 and self._synced_size != size:
                    descriptors.append(os.dup(descriptor))
                    self._synced_size = size
            are_synced = [self._sync_and_close(each) for each in descriptors]
            self._sync_folder()
            if not all(are_synced):
                self._synced_size = -1
            elif are_synced:
                self._fails = False
            return all(are_synced)

    def close(self) -> None:
        """Close what was not synced. The caller holds the write lock."""
        for descriptor in self._unsynced:
            os.close(descriptor)
        self._unsynced.clear()

    def _sync_folder(self) -> None:
        """Bring the name of a file that was made to the disk; what it holds is nothing without."""
        if self._is_folder_synced:
            return
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # taken away with its files, which is noticed soon
        # Before it is done: a file that is made meanwhile needs it again.
        self._is_folder_synced = True
        self._sync_and_close(folder)

    def _sync_and_close(self, descriptor: int) -> bool:
        try:
            os.fsync(descriptor)
        except OSError as problem:
            if not self._fails:
                log.error("%s cannot be brought to the disk: %s", self._path, problem)
            self._fails = True
            return False
        finally:
            os.close(descriptor)
        return True
