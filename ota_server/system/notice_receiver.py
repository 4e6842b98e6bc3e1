"""Who is told of notices: an operator's command, and URLs. I/O.

Each receiver is told by processes of its own, in two lanes: an alarm never waits for a process that
hangs over something else, and no receiver waits for another one.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ota_server.model.notice import Delivery, ReceiverHealth
from ota_server.model.webhook import LONG_WAIT_SECONDS, WebhookUrl
from ota_server.system import clock
from ota_server.system.notice_lane import (
    END_SECONDS,
    MOST_NOTICES,
    PER_SECONDS,
    Lane,
    Notice,
    Program,
    WhenEnded,
)

log = logging.getLogger(__name__)

_COMMAND_SECONDS = 60.0
# From its name to the head of its answer. The process that asks needs some time to begin, and a
# name that cannot be resolved may take longer.
_ANSWER_SECONDS = 10.0
_POST_SECONDS = 20.0
# The first pause before what was not told is told again.
_COMMAND_PAUSE_SECONDS = 60.0
_POST_PAUSE_SECONDS = 5.0
# Of what a command prints.
_MOST_LINES = 20
_MOST_CHARACTERS = 200
_MOST_BYTES = 64 * 1024


class ShellCommand:
    """Tells an operator's command: the notice is a line of JSON on its standard input."""

    name = "--notify-command"

    def __init__(self, command: str, longest_seconds: float = _COMMAND_SECONDS) -> None:
        self._command = command
        self.longest_seconds = longest_seconds

    def arguments(self) -> list[str]:
        """Return the command of the process."""
        return ["/bin/sh", "-c", self._command]

    def environment(self) -> None:
        """Return that the process has the environment of this one."""

    def content(self, notice: Notice) -> bytes:
        """Return the notice as a line."""
        return json.dumps(notice).encode("ascii") + b"\n"

    def delivery(self, notice: Notice, printed: bytes, code: int) -> Delivery:
        """Log what the command printed; it was told if it has ended by exit code 0."""
        event = notice["event"]
        lines = printed[:_MOST_BYTES].decode("utf-8", "replace").splitlines()
        for line in lines[:_MOST_LINES]:
            text = "".join(char if char.isprintable() else "?" for char in line)
            log.info("%s (%s): %s", self.name, event, text[:_MOST_CHARACTERS])
        if not code:
            return Delivery(True)
        how = f"ended by exit code {code}" if code > 0 else f"ended by signal {-code}"
        log.warning("%s (%s) %s", self.name, event, how)
        return Delivery(False, f"it {how}")


class PostProgram:
    """Sends notices to a URL, by `notice_post` in a process of its own."""

    longest_seconds = _POST_SECONDS
    answer_seconds = _ANSWER_SECONDS

    def __init__(self, url: WebhookUrl, secret_file: Path | None, name: str = "") -> None:
        """Prepare to send; the secret is read again for each notice.

        Args:
            secret_file: None: what is sent is not signed.
            name: of the receiver, where that of the URL is not enough.
        """
        self.name = name or url.shown
        self._url = url
        self._secret_file = None if secret_file is None else str(secret_file.absolute())

    def arguments(self) -> list[str]:
        """Return the command of the process; the URL is not in it, since others could read it."""
        return [sys.executable, "-P", "-m", "ota_server.system.notice_post"]

    def environment(self) -> Mapping[str, str]:
        """Return an environment in which this package is found, wherever the server was started."""
        package = str(Path(__file__).resolve().parent.parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
        return {**os.environ, "PYTHONPATH": path}

    def content(self, notice: Notice) -> bytes:
        """Return what `notice_post` reads."""
        job = {
            "url": self._url.url,
            "secret_file": self._secret_file,
            "seconds": self.answer_seconds,
            "id": notice["id"],
            "body": json.dumps(notice),
        }
        return json.dumps(job).encode("ascii")

    def delivery(self, notice: Notice, printed: bytes, code: int) -> Delivery:
        """Return what `notice_post` says, and log what went wrong."""
        try:
            delivery = Delivery(**json.loads(printed))
        except (ValueError, TypeError):
            end = printed.decode("utf-8", "replace").rstrip().rpartition("\n")[2]
            text = "".join(char if char.isprintable() else "?" for char in end)
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            why = f"the process that sends ended by {how}: {text[:_MOST_CHARACTERS]}"
            delivery = Delivery(False, why)
        if not delivery.is_told:
            level = logging.ERROR if delivery.wait_seconds >= LONG_WAIT_SECONDS else logging.WARNING
            log.log(level, "%s (%s): %s", self.name, notice["event"], delivery.problem)
        return delivery


class Receiver:
    """Somebody who is told of notices.

    `tell` is quick; it may be called by one thread at a time.

    Attributes:
        key: names it in the names of files; "": it is the command.
        first_pause_seconds: before what was not told is told again.
        health: replaced as a whole, by the threads that tell.
    """

    def __init__(
        self,
        program: Program,
        key: str = "",
        first_pause_seconds: float = _COMMAND_PAUSE_SECONDS,
        most_notices: int = MOST_NOTICES,
        per_seconds: float = PER_SECONDS,
    ) -> None:
        self.name = program.name
        self.key = key
        self.first_pause_seconds = first_pause_seconds
        self.health = ReceiverHealth()
        self._lanes = tuple(Lane(program, most_notices, per_seconds) for _ in range(2))

    def tell(
        self, notice: Notice, is_alarm: bool = False, when_ended: WhenEnded | None = None
    ) -> bool:
        """Have a notice told, soon; return whether it will be.

        Args:
            when_ended: called by another thread, with what came of it.
        """

        def note(delivery: Delivery) -> None:
            self._note_health(delivery)
            if when_ended is not None:
                when_ended(delivery)

        return self._lanes[is_alarm].take(notice, note)

    def _note_health(self, delivery: Delivery) -> None:
        now_ms = clock.now_ms()
        if delivery.is_told:
            self.health = ReceiverHealth(told_ms=now_ms)
            return
        since_ms = self.health.failing_since_ms or now_ms
        self.health = self.health._replace(failing_since_ms=since_ms, problem=delivery.problem)

    def end(self) -> int:
        """Let what was taken be told, for two seconds at most; then kill what tells it.

        Returns:
            How many notices were not told.
        """
        for lane in self._lanes:
            lane.finish()
        give_up_at = time.monotonic() + END_SECONDS
        return sum(lane.end(give_up_at) for lane in self._lanes)


def command_receiver(command: str) -> Receiver:
    """Return the receiver that a command is."""
    return Receiver(ShellCommand(command))


def url_receiver(url: WebhookUrl, secret_file: Path | None, key: str, name: str = "") -> Receiver:
    """Return the receiver that a URL is; `key` and `name` as those of the receiver."""
    return Receiver(PostProgram(url, secret_file, name), key, _POST_PAUSE_SECONDS)
