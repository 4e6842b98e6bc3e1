"""Replies: what goes back to a client, independent of sockets. Pure."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

from ota_server.httpd.http1 import field_lines, reply_head

# When a client should ask again: at its next poll, as something has to change until then, or soon.
# An application that knows its clients spreads these times, so that they do not all come at once.
AT_NEXT_POLL, SOON_SECONDS = 0, 30
# Behind all that any connection sends: nothing of it was acknowledged.
_NOWHERE_YET = 1 << 62

_TEXT = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))


class Peer(NamedTuple):
    """The other end of a connection.

    Attributes:
        is_local: it is on this machine.
        is_proxied: a trusted proxy asks for it, whose X-Forwarded fields can be believed.
    """

    address: str
    is_local: bool
    is_proxied: bool = False


class Copy(Protocol):
    """The bytes of an image in a file that nobody else can write to.

    Attributes:
        is_unsendable: the system refused to send it with sendfile.
    """

    descriptor: int
    is_unsendable: bool


class ImageBytes(Protocol):
    """An open image, as far as sending needs it.

    Attributes:
        version: its name in messages.
        is_withdrawn: no more of it may be sent.
    """

    version: str
    descriptor: int
    is_withdrawn: bool

    @property
    def copy(self) -> Copy | None:
        """A private copy, or None if there was no room for one."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer if the file was cut."""

    def is_unchanged(self) -> bool:
        """Return whether the file still holds the bytes that were hashed."""


class ImageSpan(NamedTuple):
    """A piece of an image to send, from byte `start` up to byte `stop`."""

    image: ImageBytes
    start: int
    stop: int


class Transfer:
    """An image on its way to a client. Applications derive a class that records its end.

    Attributes:
        start: the position of its body in the bytes that the connection sends; it ends at `stop`.
        whole_at: when the other side had acknowledged all of it.
    """

    __slots__ = ("image", "start", "stop", "whole_at")

    def __init__(self, image: ImageBytes) -> None:
        self.image = image
        self.start = self.stop = _NOWHERE_YET
        self.whole_at: float | None = None

    def end(self, bytes_sent: int, complete: bool) -> None:
        """Record its end. Called once, however it ends.

        Args:
            bytes_sent: the bytes of the body that the other side has acknowledged.
            complete: it has acknowledged the whole reply, and did not reset the connection after.
        """
        raise NotImplementedError


class Reply:
    """One reply: its body is `body`, then the parts.

    Attributes:
        content_length: what the head says: the length of the body that a GET would get.
        close: the connection closes after it.
        transfer: the transfer whose end is to be recorded, or None.
        needs_record: it must not be sent if it could not be recorded.
        retry_seconds: when the client should ask again, or `AT_NEXT_POLL`; None: that is not said.
    """

    __slots__ = (
        "body",
        "close",
        "content_length",
        "fields",
        "needs_record",
        "parts",
        "retry_seconds",
        "status",
        "transfer",
    )

    def __init__(
        self,
        status: HTTPStatus,
        fields: bytes,
        body: bytes = b"",
        *,
        parts: Sequence[bytes | ImageSpan] = (),
        content_length: int | None = 0,
        close: bool = False,
    ) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.parts = parts
        self.content_length = content_length
        self.close = close
        self.transfer: Transfer | None = None
        self.needs_record = False
        self.retry_seconds: int | None = None

    @property
    def body_bytes(self) -> int:
        """How many bytes follow the head."""
        length = len(self.body)
        for part in self.parts:
            length += part.stop - part.start if isinstance(part, ImageSpan) else len(part)
        return length

    def head(self, seconds: int, keep_alive: bool, minor_version: int) -> bytes:
        """Return its head, as `http1.reply_head` does."""
        fields = self.fields
        if self.retry_seconds is not None:
            fields += b"Retry-After: %d\r\n" % (self.retry_seconds or SOON_SECONDS)
        return reply_head(
            self.status, fields, self.content_length, seconds, keep_alive, minor_version
        )


class Outgoing(NamedTuple):
    """What to send next: bytes, then parts. `close` and `needs_record` are as in `Reply`."""

    head: bytes
    parts: Sequence[bytes | ImageSpan]
    close: bool
    needs_record: bool = False


def text(status: HTTPStatus, body: str, *fields: tuple[str, str], close: bool = False) -> Reply:
    """Return a short reply that caches must not store."""
    content = body.encode("utf-8")
    return Reply(
        status,
        field_lines((*_TEXT, *fields)),
        content,
        content_length=len(content),
        close=close,
    )


def later(body: str, seconds: int = SOON_SECONDS) -> Reply:
    """Return a 503 that asks the client to try again after some seconds, or `AT_NEXT_POLL`."""
    answer = text(HTTPStatus.SERVICE_UNAVAILABLE, body)
    answer.retry_seconds = seconds
    return answer


def not_modified(etag: str, *fields: tuple[str, str]) -> Reply:
    """Return a 304, which has no body and no length."""
    lines = field_lines((("ETag", etag), *fields))
    return Reply(HTTPStatus.NOT_MODIFIED, lines, content_length=None)
