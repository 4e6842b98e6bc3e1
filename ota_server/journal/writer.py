"""The only writer of the journal, `log/devices.jsonl`: JSON lines, under a lock.

Lines are queued in the order in which the device table changed, and the next `flush` writes them:
one write, whole lines, before the replies that they belong to. If that fails, their devices are
marked, and once writing works again one line for each of them is written first.
"""

import errno
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Lock
from zlib import crc32

from ota_server.journal.files import CURRENT_NAME, next_rotated, prune
from ota_server.journal.record import Seal, sealed
from ota_server.journal.sync import DiskSync
from ota_server.system.locks import LOCK_NAME, InUse, take_lock
from ota_server.system.new_files import make_folder, open_or_make

log = logging.getLogger(__name__)

# A smaller file costs more than it saves: 64 MiB are read in a second.
ROTATE_BYTES = 64 * 1024 * 1024
# When records are synced to the disk, in case of a power cut (a crash of the server loses none in
# any case): before the reply that they belong to, every 100 ms, or when the kernel decides.
FSYNC = ("always", "interval", "never")
# What comes after the last seal takes longer to read at a start: 4 ms for 1 MiB.
SEAL_BYTES = 1024 * 1024
# Other threads would never get the lock from one that takes it again at once.
_REST_SECONDS = 0.001
KEEP_FILES = 10
KEEP_BYTES = 1024 * 1024 * 1024


