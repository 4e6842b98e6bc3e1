"""The server's log: written by a thread, since whoever reads it may be slow, or gone.

A standard error that is a pipe which nobody empties would otherwise hold up all devices.
"""

import logging
import os
from queue import SimpleQueue
from threading import Thread

# A minute of a bad day; what comes on top while nothing is written is counted.
_MAX_WAITING = 1000
_END_SECONDS = 2.0
_STANDARD_ERROR = 2


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
