"""The keeper: starts the controller while a rollout is on, and starts it again when it dies.

Devices never notice: the controller is a process of its own (`controller.py`), which ends when its
standard input does, that is, with the server.
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
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# One that ran for so long did not die of what it met at its start.
_SOUND_SECONDS = 10.0
_END_SECONDS = 5.0


class Keeper:
    """Keeps one controller for a data directory. `look_after` and `end` by one thread at a time."""

    def __init__(
        self, data_dir: Path, policies: PolicyFiles, started_ms: int, options: Sequence[str] = ()
    ) -> None:
        """Start nothing yet.

        Args:
            started_ms: since when this server answers, in milliseconds since the epoch.
            options: of the controller, besides.
        """
        self._data_dir = data_dir
        self._policies = policies
        self._started_ms = started_ms
        self._options = options
        self._child: Popen[bytes] | None = None
        self._began = 0.0
        self._pause = _SHORTEST_PAUSE_SECONDS
        self._not_before = 0.0

    def look_after(self) -> None:
        """Start the controller where there is a rollout for it to move, and note its end."""
        now = time.monotonic()
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return
            self._note_end(code, now)
        if self._policies.has_open_rollout and now >= self._not_before:
            self._start(now)

    def end(self) -> None:
        """End the controller and wait for it."""
        if self._child is None:
            return
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.terminate()
        give_up_at = time.monotonic() + _END_SECONDS
        while self._child.poll() is None and time.monotonic() < give_up_at:
            time.sleep(0.01)
        if self._child.poll() is None:
            log.error("the controller did not end, and is killed; it goes on at the next start")
            self._child.kill()
            self._child.wait()
        self._child = None

    def _note_end(self, code: int, now: float) -> None:
        assert self._child is not None and self._child.stdin is not None
        self._child.stdin.close()
        self._child = None
        if code == 0:
            return  # there was nothing more to do
        if now - self._began >= _SOUND_SECONDS:
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
        command += self._options
        self._began = now
        try:
            self._child = Popen(
                list(map(str, command)), stdin=PIPE, env=environment, close_fds=True
            )
        except OSError as problem:
            self._not_before = now + self._pause
            log.error("the controller cannot be started: %s; rollouts stand still", problem)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
