"""Runs an operator's command for each event, in threads that nothing waits for.

The command gets the event as one JSON object on its standard input; what it prints is logged. It
was told if the command ends by exit code 0. Alarms have a lane of their own, so that they never
wait for a command that hangs over something else. In each lane at most 20 commands run in a minute,
one after another, each for a minute at most. Further events are refused, and may be told later.
"""

import json
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
from typing import Any

from ota_server.system.children import started
from ota_server.system.server_log import Budget

log = logging.getLogger(__name__)

MOST_EVENTS = 20
_PER_SECONDS = 60.0
_LONGEST_SECONDS = 60.0
_END_SECONDS = 2.0
_KILL_SECONDS = 0.05
# Of one that has ended, for output that a child of it keeps open.
_OUTPUT_SECONDS = 0.2
_LOOK_SECONDS = 0.05
# Of what a command prints. The rest is thrown away, no faster than 64 KiB in 10 ms: one that prints
# without end takes neither the memory nor the processor time of the server.
_MOST_LINES = 20
_MOST_CHARACTERS = 200
_MOST_BYTES = 64 * 1024
_DISCARD_SECONDS = 0.01

# Called with whether the event was told.
_Ended = Callable[[bool], None]


class EventCommand:
    """Runs one command. `tell` is quick; it may be called by one thread at a time."""

    def __init__(
        self,
        command: str,
        most_events: int = MOST_EVENTS,
        per_seconds: float = _PER_SECONDS,
        longest_seconds: float = _LONGEST_SECONDS,
    ) -> None:
        limits = most_events, per_seconds, longest_seconds
        self._alarms, self._others = _Lane(command, *limits), _Lane(command, *limits)

    def tell(
        self, event: Mapping[str, Any], is_alarm: bool = False, when_ended: _Ended | None = None
    ) -> bool:
        """Have the command run for an event, soon; return whether it will be.

        Args:
            when_ended: called by another thread, when the command has ended or could not be run.
        """
        return (self._alarms if is_alarm else self._others).take(event, when_ended)

    def end(self) -> int:
        """Let what was told before be done, for two seconds at most; then kill it.

        Returns:
            For how many events the command has not ended.
        """
        lanes = self._alarms, self._others
        for lane in lanes:
            lane.finish()
        give_up_at = time.monotonic() + _END_SECONDS
        return sum(lane.end(give_up_at) for lane in lanes)


class _Lane:
    """Runs the command for one event after another."""

    def __init__(
        self, command: str, most_events: int, per_seconds: float, longest_seconds: float
    ) -> None:
        self._command = command
        self._longest_seconds = longest_seconds
        self._most_events = most_events
        self._budget = Budget(most_events, per_seconds)
        self._is_refusal_said = False
        self._process: Popen[bytes] | None = None
        self._queue: SimpleQueue[tuple[Mapping[str, Any], _Ended | None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_over = False
        self._taken = self._ended = 0

    def take(self, event: Mapping[str, Any], when_ended: _Ended | None) -> bool:
        """Take an event, if there is room for it and a thread."""
        if not self._budget.allows(time.monotonic()) or self._queue.qsize() >= self._most_events:
            return self._refuse(event, "too many events")
        if self._thread is None:
            thread = Thread(target=self._run, name="events", daemon=True)
            try:
                thread.start()
            except RuntimeError as problem:
                return self._refuse(event, str(problem))
            self._thread = thread
        self._is_refusal_said = False
        self._taken += 1
        self._queue.put((event, when_ended))
        return True

    def _refuse(self, event: Mapping[str, Any], why: str) -> bool:
        if not self._is_refusal_said:
            self._is_refusal_said = True
            said = "%s: --on-event is told of %s, and of what follows, as soon as it can be"
            log.warning(said, why, event["event"])
        return False

    def finish(self) -> None:
        """Take no more."""
        self._queue.put(None)

    def end(self, give_up_at: float) -> int:
        """Wait until a time for what was taken, then kill it; return how many have not ended."""
        if self._thread is None:
            return 0
        self._thread.join(max(give_up_at - time.monotonic(), 0))
        self._is_over = True  # or the thread would go on with the next event
        give_up_at = time.monotonic() + _END_SECONDS
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
            event, when_ended = taken
            is_told = False
            try:
                is_told = self._run_for(event)
            except OSError as problem:
                log.error("--on-event cannot be run: %s", problem)
            if when_ended is not None:
                when_ended(is_told)
            self._ended += is_told or not self._is_over

    def _run_for(self, event: Mapping[str, Any]) -> bool:
        """Run the command for an event; return whether it has ended well."""
        content = json.dumps(event).encode("ascii") + b"\n"
        # A session of its own: then its children can be killed with it, and no signal that a
        # terminal sends to the server reaches it.
        with started(
            lambda: Popen(
                ["/bin/sh", "-c", self._command],
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
            )
        ) as process:
            self._process = process
            try:
                printed = _exchange(process, content, self._longest_seconds)
            except TimeoutExpired:
                self._kill()
                seconds = self._longest_seconds
                log.error("--on-event ran for more than %g s, and was killed", seconds)
                return False
            except OSError:
                self._kill()  # or its end would be waited for
                raise
        self._log(printed, process.returncode, str(event["event"]))
        return process.returncode == 0

    def _log(self, printed: bytes, code: int, name: str) -> None:
        lines = printed[:_MOST_BYTES].decode("utf-8", "replace").splitlines()
        for line in lines[:_MOST_LINES]:
            text = "".join(char if char.isprintable() else "?" for char in line)
            log.info("--on-event (%s): %s", name, text[:_MOST_CHARACTERS])
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            log.warning("--on-event (%s) ended by %s", name, how)


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
    """Return how much of a command's input it has taken; all, if it reads nothing more."""
    try:
        return os.write(descriptor, content)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(content)
