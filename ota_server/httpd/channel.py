"""A channel: one connection and its socket. It never waits.

Its state says what it waits for, and so which event of the socket wakes it (`Watching`):

| state     | waits for                                    | event    | at most             |
|-----------|----------------------------------------------|----------|---------------------|
| FRESH     | a request; nothing is under way              | readable | the idle time       |
| ASKED     | more of a request, or acknowledgements       | readable | see `Connection`    |
| PARKED    | an answer that is not ready (`NotReady`)     | none     | until `give_up_at`  |
| SENDING   | room in the socket                           | writable | until it is stalled |
| HELD      | its time to send (pacing), or a disk         | none     | until then          |
| LINGERING | the client's close; our side is closed       | readable | a second            |
| CLOSED    | nothing                                      |          |                     |

    FRESH → ASKED      bytes have arrived
    ASKED → PARKED     the answer is not ready; back when it is, or when `give_up_at` is over
    ASKED → SENDING    the socket did not take all of a reply
    SENDING ⇄ HELD     it must not continue yet; now it may
    SENDING → ASKED    everything is sent
    ASKED → FRESH      everything is answered and acknowledged, and the connection stays open
    ASKED → LINGERING  everything is answered, it closes, but the client may not have all of it
    any → CLOSED       at the end, after a reset, or when its time is over

An ASKED or LINGERING channel whose client has sent enough, or everything, waits for no event.
"""

import socket
from enum import Enum

from ota_server.httpd.app import NotReady
from ota_server.httpd.connection import Connection
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.readahead import ReadAhead
from ota_server.httpd.reply import ImageSpan, Outgoing, Transfer
from ota_server.httpd.sender import Sender
from ota_server.httpd.sockets import (
    ACK_POLL_SECONDS,
    HASHING_WAIT_SECONDS,
    LINGER_SECONDS,
    RECEIVE_BYTES,
    discard_unsent,
    unacknowledged_bytes,
)

_READING_LOOK_SECONDS = 0.002


class ChannelState(Enum):
    """See the table above."""

    FRESH = "fresh"
    ASKED = "asked"
    PARKED = "parked"
    SENDING = "sending"
    HELD = "held"
    LINGERING = "lingering"
    CLOSED = "closed"


# The names of an Enum's members cost more to look up than those of a module.
FRESH, ASKED, PARKED = ChannelState.FRESH, ChannelState.ASKED, ChannelState.PARKED
SENDING, HELD, LINGERING, CLOSED = (
    ChannelState.SENDING,
    ChannelState.HELD,
    ChannelState.LINGERING,
    ChannelState.CLOSED,
)


