"""A channel: one connection and its socket. Nothing here waits.

Its state says what it waits for, and by that which event a driver looks for (`Watching`):

| state     | waits for                                    | event    | until               |
|-----------|----------------------------------------------|----------|---------------------|
| FRESH     | a request; nothing is under way              | readable | idle for too long   |
| ASKED     | more of a request, or acknowledgements       | readable | as `Connection` has |
| PARKED    | what the application makes (`NotReady`)      | none     | `give_up_at`        |
| SENDING   | room in the socket                           | writable | stalled             |
| HELD      | its turn to send, or a disk                  | none     | then                |
| LINGERING | the client's end; our side is closed         | readable | a second is over   |
| CLOSED    | nothing                                      |          |                     |

    FRESH → ASKED      bytes have come
    ASKED → PARKED     the answer is not ready; back when it is, or may not be waited for
    ASKED → SENDING    the socket did not take all of a reply
    SENDING ⇄ HELD     it is not to go on yet; it may
    SENDING → ASKED    all is sent
    ASKED → FRESH      all is answered and acknowledged, and the connection is kept
    ASKED → LINGERING  all is answered, it is not kept, and the client may not have all of it
    any → CLOSED       at the end, at a reset, when time is over

Where it is ASKED or LINGERING and its client has sent enough, or all, no event is looked for.
"""

import socket
from enum import Enum

from ota_server.httpd.app import NotReady
from ota_server.httpd.connection import Connection
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.readahead import ReadAhead
from ota_server.httpd.reply import ImageSpan, Outgoing
from ota_server.httpd.sender import Sender
from ota_server.httpd.sockets import (
    ACK_POLL_SECONDS,
    HASHING_WAIT_SECONDS,
    LINGER_SECONDS,
    discard_unsent,
    unacknowledged_bytes,
)

_READING_LOOK_SECONDS = 0.002


class ChannelState(Enum):
    """What a channel waits for: see the table above."""

    FRESH = "fresh"
    ASKED = "asked"
    PARKED = "parked"
    SENDING = "sending"
    HELD = "held"
    LINGERING = "lingering"
    CLOSED = "closed"


# A look at a member of an Enum costs more than one at a name of the module.
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
        events: what the poller watches for; None: it does not know this socket.
        timer_at: when its driver looks at it again; None: never.
        not_ready: what the request under way waits for; None: for nothing.
        give_up_at: when it is told that this is not ready.
        close_after: no request is answered after what is being sent.
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
        """Put channels that are due at the same instant in some order, for the heap of timers."""
        return id(self) < id(other)

    @property
    def is_sending(self) -> bool:
        """Whether there is something left to send."""
        return self.state is SENDING or self.state is HELD

    @property
    def is_deaf(self) -> bool:
        """Whether what the client sends stays with the kernel for now."""
        connection = self.connection
        return connection.input_ended or connection.has_enough

    def may_go_on(self, now: float) -> bool:
        """Return whether what was held back may be sent now."""
        if self.state is not HELD:
            return False
        if self._reading is not None:
            return self._reading.is_done
        return self._paced_until is not None and now >= self._paced_until

    @property
    def sends_withdrawn(self) -> bool:
        """Whether what it sends, or what its client has not got yet, was withdrawn."""
        if self.connection.sends_withdrawn:
            return True
        return any(isinstance(p, ImageSpan) and p.image.is_withdrawn for p in self._outgoing)

    def take(self, data: bytes, now: float) -> None:
        """Hand on what has arrived."""
        if self.state is FRESH:
            self.state = ASKED
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
        self.connection.receive(data, now)

    def answered_quickly(self, content: bytes, sent: int, keep_alive: bool, now: float) -> None:
        """Take note of a reply that was made without the connection, and sent up to `sent`."""
        self.connection.answered_quickly(len(content), keep_alive, now)
        self._sent_bytes += sent
        self.close_after = not keep_alive
        if sent < len(content):
            self.state = SENDING
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
            self.state = SENDING
            return False
        pieces = [p if isinstance(p, ImageSpan) else memoryview(p) for p in outgoing.parts]
        self._outgoing = (memoryview(outgoing.head), *pieces)
        return self.send(now)

    def send(self, now: float) -> bool:
        """Send as much as the client takes in this turn; True when nothing is left.

        Raises:
            OSError: the connection is gone.
            ImageChanged: the image was cut or written to.
        """
        is_sent = self._send_window(now)
        self.state = ASKED if is_sent else HELD if self.holds_back else SENDING
        return is_sent

    def park(self, not_ready: NotReady, now: float) -> None:
        """Have the request under way wait for what it needs."""
        if self.not_ready is None:
            self.give_up_at = now + HASHING_WAIT_SECONDS
        self.not_ready = not_ready
        self.state = PARKED

    def unpark(self) -> None:
        """Have the request under way wait no longer."""
        self.not_ready = None
        self.state = ASKED

    def wait_for_more(self) -> None:
        """There is nothing to answer until the client sends more, or acknowledges more."""
        self.state = FRESH if self.connection.is_idle else ASKED
        if self.connection.has_enough:
            self._ack_wait = ACK_POLL_SECONDS[0]

    def may_wait(self, now: float) -> bool:
        """Return whether the request under way may wait, or go on to wait."""
        return self.not_ready is None or now < self.give_up_at

    def linger(self, now: float) -> None:
        """Close our side of the connection; the other is read on for a moment.

        Raises:
            OSError: the connection is gone.
        """
        self.connection.stop_reading()
        self.sock.shutdown(socket.SHUT_WR)
        self._linger_until = now + LINGER_SECONDS
        self.state = LINGERING

    def note_acknowledged(self, now: float) -> None:
        """Ask the kernel how much of what was sent the other side has."""
        try:
            waiting = unacknowledged_bytes(self.sock)
        except OSError:
            return
        if self.state is LINGERING and waiting:
            waiting -= 1  # our FIN counts as a byte, and is acknowledged last
        self.connection.acknowledged(self._sent_bytes - waiting, now)

    def due(self, now: float) -> float:
        """Return when to look at it again if nothing happens before."""
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
        """Look at the time; return whether this channel goes on.

        Raises:
            OSError: the connection is gone.
        """
        connection, state = self.connection, self.state
        if state is LINGERING:
            # With both sides closed no poller watches it: a reset has to be asked for.
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
            return True  # the idle time does not run while we are the ones who are waited for
        if state is SENDING or state is HELD:
            return not connection.is_stalled(now)
        has_time = connection.tick(now)
        if state is not LINGERING or connection.awaits_acknowledgement:
            return has_time
        return not connection.input_ended and now < self._linger_until

    def close(self, was_reset: bool, now: float) -> None:
        """Close the socket, and put the ends of its downloads on record."""
        self.state = CLOSED
        if self.sends_withdrawn:
            discard_unsent(self.sock)
        if self.connection.awaits_acknowledgement:
            self.note_acknowledged(now)
            self.connection.close(was_reset)
        self._outgoing = ()
        self.sock.close()
