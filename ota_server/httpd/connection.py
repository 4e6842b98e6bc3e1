"""One connection, without its socket: bytes in; replies, deadlines and ends of downloads out.

Whatever drives it is thin: it reads when `next_reply` has nothing to send, sends what that returns,
tells how much the other side has acknowledged, and calls `tick` when `wait_seconds` are over. The
same bytes get the same answer from any driver. Times are seconds of one monotonic clock.
"""

import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from ota_server.httpd import reply
from ota_server.httpd.app import App
from ota_server.httpd.http1 import MAX_HEAD_BYTES, BadRequest, Request, reply_head
from ota_server.httpd.reply import ImageSpan, Peer, Reply, Transfer

log = logging.getLogger(__name__)

# From its first byte: the slowest real client, an ESP8266 on a bad link, takes two or three.
HEAD_SECONDS = 10.0
# A device that is out of reach for this long has lost the connection on its own side too.
STALL_SECONDS = 60.0
# A client that gave up may have acknowledged everything into a buffer that nobody reads. It says so
# by a reset, which comes at once; for that long a download is not yet called complete.
SETTLE_SECONDS = 2.0
# The longest head and the two empty lines that may come before it: with more than that there is a
# request to answer or to refuse. Copying the rest for each request is harmless, it is that short.
_MOST_UNREAD_BYTES = MAX_HEAD_BYTES + 4
# With so many downloads on the way to a client its next request waits, since each is kept until its
# end is on record. Real clients pipeline two or three, if any.
_MOST_UNACKNOWLEDGED = 16


class Outgoing(NamedTuple):
    """What to send next, in order: bytes, then parts. With `close` nothing comes after it.

    `needs_record`: as that of a `Reply`.
    """

    head: bytes
    parts: Sequence[bytes | ImageSpan]
    close: bool
    needs_record: bool = False


