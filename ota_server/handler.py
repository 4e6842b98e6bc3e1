"""`OTARequestHandler`: one connection driven by one thread with a non-blocking socket."""

import array
import fcntl
import logging
import select
import socket
import sys
import termios
import time
from socketserver import BaseRequestHandler
from typing import TYPE_CHECKING

from ota_server.connection import Connection, Outgoing
from ota_server.reply import ImageSpan, Peer
from ota_server.store import NotReady

if TYPE_CHECKING:
    from ota_server.server import OTAServer

log = logging.getLogger(__name__)

# Read anew for each turn, so a slow client holds a socket buffer and not a piece of the image too.
_CHUNK_BYTES = 64 * 1024
# What is looked at once more before it leaves; with less than this a client has no whole image.
_TAIL_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024
# A device gives up after 5 to 8 s; it had better hear 503 than nothing.
_HASHING_WAIT_SECONDS = 5.0
# RFC 9112 section 9.6: closing at once could reset the connection before our reply is read.
_LINGER_SECONDS = 1.0
# No event tells that the other side has acknowledged something; it is asked this often, ever less,
# for a thousand stalled clients asked 20 times a second would take all the processor time.
_ACK_POLL_SECONDS = (0.002, 0.5)
_STALL_LOOK_SECONDS = 1.0
_MORE = getattr(socket, "MSG_MORE", 0)
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer, acknowledged ones not counted
_POLL_ERRORS = select.POLLERR | select.POLLNVAL


