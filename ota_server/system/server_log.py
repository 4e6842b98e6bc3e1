"""The server's log: written by a thread, since whoever reads it may be slow, or gone.

A standard error that is a pipe which nobody empties would otherwise hold up all devices. How often
one thing may be said is limited, too: a flood of requests is no flood of lines.
"""

import logging
import os
from collections import OrderedDict
from queue import SimpleQueue
from threading import Lock, Thread

# A minute of a bad day; what comes on top while nothing is written is counted.
_MAX_WAITING = 1000
_END_SECONDS = 2.0
_STANDARD_ERROR = 2
# What a rate limit remembers.
_KEPT_KEYS = 1000


class LogThread(logging.Handler):
    """Writes records to a descriptor, in their order, without holding up who logs."""

    def __init__(self, descriptor: int = _STANDARD_ERROR) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lost = 0
        self._thread = Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        self.say(self.format(record))

    def say(self, line: str) -> None:
        """Have a line written. Safe in a signal handler."""
        if self._queue.qsize() >= _MAX_WAITING:
            self._lost += 1
        else:
            self._queue.put(line)

    def end(self) -> None:
        """Write what waits, if somebody takes it."""
        self._queue.put(None)
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                line += f"\n{lost} lines of the log were lost: nobody took them"
            content = memoryview(f"{line}\n".encode())
            try:
                while content:
                    content = content[os.write(self._descriptor, content) :]
            except OSError:
                self._lost += 1  # it is closed, or a full disk; perhaps not for ever


class RateLimit:
    """Allows each key once in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._allowed_at: OrderedDict[str, float] = OrderedDict()

    def allows(self, key: str, now_seconds: float) -> bool:
        """Say whether `key` may be said now. With more keys than are kept the oldest may again."""
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
    """Allows so many in `seconds`, whatever they are."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._began_at = -seconds
        self._used = 0

    def allows(self, now_seconds: float) -> bool:
        """Say whether one more is within the budget, and count it."""
        with self._lock:
            if now_seconds - self._began_at >= self._seconds:
                self._began_at, self._used = now_seconds, 0
            self._used += 1
            return self._used <= self._most
