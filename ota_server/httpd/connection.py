"""One connection, without its socket: bytes in; replies, deadlines and ends of downloads out.

Its driver reads when `next_reply` has nothing to send, sends what that returns, reports how much
the other side has acknowledged, and calls `tick` when `wait_seconds` are over. The same bytes get
the same answer from any driver. Times are seconds of one monotonic clock.

Its states:

| state   | what it means                                   | until                             |
|---------|-------------------------------------------------|-----------------------------------|
| IDLE    | no byte of a request has arrived                | the idle time is over             |
| HEAD    | a request has begun                             | `HEAD_SECONDS` after that         |
| LATE    | that time is over                               | `next_reply` answers 408          |
| PARKED  | the answer to a request is not ready            | it is, and `next_reply` is called |
| CLOSING | no further request is answered                  | the driver closes                 |

    IDLE → HEAD             bytes have arrived
    HEAD → PARKED           the answer is not ready
    HEAD, PARKED → IDLE     it is answered, and no further bytes have arrived; else → HEAD
    HEAD → LATE             its time is over
    any → CLOSING           the reply says so, or the driver will read no more

In any state, downloads that were sent end one by one, by acknowledgements. While too many are under
way, the next request is held. If the client closes its side, what it sent before that is answered.
"""

import time
from enum import Enum
from http import HTTPStatus

from ota_server.httpd import reply
from ota_server.httpd.app import App
from ota_server.httpd.http1 import CONTINUE, BadRequest, Request, is_head
from ota_server.httpd.incoming import Incoming
from ota_server.httpd.reply import Outgoing, Peer, Reply, Transfer

# For a whole request, from its first byte. The slowest real client, an ESP8266 on a bad link, takes
# 2 or 3.
HEAD_SECONDS = 10.0
# A device that was unreachable for this long has given up the connection on its side too.
STALL_SECONDS = 60.0
# A client that gave up may have acknowledged everything into a buffer that nobody reads. Its reset
# arrives soon; until this time has passed a download does not count as complete.
CONFIRM_SECONDS = 2.0
# With so many downloads on their way to a client its next request waits, since each is kept in
# memory until its end is recorded. Real clients pipeline two or three at most.
_MOST_UNACKNOWLEDGED = 16


class ConnectionState(Enum):
    """See the table above."""

    IDLE = "idle"
    HEAD = "head"
    LATE = "late"
    PARKED = "parked"
    CLOSING = "closing"


# The names of an Enum's members cost more to look up than those of a module.
IDLE, HEAD, LATE = ConnectionState.IDLE, ConnectionState.HEAD, ConnectionState.LATE
PARKED, CLOSING = ConnectionState.PARKED, ConnectionState.CLOSING