class Connection:
    """The state of one connection. Used by one thread at a time."""

    __slots__ = (
        "_acknowledged_bytes",
        "_app",
        "_buffer",
        "_closing",
        "_handed_bytes",
        "_head_began",
        "_head_is_late",
        "_idle_seconds",
        "_idle_since",
        "_input_ended",
        "_is_held",
        "_must_linger",
        "_parked",
        "_progress_at",
        "_sent",
        "peer",
    )

    def __init__(self, app: App, peer: Peer, idle_seconds: float, now: float) -> None:
        self._app = app
        self.peer = peer
        self._idle_seconds = idle_seconds
        self._buffer = b""
        self._parked: Request | None = None
        self._input_ended = False
        self._is_held = False  # the next request waits for acknowledgements
        self._head_began: float | None = None
        self._head_is_late = False
        self._closing = False
        self._must_linger = False
        self._idle_since = now
        self._progress_at = now
        self._handed_bytes = 0
        self._acknowledged_bytes = 0
        self._sent: tuple[Transfer, ...] = ()  # a list takes twice the memory

    @property
    def is_due(self) -> bool:
        """Whether to call `next_reply` though nothing has arrived.

        The client has had its time for a head, and is told so; or it has acknowledged enough for
        its next request to be answered.
        """
        return self._head_is_late or (self._is_held and not self._is_full)

    @property
    def has_input(self) -> bool:
        """Whether bytes have arrived that were not read as a request yet."""
        return bool(self._buffer)

    @property
    def has_enough(self) -> bool:
        """Whether to read no more for now: what the client sends stays with the kernel.

        Else one that pipelines faster than it is answered fills the memory.
        """
        is_more_than_a_head = len(self._buffer) > _MOST_UNREAD_BYTES
        return not self._closing and (is_more_than_a_head or self._is_full)

    @property
    def _is_full(self) -> bool:
        """Whether the client has not acknowledged as many downloads as it may have under way."""
        return len(self._sent) >= _MOST_UNACKNOWLEDGED and self._sent[0].whole_at is None

    @property
    def input_ended(self) -> bool:
        """Whether the client has closed its side."""
        return self._input_ended

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the next bytes begin a request."""
        return not (
            self._buffer or self._sent or self._input_ended or self._closing or self._parked
        )

    @property
    def awaits_acknowledgement(self) -> bool:
        """Whether a download was sent and its end is not on record yet."""
        return bool(self._sent)

    @property
    def sends_withdrawn(self) -> bool:
        """Whether a download of a withdrawn image is under way."""
        return any(sent.image.is_withdrawn for sent in self._sent)

    def receive(self, data: bytes, now: float) -> None:
        """Take what the client sent; no bytes mean that it will send no more."""
        self._finish_whole()
        if not data:
            self._input_ended = True
            return
        if not self._closing:
            if not self._buffer:
                self._head_began = now
            self._buffer += data

    def next_reply(
        self, now: float, may_wait: bool = True, draining: bool = False
    ) -> Outgoing | None:
        """Answer the next request; None while there is no whole one, or it has to wait.

        Args:
            may_wait: the caller can wait for an image to be hashed; else the answer is 503.
            draining: the server is about to stop, so this reply is the last one.

        Raises:
            NotReady: call again when its `done` is set.
        """
        while len(self._sent) >= _MOST_UNACKNOWLEDGED and not self._is_full:
            self._finish_first(True)
        self._is_held = self._is_full and not draining
        if self._closing or self._is_held:
            return None
        minor_version = 1
        try:
            request = self._parked or self._read_request(now)
            if request is None:
                return None
            self._parked = request
            answer = self._app.respond(request, self.peer, may_wait)
            self._parked = None
            minor_version = request.minor_version
            self._must_linger = answer.close or draining
            self._closing = self._must_linger or not request.keep_alive
        except BadRequest as problem:
            log.debug("%s: %s", self.peer.address, problem)
            answer = reply.text(problem.status, f"{problem}", close=True)
            self._closing = self._must_linger = True
        return self._hand_out(answer, minor_version, now)

    def answered_quickly(self, reply_bytes: int, keep_alive: bool, now: float) -> None:
        """Take note of a reply of `reply_bytes` bytes that was made without this machine."""
        self._idle_since = self._progress_at = now
        self._handed_bytes += reply_bytes
        self._closing = not keep_alive

    def _read_request(self, now: float) -> Request | None:
        if self._head_is_late:
            raise BadRequest(
                HTTPStatus.REQUEST_TIMEOUT, f"no whole request in {HEAD_SECONDS:.0f} s"
            )
        if not self._buffer:
            return None
        found = self._app.read_request(self._buffer)
        if found is None:
            return None
        request, length = found
        self._buffer = self._buffer[length:]
        self._head_began = now if self._buffer else None
        return request

    def _hand_out(self, answer: Reply, minor_version: int, now: float) -> Outgoing:
        head = reply_head(
            answer.status,
            answer.fields,
            answer.content_length,
            int(time.time()),
            not self._closing,
            minor_version,
        )
        body_bytes = len(answer.body)
        for part in answer.parts:
            body_bytes += part.stop - part.start if isinstance(part, ImageSpan) else len(part)
        start = self._handed_bytes + len(head)
        if self._handed_bytes == self._acknowledged_bytes:
            self._progress_at = now
        self._handed_bytes = start + body_bytes
        if answer.transfer is not None:
            answer.transfer.start, answer.transfer.stop = start, self._handed_bytes
            self._sent += (answer.transfer,)
        return Outgoing(head + answer.body, answer.parts, self._closing, answer.needs_record)

    def acknowledged(self, position: int, now: float) -> None:
        """Take note that the other side has acknowledged the first `position` bytes sent."""
        if position > self._acknowledged_bytes:
            self._acknowledged_bytes = position
            self._progress_at = now
        if self._head_began is not None and self.has_enough:
            self._head_began = now  # the rest of that head is not read: the client waits for us
        for sent in self._sent:
            if sent.whole_at is None and sent.stop <= position:
                sent.whole_at = now

    def held_back(self, sent_bytes: int, now: float) -> None:
        """Take note that we are the ones who are waited for, after `sent_bytes` bytes."""
        if self._acknowledged_bytes >= sent_bytes:
            self._progress_at = now

    def sent_all(self, now: float) -> None:
        """Take note that a reply went to the kernel whole: the client's turn begins."""
        self._idle_since = now
        if self._buffer:
            self._head_began = now

    @property
    def stalled_at(self) -> float:
        """When a reply under way will have stood still for too long."""
        return self._progress_at + STALL_SECONDS

    @property
    def must_linger(self) -> bool:
        """Whether the client may have sent what nobody reads: closing at once would reset."""
        return self._must_linger or bool(self._buffer)

    def is_stalled(self, now: float) -> bool:
        """Say whether something was sent and nothing acknowledged for too long."""
        if self._acknowledged_bytes >= self._handed_bytes:
            return False
        return now - self._progress_at >= STALL_SECONDS

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait for the client before `tick`."""
        due = self._deadline()
        for sent in self._sent:
            if sent.whole_at is not None:
                due = min(due, sent.whole_at + SETTLE_SECONDS)
        return max(0.0, due - now)

    def stop_reading(self) -> None:
        """Answer no further request: our side is about to be closed."""
        self._closing = True
        self._buffer = b""

    @property
    def _awaits_head(self) -> bool:
        return self._head_began is not None and not (self._closing or self._head_is_late)

    def _deadline(self) -> float:
        if self._head_began is not None and self._awaits_head:
            return self._head_began + HEAD_SECONDS
        if self._acknowledged_bytes < self._handed_bytes and self._sent:
            return self._progress_at + STALL_SECONDS
        return self._idle_since + self._idle_seconds

    def tick(self, now: float) -> bool:
        """Do what time asks for. Return False when the connection has had its time.

        A head that is late is answered by `next_reply` before the end.
        """
        while self._sent and self._is_settled(self._sent[0], now):
            self._finish_first(True)
        if self._sent and self.is_stalled(now):
            return False
        if now < self._deadline():
            return True
        if not self._awaits_head:
            return False
        self._head_is_late = True
        return True

    @property
    def is_over(self) -> bool:
        """Whether the client has sent its last request, and that has been answered."""
        return self._closing or (self._input_ended and not self._is_held)

    def close(self, was_reset: bool) -> None:
        """End all downloads, and put on record what was acknowledged of each.

        Args:
            was_reset: by the client: then none is complete, since it did not want the rest.
        """
        while self._sent:
            self._finish_first(self._sent[0].whole_at is not None and not was_reset)

    def _finish_whole(self) -> None:
        while self._sent and self._sent[0].whole_at is not None:
            self._finish_first(True)

    def _is_settled(self, sent: Transfer, now: float) -> bool:
        return sent.whole_at is not None and now - sent.whole_at >= SETTLE_SECONDS

    def _finish_first(self, complete: bool) -> None:
        sent, *rest = self._sent
        self._sent = tuple(rest)
        acknowledged_bytes = min(
            max(0, self._acknowledged_bytes - sent.start), sent.stop - sent.start
        )
        sent.end(acknowledged_bytes, complete)
