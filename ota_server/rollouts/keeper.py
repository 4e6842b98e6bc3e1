"""Starts the controller while it is needed, and starts it again when it dies.

It is needed while a rollout is on, and always where it answers operators.

No request waits for the controller: it is a process of its own (`controller.py`), which ends when
its standard input does, that is, with the server. It has a lease for each rollout (`lease`): it
has to say, again and again, that it has seen all that devices did under that rollout, and could
write. When it does not, the rollout offers nothing new until it does.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ota_server.policy.files import PolicyFiles
from ota_server.policy.lease import Attended, Lease
from ota_server.system.children import UNKNOWN, exit_code, started
from ota_server.system.product_log import ProductLog

if TYPE_CHECKING:
    from subprocess import Popen

log = logging.getLogger(__name__)

# The option of the controller for `RolloutScope.completion_unknown`.
COMPLETION_UNKNOWN = "--completion-unknown"
# The option of the controller for `Policy.keeps_ungrouped`.
KEEP_UNGROUPED = "--keep-ungrouped"
# The option of the controller to write the lines of `lease` after each look.
HEARTBEAT = "--heartbeat"
# The option of the controller for the descriptor of a socket on which operators are answered.
ADMIN_SOCKET = "--admin-socket"
# As that of the server.
ADMIN_NAME = "--admin-name"
# A tally of a million devices, or a checkpoint of theirs, takes seconds on a small machine.
LEASE_SECONDS = 30.0
LOCK_NAME = ".controller.lock"
# Before its first look it may have to find in the whole journal whom a revert is for.
_START_SECONDS = 60.0
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# A controller that ran for so long did not die of something that it meets at each start.
_SOUND_SECONDS = 10.0
_END_SECONDS = 5.0
_MOST_BYTES = 64 * 1024
_LATER = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Keeper:
    """Keeps one controller for a data directory. `look_after` and `end` by one thread at a time."""

    def __init__(
        self,
        data_dir: Path,
        policies: PolicyFiles,
        attended: Attended,
        started_ms: int,
        options: Sequence[str] = (),
        lease_seconds: float = LEASE_SECONDS,
        inherited: Sequence[int] = (),
    ) -> None:
        """Start nothing yet; until a controller has looked after rollouts they offer nothing new.

        Args:
            attended: where it says which rollouts the controller looks after.
            started_ms: since when this server answers, in milliseconds since the epoch.
            options: of the controller, besides.
            lease_seconds: for so long rollouts go on without a word from it.
            inherited: descriptors that the controller gets; with one of them it always runs: it
                answers operators.
        """
        attended.groups = frozenset()
        self._attended = attended
        self._lease_seconds = lease_seconds
        self._lease = Lease(lease_seconds)
        self._seen_at: dict[str, float] = {}  # by group: looked after last, or there at all
        self._said: set[str] = set()  # of which rollouts it was said that they offer nothing new
        self._is_failing_said = False
        self._data_dir = data_dir
        self._log = ProductLog(log, data_dir)
        self._policies = policies
        self._started_ms = started_ms
        self._options = options
        self._inherited = tuple(inherited)
        self._child: Popen[bytes] | None = None
        self._began = self._heard_at = 0.0
        self._is_heard = False
        self._pause = _SHORTEST_PAUSE_SECONDS
        self._not_before = 0.0

    def look_after(self) -> None:
        """Start the controller where there is a rollout for it to move, and note its end."""
        now = time.monotonic()
        if self._child is not None:
            self._hear(self._child, now)
            code = exit_code(self._child)
            if code is not None:
                self._note_end(code, now)
            elif now - self._heard_at > self._patience:
                self._log.error("the controller hangs, and is killed")
                self._child.kill()  # its end is noted at the next look
                self._heard_at, self._is_heard = now, False
        self._look_at_lease(now)
        is_needed = self._inherited or self._policies.has_open_rollout
        if self._child is None and is_needed and now >= self._not_before:
            self._start(now)

    @property
    def _patience(self) -> float:
        """How many seconds the controller may be silent before it is killed."""
        return self._lease_seconds if self._is_heard else max(self._lease_seconds, _START_SECONDS)

    def _hear(self, child: "Popen[bytes]", now: float) -> None:
        assert child.stdout is not None
        heard = child.stdout.read(_MOST_BYTES)  # None: nothing is in the pipe
        if heard:
            self._heard_at, self._is_heard = now, True
            self._lease.hear(heard, now)

    def _look_at_lease(self, now: float) -> None:
        """Let each rollout go on only while the controller looks after it, and log changes once."""
        attended = self._attended.groups = self._lease.attended(now)
        if self._lease.is_failing:
            if not self._is_failing_said:
                self._is_failing_said = True
                self._log.error(
                    "the controller cannot do its work: rollouts offer nothing new until it can"
                )
            return
        times = self._lease.times
        self._seen_at = {
            group: max(self._seen_at.get(group, now), times.get(group, 0.0))
            for group in self._policies.latest.rollouts
        }
        overdue = {
            group
            for group, time in self._seen_at.items()
            if group not in attended and now - time > self._lease_seconds
        }
        if overdue - self._said:
            self._say_overdue(overdue - self._said, now)
        if attended and (self._is_failing_said or self._said & attended):
            self._is_failing_said = False
            self._log.info(
                "the controller looks after rollouts again (%s): they go on", _named(attended)
            )
        self._said = overdue

    def _say_overdue(self, groups: Collection[str], now: float) -> None:
        is_alive = self._child is not None and self._is_heard
        if is_alive and now - self._heard_at <= self._lease_seconds:
            self._log.warning(
                "the controller reads what is on record for rollouts (%s), for more than %g s: "
                "they offer nothing new until it has read all of that",
                _named(groups),
                self._lease_seconds,
            )
            return
        self._log.error(
            "nobody has looked after rollouts (%s) for %g s: they offer nothing new until the "
            "controller does",
            _named(groups),
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
            self._log.error(
                "the controller did not end, and is killed; it goes on at the next start"
            )
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
        if self._lease.renewed_at - self._began >= _SOUND_SECONDS:
            self._pause = _SHORTEST_PAUSE_SECONDS
        self._not_before = now + self._pause
        how = f"by exit code {code}" if code > 0 else f"by signal {-code}"
        self._log.warning(
            "the controller ended %s; no rollout moves on or halts until it is started again "
            "in %.0f s",
            "in an unknown way" if code == UNKNOWN else how,
            self._pause,
        )
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _start(self, now: float) -> None:
        # Loaded here, since it takes memory that a server without a rollout does not need.
        from subprocess import PIPE, Popen

        # Not by the folder where the server was started: another one may lie there.
        path = [
            str(Path(__file__).resolve().parent.parent.parent),
            os.environ.get("PYTHONPATH", ""),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        command: list[Any] = [sys.executable, "-P", "-m", "ota_server.controller"]
        command += ["--data-dir", self._data_dir.absolute(), "--server-started", self._started_ms]
        command += [HEARTBEAT, *self._options]
        self._began = self._heard_at = now
        self._is_heard = False
        self._lease.begin()
        # Until it handles them, or a Ctrl-C for the server would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _LATER)
        try:
            self._child = started(
                lambda: Popen(
                    list(map(str, command)),
                    bufsize=0,
                    stdin=PIPE,
                    stdout=PIPE,
                    env=environment,
                    pass_fds=self._inherited,
                )
            )
            assert self._child.stdout is not None
            os.set_blocking(self._child.stdout.fileno(), False)
        except OSError as problem:
            self._not_before = now + self._pause
            self._log.error("the controller cannot be started: %s; rollouts stand still", problem)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _named(groups: Collection[str]) -> str:
    return ", ".join(group or "the fleet" for group in sorted(groups))


def is_attended(log_dir: Path, now_ms: int) -> bool:
    """Return whether a controller has looked after rollouts recently: for commands."""
    try:
        status = os.lstat(log_dir / LOCK_NAME)
    except OSError:
        return False
    # Also where a clock that was ahead has written it: a controller that works sets it again.
    return abs(now_ms - status.st_mtime_ns // 1_000_000) <= LEASE_SECONDS * 1000
