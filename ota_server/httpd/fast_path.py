"""Common requests in the event loop: answered from the bytes that arrived, by few steps.

A connection that was closed after one needs no state at all, and one that is kept open needs none
of its state but the time. Which requests these are, and why the connection machine would have given
the same answer, is the application's to say.
"""

import socket
from typing import TYPE_CHECKING

from ota_server.httpd.app import App, QuickReply
from ota_server.httpd.reply import Peer

if TYPE_CHECKING:
    from ota_server.httpd.channel import Link

# A request whose record is queued: its reply may leave once that was written. The link is None for
# a connection that was accepted in this turn. The reply has no content where it must not leave.
Answered = tuple[socket.SocketType, Peer, "Link | None", QuickReply]
_NOTHING = QuickReply(b"", keep_alive=False, needs_record=False)


class QuickAnswers:
    """What was answered quickly in one turn of the loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._answer = app.answer_quickly
        self._failures = app.failures
        self._is_lost = False
        self.answered: list[Answered] = []

    def take(self, data: bytes, sock: socket.SocketType, peer: Peer, link: "Link | None") -> bool:
        """Answer `data`, all that a connection has sent, if it is one common request."""
        quick = self._answer(data, peer)
        if quick is None:
            return False
        self.answered.append((sock, peer, link, quick))
        return True

    def flush(self) -> bool:
        """Have answers put on record; return whether that began to fail since the last time.

        What was answered by these records was decided as if they could be written.
        """
        failures, app = self._failures, self._app
        app.flush()
        self._failures = app.failures
        self._is_lost = failures != self._failures
        return self._is_lost

    def drain(self) -> list[Answered]:
        """Return what was answered since the last call."""
        answered, self.answered = self.answered, []
        if not self._is_lost:
            return answered
        return [
            (sock, peer, link, _NOTHING if quick.needs_record else quick)
            for sock, peer, link, quick in answered
        ]
