"""A connection that the application has taken over: it waits, in the thread of the connection. I/O.

A long upload is read piece by piece, and a stream is sent for as long as somebody listens. When
the server drains, each wait ends by `ConnectionEnds`.
"""

import select
import socket
import time
from collections.abc import Callable

from ota_server.httpd.http1 import CONTINUE
from ota_server.httpd.reply import Reply
from ota_server.httpd.sockets import LINGER_SECONDS, RECEIVE_BYTES

_NOW = socket.MSG_DONTWAIT
# A client that neither sends nor takes anything for so long has gone.
PATIENCE_SECONDS = 30.0


class ConnectionEnds(ConnectionError):
    """The server drains, or the client has closed its side or is silent: nothing more is read."""


class TakenConnection:
    """Reads and sends on one connection. Used by one thread."""

    def __init__(
        self, sock: socket.SocketType, received: bytes, wake: socket.SocketType | None
    ) -> None:
        """Take a connection that does not block.

        Args:
            received: what has arrived and nobody has read.
            wake: readable once the server drains.
        """
        self._sock = sock
        self._received = received
        self._wake = wake

    def ask_for_body(self) -> None:
        """Tell a client that waits for that (`Expect: 100-continue`) to send its body."""
        self.send(CONTINUE)

    def receive(self, most: int = RECEIVE_BYTES) -> bytes:
        """Return up to `most` bytes, at least one.

        Raises:
            ConnectionEnds: there are no more.
            OSError: the connection is gone.
        """
        return self._receive_within(most, PATIENCE_SECONDS)

    def _receive_within(self, most: int, seconds: float) -> bytes:
        if self._received:
            taken, self._received = self._received[:most], self._received[most:]
            return taken
        while True:
            try:
                data = self._sock.recv(most, _NOW)
            except BlockingIOError:
                self._wait(select.POLLIN, min(seconds, PATIENCE_SECONDS))
                continue
            if not data:
                raise ConnectionEnds("the client has closed its side")
            return data

    def read_body(self, length: int, seconds: float) -> bytes:
        """Return a whole body, which has to arrive in time: not piece by piece over hours.

        Args:
            seconds: for all of it.

        Raises:
            ConnectionEnds: it did not.
            OSError: the connection is gone.
        """
        until = time.monotonic() + seconds
        pieces = []
        while length:
            left = until - time.monotonic()
            if left <= 0:
                raise ConnectionEnds("the body did not arrive in time")
            piece = self._receive_within(min(length, RECEIVE_BYTES), left)
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def send(self, content: bytes) -> None:
        """Send all of it.

        Raises:
            ConnectionEnds: the server drains, or the client takes nothing.
            OSError: the connection is gone.
        """
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._sock.send(rest, _NOW) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, PATIENCE_SECONDS)

    def reply(self, answer: Reply, minor_version: int) -> None:
        """Send a reply, the last one of this connection.

        Raises:
            OSError: as `send`.
        """
        head = answer.head(int(time.time()), keep_alive=False, minor_version=minor_version)
        self.send(head + answer.body)

    def is_left(self) -> bool:
        """Return whether the client has closed its side, or the connection is gone."""
        try:
            return not self._sock.recv(1, _NOW | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def finish(self) -> None:
        """Close our side, and read what the client still sends for a second: else it gets a reset.

        Raises:
            OSError: the connection is gone.
        """
        self._sock.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LINGER_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                if not self._sock.recv(RECEIVE_BYTES, _NOW):
                    return
            except BlockingIOError:
                self._wait(select.POLLIN, left)

    def _wait(self, event: int, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        if self._wake is not None:
            poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(seconds * 1000))
        if self._wake is not None and self._wake.fileno() in ready:
            raise ConnectionEnds("the server stops")
        if not ready:
            raise ConnectionEnds("nothing was sent or taken for too long")


class TakesOver(Exception):
    """The application reads the body or sends the reply by itself; raised by `App.respond`.

    Only where each connection has a thread, in which `talk` is called; then the connection closes.
    """

    def __init__(self, talk: Callable[[TakenConnection], None]) -> None:
        super().__init__("the application takes over")
        self.talk = talk
