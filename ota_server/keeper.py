"""The keeper: starts the controller while a rollout is on, and starts it again when it dies.

Devices never notice: the controller is a process of its own (`controller.py`), which ends when its
standard input does, that is, with the server. It has a lease: where it does not say every so often
that it looked at all that devices did, and could write, rollouts offer nothing new until it does.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ota_server.policyfiles import PolicyFiles

if TYPE_CHECKING:
    from subprocess import Popen

log = logging.getLogger(__name__)

# The option of the controller for `Known.completion_unknown`.
COMPLETION_UNKNOWN = "--completion-unknown"
# The option of the controller to write one of these after each loop: it still reads what was on
# record before; it cannot do its work, as on a full disk; nothing is left to be done.
HEARTBEAT = "--heartbeat"
BEHIND, FAILING, UP_TO_DATE = b".", b"!", b"+"
# A tally of a million devices, or a checkpoint of theirs, takes seconds on a small machine.
LEASE_SECONDS = 30.0
LOCK_NAME = ".controller.lock"
# Until its first loop it may have to look through the journal for whom a way back concerns.
_START_SECONDS = 60.0
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# One that ran for so long did not die of what it met at its start.
_SOUND_SECONDS = 10.0
_END_SECONDS = 5.0
_MOST_BYTES = 64 * 1024


class Keeper:
    """Keeps one controller for a data directory. `look_after` and `end` by one thread at a time."""

    def __init__(
        self,
        data_dir: Path,
        policies: PolicyFiles,
        started_ms: int,
        options: Sequence[str] = (),
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Start nothing yet; until a controller has looked after rollouts they offer nothing new.

        Args:
            started_ms: since when this server answers, in milliseconds since the epoch.
            options: of the controller, besides.
            lease_seconds: for so long rollouts go on without a word from it.
        """
        policies.is_attended = False
        self._lease_seconds = lease_seconds
        self._attended_at = self._begun_at = time.monotonic()
        self._said = False
        self._data_dir = data_dir
        self._policies = policies
        self._started_ms = started_ms
        self._options = options
        self._child: Popen[bytes] | None = None
        self._began = self._heard_at = 0.0
        self._is_heard = self._is_failing = False
        self._pause = _SHORTEST_PAUSE_SECONDS
        self._not_before = 0.0

    def look_after(self) -> None:
        """Start the controller where there is a rollout for it to move, and note its end."""
        now = time.monotonic()
        if self._child is not None:
            self._hear(self._child, now)
            code = self._child.poll()
            if code is not None:
                self._note_end(code, now)
            elif now - self._heard_at > self._patience:
                log.error("the controller hangs, and is killed")
                self._child.kill()  # its end is noted at the next look
                self._heard_at = now
        self._look_at_lease(now)
        if self._child is None and self._policies.has_open_rollout and now >= self._not_before:
            self._start(now)

    @property
    def _patience(self) -> float:
        """For how many seconds the controller may say nothing at all."""
        return self._lease_seconds if self._is_heard else max(self._lease_seconds, _START_SECONDS)

    def _hear(self, child: "Popen[bytes]", now: float) -> None:
        assert child.stdout is not None
        heard = child.stdout.read(_MOST_BYTES)  # None: nothing is in the pipe
        if heard:
            self._heard_at, self._is_heard = now, True
            if UP_TO_DATE in heard:
                self._attended_at = now
                self._policies.is_attended = True
            # A halt that cannot be written is known to nobody else, and waits for no lease.
            self._is_failing = heard.rfind(FAILING) > heard.rfind(UP_TO_DATE)

    def _look_at_lease(self, now: float) -> None:
        """Let rollouts go on only as long as the controller looks after them, and say so once."""
        if self._is_failing or now - self._attended_at > self._lease_seconds:
            self._policies.is_attended = False
        if not self._policies.has_open_rollout:
            self._begun_at = now
        if self._policies.is_attended:
            if self._said:
                log.info("the controller looks after rollouts again: they go on")
            self._said = False
        elif self._said:
            return
        elif self._is_failing:
            self._said = True
            log.error("the controller cannot do its work: rollouts offer nothing new until it can")
        elif now - max(self._attended_at, self._begun_at) > self._lease_seconds:
            self._said = True
            log.error(
                "nobody has looked after rollouts for %g s: they offer nothing new until the "
                "controller does",
                self._lease_seconds,
            )

    def end(self) -> None:
        """End the controller and wait for it."""
        if self._child is None:
            return
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.terminate()
        give_up_at = time.monotonic() + _END_SECONDS
        while self._child.poll() is None and time.monotonic() < give_up_at:
            time.sleep(0.01)
        if self._child.poll() is None:
            log.error("the controller did not end, and is killed; it goes on at the next start")
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._child = None

    def _note_end(self, code: int, now: float) -> None:
        assert self._child is not None
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child = None
        if code == 0:
            return  # there was nothing more to do
        if self._attended_at - self._began >= _SOUND_SECONDS:
            self._pause = _SHORTEST_PAUSE_SECONDS
        self._not_before = now + self._pause
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        log.warning(
            "the controller ended by %s; rollouts stand still until it is started again in %.0f s",
            how,
            self._pause,
        )
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _start(self, now: float) -> None:
        # Loaded here, since it takes memory that a server without a rollout does not need.
        from subprocess import PIPE, Popen

        # Not by the folder where the server was started: another one may lie there.
        path = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        command: list[Any] = [sys.executable, "-P", "-m", "ota_server.controller"]
        command += ["--data-dir", self._data_dir.absolute(), "--server-started", self._started_ms]
        command += [HEARTBEAT, *self._options]
        self._began = self._heard_at = now
        self._is_heard = self._is_failing = False
        try:
            self._child = Popen(
                list(map(str, command)),
                bufsize=0,
                stdin=PIPE,
                stdout=PIPE,
                env=environment,
                close_fds=True,
            )
            assert self._child.stdout is not None
            os.set_blocking(self._child.stdout.fileno(), False)
        except OSError as problem:
            self._not_before = now + self._pause
            log.error("the controller cannot be started: %s; rollouts stand still", problem)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)


def is_attended(log_dir: Path, now_ms: int) -> bool:
    """Say whether a controller has looked after rollouts of late: for commands."""
    try:
        status = os.lstat(log_dir / LOCK_NAME)
    except OSError:
        return False
    return now_ms - status.st_mtime_ns // 1_000_000 <= LEASE_SECONDS * 1000