class Channel(Sender):
    """One connection, its socket and what is still to be sent. Used by one thread at a time.

    Attributes:
        events: what the poller watches for; None if it does not watch this socket.
        timer_at: when its driver looks at it again; None if never.
        not_ready: what the current request waits for, or None.
        give_up_at: when the client is told that this is not ready.
        close_after: the connection closes after what is being sent.
    """

    __slots__ = (
        "_ack_wait",
        "_linger_until",
        "close_after",
        "connection",
        "events",
        "fd",
        "give_up_at",
        "not_ready",
        "state",
        "timer_at",
    )

    def __init__(
        self,
        sock: socket.SocketType,
        connection: Connection,
        ahead: ReadAhead | None,
        by_sendfile: bool,
        pacing: Pacing | None = None,
    ) -> None:
        super().__init__(sock, ahead, by_sendfile, pacing)
        self.fd = sock.fileno()
        self.connection = connection
        self.state = FRESH
        self.events: int | None = None
        self.timer_at: float | None = None
        self.not_ready: NotReady | None = None
        self.give_up_at = 0.0
        self.close_after = False
        self._ack_wait = ACK_POLL_SECONDS[0]
        self._linger_until = 0.0

    def __lt__(self, other: "Channel") -> bool:
        """Order channels that are due at the same time, for the heap of timers."""
        return id(self) < id(other)

    @property
    def is_sending(self) -> bool:
        """Whether something is left to send."""
        return self.state is SENDING or self.state is HELD

    @property
    def ignores_input(self) -> bool:
        """Whether what the client sends stays in the kernel for now."""
        connection = self.connection
        return connection.input_ended or connection.has_enough

    def may_go_on(self, now: float) -> bool:
        """Return whether what is HELD may be sent now."""
        if self.state is not HELD:
            return False
        if self._reading is not None:
            return self._reading.is_done
        return self._paced_until is not None and now >= self._paced_until

    @property
    def sends_withdrawn(self) -> bool:
        """Whether an image was withdrawn that it sends, or that is not acknowledged yet."""
        if self.connection.sends_withdrawn:
            return True
        return any(isinstance(p, ImageSpan) and p.image.is_withdrawn for p in self._outgoing)

    def take(self, data: bytes, now: float) -> None:
        """Take what has arrived."""
        if self.state is FRESH:
            self.state = ASKED
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
        self.connection.receive(data, now)

    def answered_quickly(self, content: bytes, sent: int, keep_alive: bool, now: float) -> None:
        """Record a reply that was made without the connection; `sent` bytes of it are sent."""
        self.connection.answered_quickly(len(content), keep_alive, now)
        self._sent_bytes += sent
        self.close_after = not keep_alive
        if sent < len(content):
            self.state = SENDING
            self._outgoing = (memoryview(content)[sent:],)

    def begin(self, outgoing: Outgoing, now: float) -> bool:
        """Begin to send a reply; return whether all of it is sent.

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
            self.state = SENDING
            return False
        pieces = [p if isinstance(p, ImageSpan) else memoryview(p) for p in outgoing.parts]
        self._outgoing = (memoryview(outgoing.head), *pieces)
        return self.send(now)

    def send(self, now: float) -> bool:
        """Send as much as the client takes in this turn; return whether nothing is left.

        Raises:
            OSError: the connection is gone.
            ImageChanged: the image was cut or written to.
        """
        is_sent = self._send_window(now)
        self.state = ASKED if is_sent else HELD if self.holds_back else SENDING
        return is_sent

    def park(self, not_ready: NotReady, now: float) -> None:
        """Make the current request wait for what it needs."""
        if self.not_ready is None:
            self.give_up_at = now + HASHING_WAIT_SECONDS
        self.not_ready = not_ready
        self.state = PARKED

    def unpark(self) -> None:
        """End the wait of the current request."""
        self.not_ready = None
        self.state = ASKED

    def wait_for_more(self) -> None:
        """Wait until the client sends or acknowledges more."""
        self.state = FRESH if self.connection.is_idle else ASKED
        if self.connection.has_enough:
            self._ack_wait = ACK_POLL_SECONDS[0]

    def may_wait(self, now: float) -> bool:
        """Return whether the current request may wait, or wait longer."""
        return self.not_ready is None or now < self.give_up_at

    def linger(self, now: float) -> None:
        """Close our side of the connection; the other side is read for another second.

        Raises:
            OSError: the connection is gone.
        """
        self.connection.stop_reading()
        self.sock.shutdown(socket.SHUT_WR)
        self._linger_until = now + LINGER_SECONDS
        self.state = LINGERING

    def note_acknowledged(self, now: float) -> None:
        """Ask the kernel how much the other side has acknowledged."""
        try:
            waiting = unacknowledged_bytes(self.sock)
        except OSError:
            return
        if self.state is LINGERING and waiting:
            waiting -= 1  # our FIN counts as a byte, and is acknowledged last
        self.connection.acknowledged(self._sent_bytes - waiting, now)

    def transfers(self) -> list[tuple[Transfer, int]]:
        """Return its transfers, and how many bytes of each the other side has acknowledged."""
        try:
            position = self._sent_bytes - unacknowledged_bytes(self.sock)
        except (OSError, ValueError):
            position = 0  # it was just closed
        return [
            (each, min(max(0, position - each.start), each.stop - each.start))
            for each in self.connection.transfers
        ]

    def due(self, now: float) -> float:
        """Return when to look at it again if no event comes before."""
        connection, state = self.connection, self.state
        if state is PARKED:
            return self.give_up_at
        if state is HELD and self._paced_until is None:
            return now + _READING_LOOK_SECONDS
        if state is HELD or state is SENDING:
            return min(self._paced_until or connection.stalled_at, connection.stalled_at)
        if connection.awaits_acknowledgement:
            return now + min(self._ack_wait, connection.wait_seconds(now))
        if state is LINGERING:
            return self._linger_until
        return now + connection.wait_seconds(now)

    def has_time_left(self, now: float) -> bool:
        """Check the time; return whether this channel continues.

        Raises:
            OSError: the connection is gone.
        """
        connection, state = self.connection, self.state
        if state is LINGERING:
            # With both sides closed no poller watches it, so nothing else would show a reset.
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise ConnectionResetError(error, "the connection was reset")
        if connection.awaits_acknowledgement or self._outgoing:
            self.note_acknowledged(now)
            self._ack_wait = min(self._ack_wait * 2, ACK_POLL_SECONDS[1])
        if state is HELD and self._paced_until is not None:
            connection.held_back(self._sent_bytes, now)
        if self.sends_withdrawn:
            return False
        if state is PARKED:
            return True  # the client waits for us, so its idle time does not run
        if state is SENDING or state is HELD:
            return not connection.is_stalled(now)
        has_time = connection.tick(now)
        if state is not LINGERING or connection.awaits_acknowledgement:
            return has_time
        return not connection.input_ended and now < self._linger_until

    def unread(self) -> bytes:
        """Return what the client has sent and nobody has read, before its time counts as over.

        A poll tells of a thousand sockets at most, and the process may have been stopped.

        Raises:
            OSError: the connection is gone.
        """
        is_reading = self.state is FRESH or self.state is ASKED
        if not is_reading or self.ignores_input or self.sends_withdrawn:
            return b""
        try:
            return self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""

    def close(self, was_reset: bool, now: float) -> None:
        """Close the socket, and record the ends of its downloads."""
        self.state = CLOSED
        if self.sends_withdrawn:
            discard_unsent(self.sock)
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
            self.connection.close(was_reset)
        self.connection.stop_reading()
        self._outgoing = ()
        self.sock.close()
