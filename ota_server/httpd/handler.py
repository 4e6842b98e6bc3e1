"""`OTARequestHandler`: one connection driven by one thread with a non-blocking socket."""

import logging
import select
import socket
import time
from socketserver import BaseRequestHandler

from ota_server.httpd.app import NotReady
from ota_server.httpd.connection import Connection, Outgoing
from ota_server.httpd.listener import Listener
from ota_server.httpd.pacing import Pace
from ota_server.httpd.reply import ImageSpan
from ota_server.httpd.sockets import (
    ACK_POLL_SECONDS,
    HASHING_WAIT_SECONDS,
    LINGER_SECONDS,
    RECEIVE_BYTES,
    ImageChanged,
    ImageWithdrawn,
    discard_unsent,
    peer_of,
    read_unchanged,
    refuse_withdrawn,
    unacknowledged_bytes,
)

log = logging.getLogger(__name__)

# Read anew for each turn, so a slow client holds a socket buffer and not a piece of the image too.
_CHUNK_BYTES = 64 * 1024
_STALL_LOOK_SECONDS = 0.5
_MORE = getattr(socket, "MSG_MORE", 0)
_POLL_ERRORS = select.POLLERR | select.POLLNVAL


class OTARequestHandler(BaseRequestHandler):
    """Reads, answers and sends until the client, the deadlines or the server end it."""

    server: Listener
    request: socket.SocketType

    def setup(self) -> None:
        """Make the connection machine for this socket."""
        self._sock = self.request
        self._sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)
        self._sent_bytes = 0
        self._sent_fin = False
        self._pace = None if self.server.pacing is None else self.server.pacing.pace()
        self._peer = peer_of(self._sock, self.client_address[0])
        self._connection = Connection(
            self.server.app, self._peer, self.server.idle_seconds, time.monotonic()
        )

    def handle(self) -> None:
        """Drive the connection to its end."""
        was_reset = False
        try:
            self._converse()
            self._linger()
        except ImageChanged as problem:
            if self.server.may_say(str(problem), time.monotonic()):
                log.error("downloads ended: %s", problem)
            if isinstance(problem, ImageWithdrawn):
                discard_unsent(self._sock)
        except OSError as problem:
            # The network's: a reset, no route, no acknowledgement. Files raise what is above.
            was_reset = not isinstance(problem, TimeoutError)
            if self._connection.awaits_acknowledgement and not self.server.is_ending:
                self._say_left(problem)
        finally:
            self._note_acknowledged()
            self._connection.close(was_reset)
            self.server.app.flush()

    def _refuse_withdrawn(self) -> None:
        """End a download that its client has not acknowledged, and that was withdrawn."""
        if self._connection.sends_withdrawn:
            raise ImageWithdrawn("what a client has not got yet was withdrawn")

    def _say_left(self, problem: OSError) -> None:
        if self.server.may_say_left(self._peer.address, time.monotonic()):
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
        app = self.server.app
        give_up_at = time.monotonic() + HASHING_WAIT_SECONDS
        while True:
            now, failures = time.monotonic(), app.failures
            try:
                outgoing = self._connection.next_reply(
                    now, now < give_up_at, self.server.is_draining
                )
            except NotReady as not_ready:
                not_ready.done.wait(give_up_at - now)
                continue
            app.flush()
            if outgoing is None or failures == app.failures:
                return outgoing
            if not outgoing.needs_record:
                return outgoing
            self._connection.close(was_reset=False)
            self._connection.stop_reading()
            return None

    def _receive(self) -> bool:
        """Wait for the client and take what it sends; False when its time is over."""
        ack_wait = ACK_POLL_SECONDS[0]
        while True:
            now = time.monotonic()
            self._note_acknowledged()
            self._refuse_withdrawn()
            if self.server.is_ending:
                return False
            events = 0 if self._connection.has_enough else select.POLLIN
            # A thread that came late, of thousands, has not lost what its client sent in time.
            if not self._connection.tick(now) and not self._wait(events, 0):
                return False
            self.server.app.flush()
            if self._connection.is_due:
                return True
            wait = self._connection.wait_seconds(now)
            if self._connection.awaits_acknowledgement:
                wait = min(wait, ack_wait)
                ack_wait = min(ack_wait * 2, ACK_POLL_SECONDS[1])
            if self._wait(events, wait):
                break
        try:
            data = self._sock.recv(RECEIVE_BYTES)
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
        """Send a piece of an image by reading it, slower than the loop: see docs/adr/0003."""
        offset = span.start
        while offset < span.stop:
            length = min(_CHUNK_BYTES, span.stop - offset)
            if self._pace is not None:
                length = self._wait_for_turn(self._pace, length)
            self._wait_until_writable(span)
            chunk = read_unchanged(span, offset, length)
            sent = self._send_some(memoryview(chunk), 0, span)
            if self._pace is not None:
                self._pace.sent(sent)
            offset += sent

    def _wait_for_turn(self, pace: Pace, wanted: int) -> int:
        """Wait until some bytes of an image may be sent; return how many of those `wanted`."""
        while True:
            now = time.monotonic()
            with self.server.pacing_lock:
                allowed = pace.allowed(wanted, now)
            # An event without being waited for is the end of the connection: sending says so.
            wait = min(pace.due - now, _STALL_LOOK_SECONDS)
            if allowed or self._wait(0, wait):
                return allowed or wanted
            self._note_acknowledged()
            self._connection.held_back(self._sent_bytes, time.monotonic())
            if self._connection.is_stalled(time.monotonic()):
                raise TimeoutError("no byte acknowledged for too long")

    def _send_some(self, view: memoryview, flags: int, span: ImageSpan | None = None) -> int:
        while True:
            try:
                sent = self._sock.send(view, flags)
            except BlockingIOError:
                self._wait_until_writable(span)
                continue
            self._sent_bytes += sent
            return sent

    def _wait_until_writable(self, span: ImageSpan | None = None) -> None:
        if self._wait(select.POLLOUT, 0):
            return
        while not self._wait(select.POLLOUT, _STALL_LOOK_SECONDS):
            self._note_acknowledged()
            if span is not None:
                refuse_withdrawn(span)
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
        self._connection.stop_reading()
        self._sock.shutdown(socket.SHUT_WR)
        self._sent_fin = True
        until = time.monotonic() + LINGER_SECONDS
        events = 0 if self._connection.input_ended else select.POLLIN
        ack_wait = ACK_POLL_SECONDS[0]
        while True:
            now = time.monotonic()
            self._note_acknowledged()
            self._refuse_withdrawn()
            if not self._connection.tick(now) and self._connection.awaits_acknowledgement:
                raise TimeoutError("no byte acknowledged for too long")
            if self.server.is_ending:
                return
            if not self._connection.awaits_acknowledgement and (not events or now >= until):
                return
            if not events:
                time.sleep(ack_wait)  # with both sides closed a poll would return at once
            if self._wait(events, ack_wait if events else 0) and events:
                data = self._sock.recv(RECEIVE_BYTES)
                self._note_acknowledged()
                self._connection.receive(data, now)
                events = select.POLLIN if data else 0
            ack_wait = min(ack_wait * 2, ACK_POLL_SECONDS[1])
