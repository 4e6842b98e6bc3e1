"""A connection and its socket, as the event loop drives them: nothing here waits."""

import socket

from ota_server.httpd.app import NotReady
from ota_server.httpd.connection import Connection, Outgoing
from ota_server.httpd.pacing import Pace, Pacing
from ota_server.httpd.readahead import WINDOW_BYTES, ReadAhead, Reading
from ota_server.httpd.reply import ImageSpan
from ota_server.httpd.sockets import (
    ACK_POLL_SECONDS,
    HASHING_WAIT_SECONDS,
    LINGER_SECONDS,
    discard_unsent,
    read_unchanged,
    send_copy,
    unacknowledged_bytes,
)

# Read and sent, where there is no private copy that sendfile can be used on (docs/adr/0003).
_CHUNK_BYTES = 256 * 1024
_LEAST_CHUNK_BYTES = 16 * 1024
_READING_LOOK_SECONDS = 0.002
_MORE = getattr(socket, "MSG_MORE", 0)


class Link:
    """One connection, its socket and what is still to be sent.

    Attributes:
        events: what the poller watches for; None: it does not know this socket.
        is_fresh: the next bytes begin a request, and nothing else is under way.
        timer_at: when the loop looks at it again; None: never.
        not_ready: the image that the request under way waits for.
        give_up_at: when it is told that the image is not ready.
        reading: the part of an image that has to be read from the disk first; None: there is none.
        paced_until: when its next turn to send is; None: it is now.
        linger_until: our side is closed; when to close the other; None: it is open.
    """

    __slots__ = (
        "_ack_wait",
        "_ahead",
        "_by_sendfile",
        "_chunk_bytes",
        "_offset",
        "_outgoing",
        "_pace",
        "_pacing",
        "_sent_bytes",
        "close_after",
        "connection",
        "events",
        "fd",
        "give_up_at",
        "is_closed",
        "is_fresh",
        "linger_until",
        "not_ready",
        "paced_until",
        "reading",
        "sock",
        "timer_at",
    )

    def __init__(
        self,
        sock: socket.SocketType,
        connection: Connection,
        ahead: ReadAhead,
        by_sendfile: bool,
        pacing: Pacing | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.connection = connection
        self.events: int | None = None
        self.timer_at: float | None = None
        self.not_ready: NotReady | None = None
        self.give_up_at = 0.0
        self.linger_until: float | None = None
        self.close_after = False
        self.is_closed = False
        self.is_fresh = True
        self.reading: Reading | None = None
        self.paced_until: float | None = None
        self._pacing = pacing
        self._pace: Pace | None = None
        self._ahead = ahead
        self._by_sendfile = by_sendfile
        self._outgoing: tuple[memoryview | ImageSpan, ...] = ()
        self._offset = 0
        self._sent_bytes = 0
        self._chunk_bytes = _CHUNK_BYTES
        self._ack_wait = ACK_POLL_SECONDS[0]

    def __lt__(self, other: "Link") -> bool:
        """Put links that are due at the same instant in some order, for the heap of timers."""
        return id(self) < id(other)

    @property
    def is_sending(self) -> bool:
        """Whether there is something left to send."""
        return bool(self._outgoing)

    @property
    def is_deaf(self) -> bool:
        """Whether what the client sends stays with the kernel, as while its request waits."""
        connection = self.connection
        return connection.input_ended or connection.has_enough or self.not_ready is not None

    @property
    def holds_back(self) -> bool:
        """Whether what is left must not be sent yet, though the socket may have room."""
        return self.reading is not None or self.paced_until is not None

    def may_go_on(self, now: float) -> bool:
        """Say whether what was held back may be sent now."""
        if self.reading is not None:
            return self.reading.is_done
        return self.paced_until is not None and now >= self.paced_until

    @property
    def sends_withdrawn(self) -> bool:
        """Whether what it sends, or what its client has not got yet, was withdrawn."""
        if self.connection.sends_withdrawn:
            return True
        return any(isinstance(p, ImageSpan) and p.image.is_withdrawn for p in self._outgoing)

    def take(self, data: bytes, now: float) -> None:
        """Hand on what has arrived."""
        self.is_fresh = False
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
        self.connection.receive(data, now)

    def answered_quickly(self, content: bytes, sent: int, keep_alive: bool, now: float) -> None:
        """Take note of a reply that the connection machine has not made, sent up to `sent`."""
        self.connection.answered_quickly(len(content), keep_alive, now)
        self._sent_bytes += sent
        self.close_after = not keep_alive
        if sent < len(content):
            self.is_fresh = False
            self._outgoing = (memoryview(content)[sent:],)

    def begin(self, outgoing: Outgoing, now: float) -> bool:
        """Begin to send a reply; True when all of it was sent.

        Raises:
            OSError: the connection is gone.
            ImageChanged: the image was cut or written to.
        """
        self.close_after = outgoing.close
        if not outgoing.parts:
            try:
                sent = self.sock.send(outgoing.head)
            except BlockingIOError:
                sent = 0
            self._sent_bytes += sent
            if sent == len(outgoing.head):
                return True
            self._outgoing = (memoryview(outgoing.head)[sent:],)
            return False
        pieces = [p if isinstance(p, ImageSpan) else memoryview(p) for p in outgoing.parts]
        self._outgoing = (memoryview(outgoing.head), *pieces)
        if self._pace is None and self._pacing is not None:
            self._pace = self._pacing.pace()
        return self.send(now)

    def send(self, now: float) -> bool:
        """Send as much as the client takes in this turn; True when nothing is left.

        Raises:
            OSError: the connection is gone.
            ImageChanged: the image was cut or written to.
        """
        left = WINDOW_BYTES
        was_looked_at = False
        self.paced_until = None
        try:
            while self._outgoing and left > 0:
                piece = self._outgoing[0]
                if isinstance(piece, ImageSpan):
                    if not was_looked_at and not self._is_in_memory(piece, now):
                        return False
                    was_looked_at = True
                    most = WINDOW_BYTES if self._pace is None else self._allowed(piece, now)
                    if most == 0:
                        return False
                    sent, wanted = self._send_span(piece, most)
                else:
                    wanted = len(piece)
                    sent = self._send_bytes(piece, is_last=len(self._outgoing) == 1)
                self._sent_bytes += sent
                if sent < wanted:
                    return False  # the socket is full: to hear so once more costs a system call
                left -= sent
        except BlockingIOError:
            return False
        return not self._outgoing

    def _is_in_memory(self, span: ImageSpan, now: float) -> bool:
        """Say whether the next window of an image can be sent at once; else have it read."""
        if self.reading is not None:
            reading, self.reading = self.reading, None
            if reading.is_done:
                return True
        image, start = span.image, self._offset or span.start
        descriptor = image.descriptor if image.copy is None else image.copy.descriptor
        last = min(start + WINDOW_BYTES, span.stop) - 1
        if self._ahead.needs(descriptor, start, last, now):
            self.reading = self._ahead.begin(image, descriptor, start)
        return self.reading is None

    def _send_bytes(self, piece: memoryview, is_last: bool) -> int:
        sent = self.sock.send(piece, 0 if is_last else _MORE)
        self._go_on(piece[sent:] if sent < len(piece) else None)
        return sent

    def _allowed(self, span: ImageSpan, now: float) -> int:
        """Return how many bytes of an image may be sent now; 0: none before `paced_until`."""
        assert self._pace is not None
        most = self._pace.allowed(span.stop - (self._offset or span.start), now)
        self.paced_until = None if most else self._pace.due
        return most

    def _send_span(self, span: ImageSpan, most: int) -> tuple[int, int]:
        """Send up to `most` bytes of an image; return how many went, and how many were tried."""
        start = self._offset or span.start
        copy = span.image.copy
        if self._by_sendfile and copy is not None:
            length = min(span.stop - start, most)
            sent = send_copy(self.sock, span, copy, start, length)
        else:
            length = min(self._chunk_bytes, span.stop - start, most)
            sent = self.sock.send(read_unchanged(span, start, length))
            # A slow client takes a little at a time: do not read for it what it will not take.
            self._chunk_bytes = (
                _CHUNK_BYTES if sent == length else max(_LEAST_CHUNK_BYTES, 2 * sent)
            )
        if self._pace is not None:
            self._pace.sent(sent)
        self._offset = start + sent
        if self._offset == span.stop:
            self._go_on(None)
        return sent, length

    def _go_on(self, rest: memoryview | None) -> None:
        """Put the rest of the first piece in its place, or go on to the next."""
        rest_of_it = () if rest is None else (rest,)
        self._outgoing = (*rest_of_it, *self._outgoing[1:])
        self._offset = 0

    def park(self, not_ready: NotReady, now: float) -> None:
        """Have the request under way wait for an image."""
        if self.not_ready is None:
            self.give_up_at = now + HASHING_WAIT_SECONDS
        self.not_ready = not_ready

    def wait_for_more(self) -> None:
        """There is nothing to answer until the client sends more, or acknowledges more."""
        self.is_fresh = self.connection.is_idle
        if self.connection.has_enough:
            self._ack_wait = ACK_POLL_SECONDS[0]

    def may_wait(self, now: float) -> bool:
        """Say whether the request under way may wait on for an image."""
        return self.not_ready is None or now < self.give_up_at

    def linger(self, now: float) -> None:
        """Close our side of the connection; the other is read on for a moment.

        Raises:
            OSError: the connection is gone.
        """
        self.connection.stop_reading()
        self.sock.shutdown(socket.SHUT_WR)
        self.linger_until = now + LINGER_SECONDS

    def note_acknowledged(self, now: float) -> None:
        """Ask the kernel how much of what was sent the other side has."""
        try:
            waiting = unacknowledged_bytes(self.sock)
        except OSError:
            return
        if self.linger_until is not None and waiting:
            waiting -= 1  # our FIN counts as a byte, and is acknowledged last
        self.connection.acknowledged(self._sent_bytes - waiting, now)

    def due(self, now: float) -> float:
        """Return when to look at it again if nothing happens before."""
        connection = self.connection
        if self.not_ready is not None:
            return self.give_up_at
        if self.reading is not None:
            return now + _READING_LOOK_SECONDS
        if self.paced_until is not None:
            return min(self.paced_until, connection.stalled_at)
        if self._outgoing:
            return connection.stalled_at
        if connection.awaits_acknowledgement:
            return now + min(self._ack_wait, connection.wait_seconds(now))
        if self.linger_until is not None:
            return self.linger_until
        return now + connection.wait_seconds(now)

    def has_time_left(self, now: float) -> bool:
        """Do what time asks for; False when this connection has had its time.

        Raises:
            OSError: the connection is gone.
        """
        connection = self.connection
        if self.linger_until is not None:
            # With both sides closed no poller watches it: a reset has to be asked for.
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise ConnectionResetError(error, "the connection was reset")
        if connection.awaits_acknowledgement or self._outgoing:
            self.note_acknowledged(now)
            self._ack_wait = min(self._ack_wait * 2, ACK_POLL_SECONDS[1])
        if self.paced_until is not None:
            connection.held_back(self._sent_bytes, now)
        if self.sends_withdrawn:
            return False
        if self.not_ready is not None:
            return True  # the idle time does not run while we are the ones who are waited for
        if self._outgoing:
            return not connection.is_stalled(now)
        has_time = connection.tick(now)
        if self.linger_until is None or connection.awaits_acknowledgement:
            return has_time
        return not connection.input_ended and now < self.linger_until

    def close(self, was_reset: bool, now: float) -> None:
        """Close the socket, and put the ends of downloads on record."""
        self.is_closed = True
        if self.sends_withdrawn:
            discard_unsent(self.sock)
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
            self.connection.close(was_reset)
        self._outgoing = ()
        self.sock.close()