class Connection(Incoming):
    """One connection. Used by one thread at a time.

    Attributes:
        confirm_seconds: how long a reset may follow the last acknowledgement of a download.
        input_ended: the client has closed its side.
    """

    __slots__ = (
        "_acknowledged_bytes",
        "_handed_bytes",
        "_head_began",
        "_idle_seconds",
        "_idle_since",
        "_is_held",
        "_must_linger",
        "_parked",
        "_progress_at",
        "_sent",
        "_state",
        "confirm_seconds",
        "input_ended",
        "peer",
    )

    def __init__(self, app: App, peer: Peer, idle_seconds: float, now: float) -> None:
        super().__init__(app)
        self.confirm_seconds = CONFIRM_SECONDS
        self.peer = peer
        self._idle_seconds = idle_seconds
        self._state = IDLE
        self._parked: Request | None = None
        self.input_ended = False
        self._is_held = False  # the next request waits for acknowledgements
        self._head_began = now
        self._must_linger = False
        self._idle_since = now
        self._progress_at = now
        self._handed_bytes = 0
        self._acknowledged_bytes = 0
        self._sent: tuple[Transfer, ...] = ()  # a list takes twice the memory

    @property
    def is_due(self) -> bool:
        """Whether to call `next_reply` although nothing has arrived.

        The time for a head is over, or a request was held and can be answered now.
        """
        return self._state is LATE or (self._is_held and not self._is_full)

    @property
    def has_enough(self) -> bool:
        """Whether to leave what the client sends in the kernel for now.

        Else a client that pipelines faster than it is answered fills the memory.
        """
        return self._state is not CLOSING and (self._holds_request or self._is_full)

    @property
    def _is_full(self) -> bool:
        """Whether the client has as many unacknowledged downloads as it may have."""
        return len(self._sent) >= _MOST_UNACKNOWLEDGED and self._sent[0].whole_at is None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the next bytes will begin a request."""
        return self._state is IDLE and not self._sent and not self.input_ended

    @property
    def awaits_acknowledgement(self) -> bool:
        """Whether a download was sent whose end is not recorded yet."""
        return bool(self._sent)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The downloads that were sent and whose end is not recorded yet."""
        return self._sent

    @property
    def sends_withdrawn(self) -> bool:
        """Whether a download of a withdrawn image is under way."""
        return any(sent.image.is_withdrawn for sent in self._sent)

    def receive(self, data: bytes, now: float) -> None:
        """Take what the client sent; b"" means that it has closed its side."""
        self._finish_whole()
        if not data:
            self.input_ended = True
        if not data or self._state is CLOSING:
            return
        if not self._buffer:
            self._head_began = now
        if self._state is IDLE:
            self._state = HEAD
        self._buffer += data

    def next_reply(
        self, now: float, may_wait: bool = True, draining: bool = False
    ) -> Outgoing | None:
        """Answer the next request; return None if it is not whole yet, or has to wait.

        Args:
            may_wait: the caller can wait for an image to be hashed; else the answer is 503.
            draining: the server is stopping, so this is the last reply.

        Raises:
            NotReady: call again when its `done` is set.
        """
        while len(self._sent) >= _MOST_UNACKNOWLEDGED and not self._is_full:
            self._finish_first(True)
        self._is_held = self._is_full and not draining
        if self._state is CLOSING or self._is_held:
            return None
        minor_version = 1
        try:
            was_begun = self._begun
            request = self._parked or self._read_request(now)
            if request is None:
                wants_body = self._begun is not was_begun and not draining
                return self._ask_for_body(now) if wants_body else None
            self._parked, self._state = request, PARKED
            answer = self._app.respond(request, self._client_of(request), may_wait)
            self._parked, self._state = None, HEAD if self._buffer else IDLE
            minor_version = request.minor_version
            self._must_linger = answer.close or draining
            if self._must_linger or not request.keep_alive:
                self._state = CLOSING
        except BadRequest as problem:
            self._app.note_refused(problem, self._buffer, self.peer)
            if problem.status is HTTPStatus.SERVICE_UNAVAILABLE:
                answer = reply.later(f"{problem}")
                answer.close = True
            else:
                answer = reply.text(problem.status, f"{problem}", close=True)
            if is_head(self._buffer):
                answer.body = b""
            self._state, self._must_linger = CLOSING, True
        return self._hand_out(answer, minor_version, now)

    def answered_quickly(self, reply_bytes: int, keep_alive: bool, now: float) -> None:
        """Record a reply of `reply_bytes` bytes that was made without this class."""
        self._idle_since = self._progress_at = now
        self._handed_bytes += reply_bytes
        if not keep_alive:
            self._state = CLOSING

    def _read_request(self, now: float) -> Request | None:
        request = self._take_request()
        if request is not None:
            self._head_began = now
        elif self._state is LATE:
            said = f"no whole request in {HEAD_SECONDS:.0f} s"
            raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, said)
        return request

    def _ask_for_body(self, now: float) -> Outgoing | None:
        """Return the 100 that a client waits for before it sends a body, or None."""
        if self._begun is None or not self._begun[0].expects_continue:
            return None
        self._count_handed(len(CONTINUE), now)
        return Outgoing(CONTINUE, (), close=False)

    def _client_of(self, _request: Request) -> Peer:
        return self.peer

    def _hand_out(self, answer: Reply, minor_version: int, now: float) -> Outgoing:
        if answer.transfer is not None:
            self._sent += (answer.transfer,)  # first, so that it ends even if the rest fails
        is_last = self._state is CLOSING
        head = answer.head(int(time.time()), not is_last, minor_version)
        start = self._handed_bytes + len(head)
        self._count_handed(len(head) + answer.body_bytes, now)
        if answer.transfer is not None:
            answer.transfer.start, answer.transfer.stop = start, self._handed_bytes
        return Outgoing(head + answer.body, answer.parts, is_last, answer.needs_record)

    def _count_handed(self, length: int, now: float) -> None:
        if self._handed_bytes == self._acknowledged_bytes:
            self._progress_at = now
        self._handed_bytes += length

    def acknowledged(self, position: int, now: float) -> None:
        """Record that the other side has acknowledged the first `position` bytes sent."""
        if position > self._acknowledged_bytes:
            self._acknowledged_bytes = position
            self._progress_at = now
        if self._buffer and self.has_enough:
            self._head_began = now  # it is we who do not read the rest of that head
        for sent in self._sent:
            if sent.whole_at is None and sent.stop <= position:
                sent.whole_at = now

    def held_back(self, sent_bytes: int, now: float) -> None:
        """Record that the client waits for us, not we for it, after `sent_bytes` bytes."""
        if self._acknowledged_bytes >= sent_bytes:
            self._progress_at = now

    def sent_all(self, now: float) -> None:
        """Record that a whole reply is in the kernel: from now on we wait for the client."""
        self._idle_since = now
        if self._buffer:
            self._head_began = now

    @property
    def stalled_at(self) -> float:
        """When the current reply will have made no progress for too long."""
        return self._progress_at + STALL_SECONDS

    @property
    def must_linger(self) -> bool:
        """Whether the client may have sent unread bytes: closing at once would cause a reset."""
        return self._must_linger or bool(self._buffer)

    def is_stalled(self, now: float) -> bool:
        """Return whether nothing of what was sent was acknowledged for too long."""
        return self._acknowledged_bytes < self._handed_bytes and now >= self.stalled_at

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait for the client before `tick`."""
        due = self._deadline()
        for sent in self._sent:
            if sent.whole_at is not None:
                due = min(due, sent.whole_at + self.confirm_seconds)
        return max(0.0, due - now)

    def stop_reading(self) -> None:
        """Answer no further request: our side closes now. What has arrived is forgotten."""
        self._state = CLOSING
        self._buffer = b""
        self._end_body()

    def _deadline(self) -> float:
        if self._state is HEAD:
            return self._head_began + HEAD_SECONDS
        if self._acknowledged_bytes < self._handed_bytes and self._sent:
            return self._progress_at + STALL_SECONDS
        return self._idle_since + self._idle_seconds

    def tick(self, now: float) -> bool:
        """Do what is due. Return whether the connection may stay open.

        If a head is late, it may: `next_reply` answers that before the end.
        """
        while self._sent and (whole_at := self._sent[0].whole_at) is not None:
            if now - whole_at < self.confirm_seconds:
                break
            self._finish_first(True)
        if self._sent and self.is_stalled(now):
            return False
        if now < self._deadline():
            return True
        if self._state is not HEAD:
            return False
        self._state = LATE
        return True

    @property
    def is_over(self) -> bool:
        """Whether the client's last request has been answered."""
        return self._state is CLOSING or (self.input_ended and not self._is_held)

    def close(self, was_reset: bool) -> None:
        """End all downloads, and record how much of each was acknowledged.

        Args:
            was_reset: by the client: then none is complete, since it did not want the rest.
        """
        while self._sent:
            self._finish_first(self._sent[0].whole_at is not None and not was_reset)

    def _finish_whole(self) -> None:
        while self._sent and self._sent[0].whole_at is not None:
            self._finish_first(True)

    def _finish_first(self, complete: bool) -> None:
        sent, *rest = self._sent
        self._sent = tuple(rest)
        acknowledged_bytes = min(
            max(0, self._acknowledged_bytes - sent.start), sent.stop - sent.start
        )
        sent.end(acknowledged_bytes, complete)
