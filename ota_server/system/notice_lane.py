"""Runs a process for each notice to a receiver, in a thread that nothing waits for.

At most 20 processes run in a minute, one after another, each for as long as its program may take.
Further notices are refused, and may be told later.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from selectors import EVENT_READ, EVENT_WRITE, PollSelector
from subprocess import PIPE, STDOUT, Popen, TimeoutExpired
from threading import Thread
from typing import Any, Protocol

from ota_server.model.notice import Delivery
from ota_server.system.children import started
from ota_server.system.server_log import Budget

log = logging.getLogger(__name__)

MOST_NOTICES = 20
PER_SECONDS = 60.0
END_SECONDS = 2.0
_KILL_SECONDS = 0.05
# Of one that has ended, for output that a child of it keeps open.
_OUTPUT_SECONDS = 0.2
_LOOK_SECONDS = 0.05
# Of what a process prints. The rest is thrown away, no faster than 64 KiB in 10 ms: one that prints
# without end takes neither the memory nor the processor time of the server.
_MOST_BYTES = 64 * 1024
_DISCARD_SECONDS = 0.01

Notice = Mapping[str, Any]
WhenEnded = Callable[[Delivery], None]


class Program(Protocol):
    """What tells a notice: a process that gets it on its standard input.

    Attributes:
        name: of the receiver, for people and logs.
        longest_seconds: then its process is killed.
    """

    name: str
    longest_seconds: float

    def arguments(self) -> list[str]:
        """Return the command of the process."""

    def environment(self) -> Mapping[str, str] | None:
        """Return the environment of the process; None: that of this one."""

    def content(self, notice: Notice) -> bytes:
        """Return what the process gets on its standard input."""

    def delivery(self, notice: Notice, printed: bytes, code: int) -> Delivery:
        """Return what came of it, by what the process printed and how it ended; log that."""


class Lane:
    """Runs a program for one notice after another. `take` by one thread at a time."""

    def __init__(self, program: Program, most_notices: int, per_seconds: float) -> None:
        self._program = program
        self._most_notices = most_notices
        self._budget = Budget(most_notices, per_seconds)
        self._is_refusal_said = False
        self._process: Popen[bytes] | None = None
        self._queue: SimpleQueue[tuple[Notice, WhenEnded] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_over = False
        self._taken = self._ended = 0

    def take(self, notice: Notice, when_ended: WhenEnded) -> bool:
        """Take a notice, if there is room for it and a thread.

        Args:
            when_ended: called by the thread, when its process has ended or could not be run.
        """
        if not self._budget.allows(time.monotonic()) or self._queue.qsize() >= self._most_notices:
            return self._refuse(notice, "too many notices")
        if self._thread is None:
            thread = Thread(target=self._run, name="notices", daemon=True)
            try:
                thread.start()
            except RuntimeError as problem:
                return self._refuse(notice, str(problem))
            self._thread = thread
        self._is_refusal_said = False
        self._taken += 1
        self._queue.put((notice, when_ended))
        return True

    def _refuse(self, notice: Notice, why: str) -> bool:
        if not self._is_refusal_said:
            self._is_refusal_said = True
            said = "%s: %s is told of %s, and of what follows, as soon as it can be"
            log.warning(said, why, self._program.name, notice["event"])
        return False

    def finish(self) -> None:
        """Take no more."""
        self._queue.put(None)

    def end(self, give_up_at: float) -> int:
        """Wait until a time for what was taken, then kill it; return how many have not ended."""
        if self._thread is None:
            return 0
        self._thread.join(max(give_up_at - time.monotonic(), 0))
        self._is_over = True  # or the thread would go on with the next notice
        give_up_at = time.monotonic() + END_SECONDS
        while self._thread.is_alive() and time.monotonic() < give_up_at:
            self._kill()
            self._thread.join(_KILL_SECONDS)
        return self._taken - self._ended

    def _kill(self) -> None:
        process = self._process
        # The number of one that has ended may be that of another process by now.
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None and not self._is_over:
            notice, when_ended = taken
            try:
                delivery = self._run_for(notice)
            except OSError as problem:
                delivery = Delivery(False, f"it cannot be run: {problem}")
                log.error("%s cannot be run: %s", self._program.name, problem)
            when_ended(delivery)
            self._ended += delivery.is_told or not self._is_over

    def _run_for(self, notice: Notice) -> Delivery:
        """Run the program for a notice; return what came of it."""
        program = self._program
        began = time.monotonic()
        # A session of its own: then its children can be killed with it, and no signal that a
        # terminal sends to the server reaches it.
        with started(
            lambda: Popen(
                program.arguments(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                env=program.environment(),
                start_new_session=True,
            )
        ) as process:
            self._process = process
            try:
                printed = _exchange(process, program.content(notice), program.longest_seconds)
            except TimeoutExpired:
                self._kill()
                problem = f"ran for more than {program.longest_seconds:g} s, and was killed"
                log.error("%s %s", program.name, problem)
                return Delivery(False, f"it {problem}", seconds=program.longest_seconds)
            except OSError:
                self._kill()  # or its end would be waited for
                raise
        delivery = program.delivery(notice, printed, process.returncode)
        took = round(time.monotonic() - began, 3)
        return delivery if delivery.seconds else delivery._replace(seconds=took)


def _exchange(process: Popen[bytes], content: bytes, seconds: float) -> bytes:
    """Give a process its input; return the beginning of its output, once it has ended.

    As `Popen.communicate`, which keeps all of the output, and waits for its end as long as a child
    of the process keeps it open.

    Raises:
        TimeoutExpired: it takes longer than `seconds`.
    """
    give_up_at = time.monotonic() + seconds
    printed = b""
    # Not epoll, which needs a file of its own: there may be no further one.
    with PollSelector() as selector:
        assert process.stdin is not None and process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, EVENT_WRITE)
        selector.register(process.stdout, EVENT_READ)
        ended_at = math.inf
        while selector.get_map() and (now := time.monotonic()) < ended_at + _OUTPUT_SECONDS:
            if ended_at == math.inf and process.poll() is not None:
                ended_at = now
            elif ended_at == math.inf and now >= give_up_at:
                raise TimeoutExpired(process.args, seconds)
            for key, _ in selector.select(_LOOK_SECONDS):
                if key.fileobj is process.stdin:
                    content = content[_written(key.fd, content) :]
                    if not content:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                elif part := os.read(key.fd, _MOST_BYTES):
                    if len(printed) == _MOST_BYTES:
                        time.sleep(_DISCARD_SECONDS)
                    printed += part[: _MOST_BYTES - len(printed)]
                else:
                    selector.unregister(process.stdout)
    process.wait(max(give_up_at - time.monotonic(), 0))
    return printed


def _written(descriptor: int, content: bytes) -> int:
    """Return how much of its input a process has taken; all, if it reads nothing more."""
    try:
        return os.write(descriptor, content)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(content)
