"""Reading images into the kernel's memory in a thread, so that the loop does not wait for a disk.

Measured: `sendfile` took up to 40 ms for a piece of an image that was not in memory, and 1 ms for
one that was (benchmarks/cold_image.py).
"""

import os
from queue import SimpleQueue
from threading import Thread

from ota_server.httpd.reply import ImageBytes

# How much is read at once, and how much a connection may send in one turn.
WINDOW_BYTES = 1024 * 1024
_PIECE_BYTES = 128 * 1024
# What was in memory a moment ago still is: the kernel drops what was used least recently.
_KEPT_SECONDS = 0.1
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_probe = bytearray(1)


class Reading:
    """A part of an image that is being read; the reference keeps `image` open."""

    __slots__ = ("descriptor", "image", "is_done", "offset")

    def __init__(self, image: ImageBytes, descriptor: int, offset: int) -> None:
        self.image = image
        self.descriptor = descriptor
        self.offset = offset
        self.is_done = False


class ReadAhead:
    """Reads parts of images into the kernel's memory, one after another, in a thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Reading | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._seen: set[tuple[int, int, int]] = set()
        self._seen_until = 0.0

    def needs(self, descriptor: int, first: int, last: int, now: float) -> bool:
        """Return whether these bytes of a file have to be read before they are sent.

        Many connections send the same piece of an image: the kernel is asked once for all.
        """
        if now >= self._seen_until:
            self._seen.clear()
            self._seen_until = now + _KEPT_SECONDS
        pieces = descriptor, first // _PIECE_BYTES, last // _PIECE_BYTES
        if pieces in self._seen:
            return False
        if not is_in_memory(descriptor, first, last):
            return True
        self._seen.add(pieces)
        return False

    def begin(self, image: ImageBytes, descriptor: int, offset: int) -> Reading:
        """Start reading a window of an image; `is_done` is set after that, even if it fails."""
        reading = Reading(image, descriptor, offset)
        self._queue.put(reading)
        if self._thread is None:
            thread = Thread(target=self._run, name="read ahead", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:
                reading.is_done = True  # no thread can be started: the loop reads it itself
        return reading

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while reading := self._queue.get():
            try:
                for offset in range(reading.offset, reading.offset + WINDOW_BYTES, _PIECE_BYTES):
                    if not os.pread(reading.descriptor, _PIECE_BYTES, offset):
                        break
            except OSError:
                pass  # sending meets the same error and reports it
            finally:
                reading.is_done = True


def is_in_memory(descriptor: int, first: int, last: int) -> bool:
    """Return whether these two bytes of a file can be read without waiting for a disk.

    Also True if the system cannot tell (not Linux, or a file system without RWF_NOWAIT).
    """
    if _NOWAIT is None:
        return True
    try:
        os.preadv(descriptor, [_probe], first, _NOWAIT)
        os.preadv(descriptor, [_probe], last, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