class _ImageChanged(Exception):
    """The file was cut or written to under the download: end it here, never mix."""


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return how many bytes of those sent the other side has not acknowledged, FIN included.

    `send` returns when the kernel has taken the bytes: measured, a socket took a whole 73 KB image
    while its client had read none. Linux: SIOCOUTQ (tcp(7)); macOS: SO_NWRITE.
    """
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    answer = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, answer)
    return answer[0]


def peer_of(sock: socket.socket, address: str) -> Peer:
    """Return who is at the other end; an IPv4 address is written plain, also on a dual socket."""
    try:
        here = str(sock.getsockname()[0])
    except OSError:
        here = ""
    plain = address.removeprefix("::ffff:") if "." in address else address
    is_local = plain == "::1" or plain.startswith("127.") or address == here
    return Peer(plain, is_local)


class OTARequestHandler(BaseRequestHandler):
    """Reads, answers and sends until the client, the deadlines or the server end it."""

    server: "OTAServer"
    request: socket.socket

    def setup(self) -> None:
        """Make the connection machine for this socket."""
        self._sock = self.request
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)
        self._sent_bytes = 0
        self._sent_fin = False
        self._peer = peer_of(self._sock, self.client_address[0])
        self._connection = Connection(
            self.server.service, self._peer, self.server.idle_seconds, time.monotonic()
        )

    def handle(self) -> None:
        """Drive the connection to its end."""
        was_reset = False
        try:
            self._converse()
            self._linger()
        except _ImageChanged as problem:
            log.error("%s: download ended: %s", self._peer.address, problem)
        except OSError as problem:
            # The network's: a reset, no route, no acknowledgement. Files raise what is above.
            was_reset = not isinstance(problem, TimeoutError)
            if self._connection.awaits_acknowledgement and not self.server.is_ending:
                self._say_left(problem)
        finally:
            self._note_acknowledged()
            self._connection.close(was_reset)
            self.server.service.flush()

    def _say_left(self, problem: OSError) -> None:
        if self.server.service.may_say_left(self._peer.address, time.monotonic()):
            log.info("%s left a download: %s", self._peer.address, problem)

    def _converse(self) -> None:
        connection = self._connection
        while True:
            outgoing = self._next_reply()
            if outgoing is not None:
                self._send(outgoing)
                if outgoing.close:
                    return
            elif connection.is_over or not self._receive():
                return

    def _next_reply(self) -> Outgoing | None:
        """Answer the next request, and bring its record to the journal before a byte leaves."""
        give_up_at = time.monotonic() + _HASHING_WAIT_SECONDS
        while True:
            now = time.monotonic()
            try:
                outgoing = self._connection.next_reply(
                    now, now < give_up_at, self.server.is_draining
                )
            except NotReady as not_ready:
                not_ready.hashing.done.wait(give_up_at - now)
                continue
            self.server.service.flush()
            return outgoing

    def _receive(self) -> bool:
        """Wait for the client and take what it sends; False when its time is over."""
        ack_wait = _ACK_POLL_SECONDS[0]
        while True:
            now = time.monotonic()
            self._note_acknowledged()
            if self.server.is_ending:
                return False
            # A thread that came late, of thousands, has not lost what its client sent in time.
            if not self._connection.tick(now) and not self._wait(select.POLLIN, 0):
                return False
            self.server.service.flush()
            if self._connection.head_is_late:
                return True
            wait = self._connection.wait_seconds(now)
            if self._connection.awaits_acknowledgement:
                wait = min(wait, ack_wait)
                ack_wait = min(ack_wait * 2, _ACK_POLL_SECONDS[1])
            if self._wait(select.POLLIN, wait):
                break
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return True
        self._note_acknowledged()
        self._connection.receive(data, time.monotonic())
        return True

    def _send(self, outgoing: Outgoing) -> None:
        self._send_bytes(outgoing.head, _MORE if outgoing.parts else 0)
        for part in outgoing.parts:
            if isinstance(part, ImageSpan):
                self._send_span(part)
            else:
                self._send_bytes(part)
        self._connection.sent_all(time.monotonic())

    def _send_bytes(self, content: bytes, flags: int = 0) -> None:
        view = memoryview(content)
        while view:
            view = view[self._send_some(view, flags) :]

    def _send_span(self, span: ImageSpan) -> None:
        """Send a piece of an image, copied: what sendfile hands over can change on its way."""
        offset = span.start
        while offset < span.stop:
            self._wait_until_writable()
            length = min(_CHUNK_BYTES, span.stop - offset)
            try:
                chunk = span.image.read(offset, length)
            except OSError as problem:
                raise _ImageChanged(f"{span.image.version}: {problem.strerror}") from problem
            if len(chunk) < length:
                raise _ImageChanged(f"the image of {span.image.version} was cut")
            # After the read and before the send: what is sent was read from an unchanged file.
            if offset + length > span.stop - _TAIL_BYTES and not span.image.is_unchanged():
                raise _ImageChanged(f"the image of {span.image.version} was written to")
            offset += self._send_some(memoryview(chunk), 0)

    def _send_some(self, view: memoryview, flags: int) -> int:
        while True:
            try:
                sent = self._sock.send(view, flags)
            except BlockingIOError:
                self._wait_until_writable()
                continue
            self._sent_bytes += sent
            return sent

    def _wait_until_writable(self) -> None:
        if self._wait(select.POLLOUT, 0):
            return
        while not self._wait(select.POLLOUT, _STALL_LOOK_SECONDS):
            self._note_acknowledged()
            if self._connection.is_stalled(time.monotonic()):
                raise TimeoutError("no byte acknowledged for too long")

    def _wait(self, events: int, seconds: float) -> bool:
        self._poll.modify(self._sock.fileno(), events)
        ready = self._poll.poll(seconds * 1000)
        if ready and ready[0][1] & _POLL_ERRORS:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            raise ConnectionResetError(error, "the connection was reset")
        return bool(ready)

    def _note_acknowledged(self) -> None:
        try:
            waiting = unacknowledged_bytes(self._sock)
        except OSError:
            return
        if self._sent_fin and waiting:
            waiting -= 1  # our FIN counts as a byte, and is acknowledged last
        self._connection.acknowledged(self._sent_bytes - waiting, time.monotonic())

    def _linger(self) -> None:
        """Close our side, then read on until the client closes its own or acknowledges the rest."""
        self._sock.shutdown(socket.SHUT_WR)
        self._sent_fin = True
        until = time.monotonic() + _LINGER_SECONDS
        events = 0 if self._connection.input_ended else select.POLLIN
        ack_wait = _ACK_POLL_SECONDS[0]
        while True:
            now = time.monotonic()
            self._note_acknowledged()
            if not self._connection.tick(now) and self._connection.awaits_acknowledgement:
                raise TimeoutError("no byte acknowledged for too long")
            if self.server.is_ending:
                return
            if not self._connection.awaits_acknowledgement and (not events or now >= until):
                return
            if not events:
                time.sleep(ack_wait)  # with both sides closed a poll would return at once
            if self._wait(events, ack_wait if events else 0) and events:
                data = self._sock.recv(_RECEIVE_BYTES)
                self._note_acknowledged()
                self._connection.receive(data, now)
                events = select.POLLIN if data else 0
            ack_wait = min(ack_wait * 2, _ACK_POLL_SECONDS[1])
