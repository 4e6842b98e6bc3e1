"""The server's log: written by a thread, since its reader may be slow or gone.

If standard error is a pipe that nobody reads, all devices would wait for it otherwise. How often
the same message is logged is limited too, so that a flood of requests is not a flood of lines.
"""

import logging
import os
from collections import OrderedDict
from queue import SimpleQueue
from threading import Lock, Thread

# A minute of a bad day; lines beyond that are only counted while nothing can be written.
_MAX_WAITING = 1000
_END_SECONDS = 2.0
_STANDARD_ERROR = 2
# How many keys a rate limit remembers.
_KEPT_KEYS = 1000


class LogThread(logging.Handler):
    """Writes records to a descriptor, in order; the thread that logs does not wait."""

    def __init__(self, descriptor: int = _STANDARD_ERROR) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lost = 0
        self._thread = Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        self.say(self.format(record))

    def say(self, line: str) -> None:
        """Queue a line. Safe in a signal handler."""
        if self._queue.qsize() >= _MAX_WAITING:
            self._lost += 1
        else:
            self._queue.put(line)

    def end(self) -> None:
        """Write what is queued, if it can be written within two seconds."""
        self._queue.put(None)
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                line += f"\n{lost} lines of the log were lost: nobody read them"
            content = memoryview(f"{line}\n".encode())
            try:
                while content:
                    content = content[os.write(self._descriptor, content) :]
            except OSError:
                self._lost += 1  # closed, or a full disk; that may change


class RateLimit:
    """Allows each key once in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._allowed_at: OrderedDict[str, float] = OrderedDict()

    def allows(self, key: str, now_seconds: float) -> bool:
        """Return whether `key` is allowed now; a key that is no longer remembered always is."""
        with self._lock:
            last = self._allowed_at.get(key)
            if last is not None and 0 <= now_seconds - last < self._seconds:
                return False
            self._allowed_at[key] = now_seconds
            self._allowed_at.move_to_end(key)
            if len(self._allowed_at) > _KEPT_KEYS:
                self._allowed_at.popitem(last=False)
            return True


class Budget:
    """Allows `most` events in `seconds`, whatever they are."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._began_at = -seconds
        self._used = 0

    def allows(self, now_seconds: float) -> bool:
        """Count one more event; return whether it is within the budget."""
        with self._lock:
            if now_seconds - self._began_at >= self._seconds:
                self._began_at, self._used = now_seconds, 0
            self._used += 1
            return self._used <= self._most