class Journal:
    """Appends records to the current file and rotates it. Safe for use by many threads.

    Lock order: the lock of `DiskSync`, then `write_lock`, then the lock of the device table.

    Attributes:
        failing: the file cannot be written; devices are marked in `unrecorded` instead.
        unrecorded: the MACs whose newest record is not in the file.
        lines: how many records were written.
        lost_writes: how often a write failed.
        failures: how often `failing` began.
        needs_snapshot: the current file does not hold all known devices yet.
        generation: how many files were opened as the current one.
    """

    def __init__(
        self,
        log_dir: Path,
        rotate_bytes: int = ROTATE_BYTES,
        keep_files: int = KEEP_FILES,
        keep_bytes: int = KEEP_BYTES,
        fsync: str = "interval",
    ) -> None:
        """Take the lock and open the current file.

        Args:
            fsync: one of FSYNC: when records are synced to the disk.

        Raises:
            InUse: a server already runs on this directory.
            OSError: the directory or a file in it cannot be written.
        """
        self._dir = log_dir
        self._path = log_dir / CURRENT_NAME
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._keep_bytes = keep_bytes
        self._fsync = fsync
        self.write_lock = Lock()
        self._queue: deque[tuple[str, bytes]] = deque()
        self.unrecorded: set[str] = set()
        self.failing = False
        self._said = False
        self.lines = self.lost_writes = 0
        self.failures = 0
        self.needs_snapshot = True
        self.generation = 0
        self._marker_end = 0
        self._fd = -1
        self._size = 0
        self._disk = DiskSync(self._path, self.write_lock, lambda: (self._fd, self._size))
        # What was written since the last seal, or since a doubt about the file's content.
        self._segment = Seal(0, 0)
        self._lock_fd = take_lock(log_dir / LOCK_NAME)
        try:
            self._open()
        except OSError:
            os.close(self._lock_fd)
            raise

    def append(self, key: str, line: bytes) -> None:
        """Queue one line with its newline. The caller holds the lock of the device table."""
        self._queue.append((key, line))

    def flush(self) -> None:
        """Write what is queued. On return each line is in the file, or its device is marked."""
        # Also with an empty queue: another thread may just be writing our line.
        with self.write_lock:
            self._write_queue()

    def _write_queue(self) -> None:
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        if not batch:
            return
        if not self.failing and self._write(b"".join([line for _, line in batch])):
            self.lines += len(batch)
            return
        self.unrecorded.update(key for key, _ in batch)

    def _write(self, lines: bytes) -> bool:
        """Append whole lines with one write; if that fails, cut back to the last whole line."""
        try:
            written = os.write(self._fd, lines)
            if written < len(lines):
                # A disk that is almost full takes a part; the next write says why.
                written += os.write(self._fd, lines[written:])
            if written < len(lines):
                raise OSError(f"wrote {written} of {len(lines)} bytes")
            if self._fsync == "always":
                self._disk.sync_at_once(self._fd, self._size + len(lines))
        except OSError as problem:
            self._fail(problem)
            return False
        self._size += len(lines)
        start, crc = self._segment
        self._segment = Seal(start, crc32(lines, crc))
        if not self.failing:
            self._say_written()
        return True

    def _fail(self, problem: OSError) -> None:
        self.lost_writes += 1
        self.failures += not self.failing
        if not self._said:
            self._said = True
            log.error(
                "%s cannot be written: %s. Devices are still answered, and will be recorded once "
                "it can be written: make room or repair the disk.",
                self._path,
                problem,
            )
        self.failing = True
        try:
            if self._fd >= 0 and os.fstat(self._fd).st_size > self._size:
                os.ftruncate(self._fd, self._size)
        except OSError:
            log.warning("%s ends in a torn line, which readers skip", self._path)

    def _say_written(self) -> None:
        if self._said:
            self._said = False
            log.warning("%s can be written again; all reports are on record", self._path)

    def resume(self, make_lines: Callable[[list[str]], bytes], slice_size: int = 100) -> bool:
        """Try to write again: first one line for each marked device, then what is queued.

        Args:
            make_lines: returns the records of the devices with these MACs.

        Returns:
            Whether writing works again.
        """
        while self.failing:
            # If no device is marked, only the next write shows whether it works.
            with self.write_lock:
                if self._fd < 0 and not self._reopened():
                    return False
                if not self._begin_fresh_line():
                    return False
                keys = list(islice(self.unrecorded, slice_size))
                if keys and not self._write(make_lines(keys)):
                    return False
                self.lines += len(keys)
                self.unrecorded.difference_update(keys)
                if not self.unrecorded:
                    self.failing = False
                    if keys:
                        self._say_written()
                    self._write_queue()
            time.sleep(_REST_SECONDS)
        return True

    def close_snapshot(self, marker: bytes, generation: int) -> bool:
        """Write the line that ends a snapshot; only now may older files be deleted.

        Args:
            generation: what `generation` was when the snapshot began.

        Returns:
            Whether the whole snapshot is in the current file.
        """
        with self.write_lock:
            self._write_queue()
            if self.failing or generation != self.generation or not self._write_sealed(marker):
                return False
            self.adopt_marker(self._size)
        # Whatever `fsync` is: a power cut must not lose the new file once the old ones are deleted.
        if self._disk.sync():
            prune(self._dir, self._keep_files, self._keep_bytes)
        return True

    def seal(self, line: bytes) -> None:
        """Write `line` as a seal of what was written since the last one, once that is 1 MiB."""
        with self.write_lock:
            if not self.failing and self._size - self._segment.start >= SEAL_BYTES:
                self._write_sealed(line)

    def _write_sealed(self, line: bytes) -> bool:
        """Write a line, with a seal unless somebody else has changed the file."""
        size = os.fstat(self._fd).st_size
        is_ours = size == self._size
        self._size = max(size, self._size)  # a file that was cut is noticed by its size
        is_written = self._write(sealed(line, self._segment) if is_ours else line)
        self._segment = Seal(self._size, 0)
        return is_written

    def adopt_segment(self, segment: Seal) -> None:
        """Record that the unsealed end of the current file holds only good lines."""
        self._segment = segment

    def adopt_marker(self, marker_end: int) -> None:
        """Record that the current file holds a snapshot that ends at this byte."""
        self._marker_end = marker_end
        self.needs_snapshot = False

    def look_after(self) -> None:
        """Notice a file that was moved, deleted or cut, and rotate one that is long enough."""
        with self.write_lock:
            if self._fd >= 0 and self._was_taken_away():
                log.warning("%s was moved or cut: writing a new one", self._path)
                self._reopened()
            elif self._is_long_enough():
                self._rotate()

    def reopen(self) -> None:
        """Open the file by its name again, as SIGHUP asks."""
        with self.write_lock:
            self._write_queue()
            # Else the file would get one more snapshot each time, and never be rotated.
            if self.failing or self._was_taken_away():
                self._reopened()

    def sync(self) -> None:
        """Sync what was written to the disk, under `--fsync interval`. Writers do not wait."""
        if self._fsync == "interval":
            self._disk.sync()

    def close(self) -> None:
        """Write and sync what is left, and release the lock."""
        self.flush()
        self.sync()
        with self.write_lock:
            self._disk.close()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            os.close(self._lock_fd)

    def _open(self) -> None:
        make_folder(self._dir)
        self._retake_lock()
        self._fd = open_or_make(self._path, os.O_RDWR | os.O_APPEND)
        mode = os.fstat(self._fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
            os.close(self._fd)
            self._fd = -1
            raise OSError(errno.EINVAL, "not a regular file", str(self._path))
        self._disk.begin_file()
        self._size = 0
        self._segment = Seal(0, 0)
        self.generation += 1
        self.needs_snapshot = True
        self._begin_fresh_line()

    def _retake_lock(self) -> None:
        """Take the lock again if its file was deleted, perhaps with its folder."""
        path = self._dir / LOCK_NAME
        try:
            if os.path.samestat(os.fstat(self._lock_fd), path.stat()):
                return
        except FileNotFoundError:
            pass
        try:
            descriptor = take_lock(path)
        except (InUse, OSError) as problem:
            log.error("%s was deleted, and cannot be locked again: %s", path, problem)
            return
        os.close(self._lock_fd)
        self._lock_fd = descriptor

    def _begin_fresh_line(self) -> bool:
        """End a torn last line, so that the next record has a line of its own."""
        try:
            size = os.fstat(self._fd).st_size
            is_torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        except OSError:
            return True  # not a regular file: the next write shows whether it takes records
        if size == self._size and not is_torn:
            return True
        self._size = size  # what others wrote after our last line must not be sealed
        is_ended = not is_torn or self._write(b"\n")
        self._segment = Seal(self._size, 0)
        return is_ended

    def _reopened(self) -> bool:
        if self._fd >= 0:
            self._disk.end_file(self._fd)
            self._fd = -1
        try:
            self._open()
        except OSError as problem:
            self._fail(problem)
            return False
        return True

    def _was_taken_away(self) -> bool:
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except OSError:
            return True
        same = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        is_cut = stat.S_ISREG(ours.st_mode) and ours.st_size < self._size
        return is_cut or not same

    def _is_long_enough(self) -> bool:
        if self.needs_snapshot or self.failing:
            return False
        # Before the marker is the snapshot, with a few live records in between.
        return self._size - self._marker_end > max(self._rotate_bytes, self._marker_end)

    def _rotate(self) -> None:
        try:
            os.rename(self._path, next_rotated(self._dir))
        except OSError as problem:
            log.warning("%s cannot be rotated: %s", self._path, problem)
            return
        self._reopened()
