"""Syncing the journal to the disk itself, in case of a power cut. Writers do not wait for it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from ota_server.system.new_files import sync_folder

log = logging.getLogger(__name__)


class DiskSync:
    """Which parts of the journal are on the disk. Safe for use by many threads.

    Lock order: its own lock before the write lock.
    """

    def __init__(
        self, path: Path, write_lock: Lock, current: Callable[[], tuple[int, int]]
    ) -> None:
        """Take the path of the current file.

        Args:
            current: returns its descriptor, below 0 if it is not open, and its size in bytes;
                called under `write_lock`.
        """
        self._path = path
        self._current = current
        self._write_lock = write_lock
        self._lock = Lock()
        self._synced_size = -1
        self._fails = False
        self._unsynced: list[int] = []  # files that are no longer written
        self._is_folder_synced = True

    def begin_file(self) -> None:
        """Record that there is a new current file: neither it nor its name is on the disk."""
        self._synced_size = -1
        self._is_folder_synced = False

    def end_file(self, descriptor: int) -> None:
        """Take a file that is no longer written: it is synced with the next one, then closed."""
        self._unsynced.append(descriptor)

    def sync_at_once(self, descriptor: int, size: int) -> None:
        """Sync the current file. The caller holds the write lock. Raises OSError if that fails."""
        os.fsync(descriptor)
        self._sync_folder()
        self._synced_size = size

    def sync(self) -> bool:
        """Sync all files that need it; return whether all are on the disk now."""
        # One thread at a time: the second must not return before the first is done.
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
        """Close the files that were not synced. The caller holds the write lock."""
        for descriptor in self._unsynced:
            os.close(descriptor)
        self._unsynced.clear()

    def _sync_folder(self) -> None:
        """Sync the name of a new file, without which its content is lost."""
        if self._is_folder_synced:
            return
        # Set before the sync: a file that is made during it needs another one.
        self._is_folder_synced = True
        try:
            sync_folder(self._path.parent)
        except FileNotFoundError:
            self._is_folder_synced = False  # moved or deleted, which the writer notices soon
        except OSError as problem:
            self._fail(problem)

    def _sync_and_close(self, descriptor: int) -> bool:
        try:
            os.fsync(descriptor)
        except OSError as problem:
            self._fail(problem)
            return False
        finally:
            os.close(descriptor)
        return True

    def _fail(self, problem: OSError) -> None:
        if not self._fails:
            log.error("%s cannot be synced to the disk: %s", self._path, problem.strerror)
        self._fails = True
