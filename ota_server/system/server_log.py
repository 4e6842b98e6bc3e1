"""The server's log: written by a thread, since its reader may be slow or gone.

If standard error is a pipe that nobody reads, all devices would wait for it otherwise. How often
the same message is logged is limited too, so that a flood of requests is not a flood of lines.
"""

import logging
import os
from collections import OrderedDict
from copy import copy
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType

from ota_server.model.timestamp import format_time
from ota_server.system.hints import hints
from ota_server.system.product_log import named_line

# A minute of a bad day; lines beyond that are only counted while nothing can be written.
_MAX_WAITING = 1000
_END_SECONDS = 2.0
_STANDARD_ERROR = 2
# How many keys a rate limit remembers.
_KEPT_KEYS = 1000
# The most of a line; what somebody wrote into a file may be as long as they like.
_MOST_CHARACTERS = 2000
_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def one_line(text: str) -> str:
    """Return text as one line of a log, control characters as escapes: no text forges a line."""
    shown = text[:_MOST_CHARACTERS] + " ..." * (len(text) > _MOST_CHARACTERS)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)


class _Formatter(logging.Formatter):
    """Times as in the journal and in the audit log: UTC, with a Z; no text forges a line."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the time of a record."""
        return format_time(int(record.created * 1000))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """Return a traceback, indented: what an exception says may have more than one line."""
        return "\n".join(f"  {one_line(line)}" for line in super().formatException(ei).splitlines())


class LogThread(logging.Handler):
    """Writes records to a descriptor, in order; the thread that logs does not wait."""

    def __init__(self, descriptor: int = _STANDARD_ERROR) -> None:
        super().__init__()
        self.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._descriptor = descriptor
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lost = 0
        self._thread: Thread | None = Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None  # no thread can be started; then who logs has to wait

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Arguments are not pasted: they may be what a stranger sent."""
        record = copy(record)  # other handlers get it too
        paste = hints.paste_format if record.args else hints.paste
        record.msg = named_line(hints.product or "", paste(str(record.msg)))
        self.say(self.format(record))

    def say(self, line: str) -> None:
        """Queue a line. Safe in a signal handler."""
        if self._thread is None:
            self._write(line)
        elif self._queue.qsize() >= _MAX_WAITING:
            self._lost += 1
        else:
            self._queue.put(line)

    def end(self) -> None:
        """Write what is queued, if it can be written within two seconds."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)

    def _write(self, line: str) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            line += f"\n{lost} lines of the log were lost: nobody read them"
        # A path may hold bytes that are not UTF-8.
        content = memoryview(f"{line}\n".encode(errors="backslashreplace"))
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
