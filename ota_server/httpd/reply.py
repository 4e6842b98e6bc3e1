"""Replies: what goes back to a client, before anybody knows of a socket. Pure."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, Protocol

from ota_server.httpd.byterange import Span
from ota_server.httpd.http1 import field_lines

RETRY_AFTER_SECONDS = 30

_TEXT = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
_BINARY = ("Content-Type", "application/octet-stream")


class Peer(NamedTuple):
    """The other end of a connection. `is_local`: it is on this machine."""

    address: str
    is_local: bool


class Copy(Protocol):
    """The bytes of an image in a file that nobody else can write to."""

    descriptor: int


class ImageBytes(Protocol):
    """An open image, as far as a reply needs it."""

    version: str
    descriptor: int
    size: int
    etag: str
    sha256: str
    md5: str
    is_withdrawn: bool

    @property
    def copy(self) -> Copy | None:
        """The same bytes once more, where there was room for them."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer where the file was cut."""

    def is_unchanged(self) -> bool:
        """Say whether the file still holds the bytes that were hashed."""


class ImageSpan(NamedTuple):
    """A piece of an image to send, from byte `start` up to byte `stop`."""

    image: ImageBytes
    start: int
    stop: int


class Transfer:
    """An image under way to a client. Applications derive their own, and put its end on record.

    Attributes:
        start: where its body begins in what the connection sends, in bytes; it ends at `stop`.
        whole_at: when the other side had acknowledged all of it.
    """

    __slots__ = ("image", "start", "stop", "whole_at")

    def __init__(self, image: ImageBytes) -> None:
        self.image = image
        self.start = 0
        self.stop = 0
        self.whole_at: float | None = None

    def end(self, bytes_sent: int, complete: bool) -> None:
        """Take its end, which comes once, however it ends.

        Args:
            bytes_sent: the bytes of the body that the other side has acknowledged.
            complete: it has acknowledged the whole reply, and did not reset after that.
        """
        raise NotImplementedError


class Reply:
    """One reply: its body is `body`, then the parts.

    Attributes:
        content_length: what the head says: the length of the body that a GET would get.
        close: asks for the end of the connection after it.
        transfer: what ends with it, where that is to be on record.
        needs_record: it must not leave where it could not be put on record.
    """

    __slots__ = (
        "body",
        "close",
        "content_length",
        "fields",
        "needs_record",
        "parts",
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


def text(status: HTTPStatus, body: str, *fields: tuple[str, str], close: bool = False) -> Reply:
    """Return a short reply that nobody may store."""
    content = body.encode("utf-8")
    return Reply(
        status,
        field_lines((*_TEXT, *fields)),
        content,
        content_length=len(content),
        close=close,
    )


def later(body: str) -> Reply:
    """Return a 503 that asks the device to come again."""
    retry_after = ("Retry-After", str(RETRY_AFTER_SECONDS))
    return text(HTTPStatus.SERVICE_UNAVAILABLE, body, retry_after)


def signature_reply(content: bytes, caching: tuple[str, str]) -> Reply:
    """Return the detached signature of an image."""
    lines = field_lines((_BINARY, caching))
    return Reply(HTTPStatus.OK, lines, content, content_length=len(content))


def not_modified(etag: str, *fields: tuple[str, str]) -> Reply:
    """Return a 304, which has no body and no length."""
    lines = field_lines((("ETag", etag), *fields))
    return Reply(HTTPStatus.NOT_MODIFIED, lines, content_length=None)


def image_reply(
    image: ImageBytes, spans: tuple[Span, ...], caching: tuple[str, str], modified: str | None
) -> Reply:
    """Return the image, or the spans of it: 200, 206 or 206 in parts (RFC 9110 section 15.3.7).

    The whole head has to fit 512 bytes, ESP-IDF's buffer, so a 206 has no field that RFC 9110 does
    not ask for there.

    Args:
        modified: Last-Modified, for a 200; None where dates are ignored.
    """
    if not spans:
        whole = ImageSpan(image, 0, image.size)
        lines = _whole_fields(image.etag, image.sha256, image.md5, image.version, caching, modified)
        return Reply(HTTPStatus.OK, lines, parts=(whole,), content_length=image.size)
    described = _described(image.etag, image.sha256, image.md5, image.version, caching)
    if len(spans) == 1:
        part = ImageSpan(image, *spans[0])
        lines = field_lines((_BINARY, _content_range(part))) + described
        length = part.stop - part.start
        return Reply(HTTPStatus.PARTIAL_CONTENT, lines, parts=(part,), content_length=length)
    parts, length, boundary = _multipart(image, spans)
    content_type = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    lines = field_lines((content_type,)) + described
    return Reply(HTTPStatus.PARTIAL_CONTENT, lines, parts=parts, content_length=length)


@lru_cache(maxsize=256)
def _described(etag: str, sha256: str, md5: str, version: str, caching: tuple[str, str]) -> bytes:
    """Return the fields that say which bytes these are. Kept: a device asks for many parts."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
    return field_lines(
        (
            ("ETag", etag),
            ("Accept-Ranges", "bytes"),
            ("Repr-Digest", f"sha-256=:{digest}:"),
            ("x-MD5", md5),
            ("X-Firmware-Version", version),
            caching,
        )
    )


@lru_cache(maxsize=256)
def _whole_fields(
    etag: str,
    sha256: str,
    md5: str,
    version: str,
    caching: tuple[str, str],
    modified: str | None,
) -> bytes:
    """Return the fields of a whole image."""
    # RFC 3230, the predecessor of Repr-Digest, is what aria2 checks a finished file against. It
    # goes on with a download by a GET without Range, which begins the current target, and would
    # take that and the pieces that it has of another image for one.
    digest = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
    last = ("Digest", f"SHA-256={digest}") if modified is None else ("Last-Modified", modified)
    described = _described(etag, sha256, md5, version, caching)
    return field_lines((_BINARY,)) + described + field_lines((last,))


def _content_range(span: ImageSpan) -> tuple[str, str]:
    return "Content-Range", f"bytes {span.start}-{span.stop - 1}/{span.image.size}"


def _multipart(
    image: ImageBytes, spans: tuple[Span, ...]
) -> tuple[list[bytes | ImageSpan], int, str]:
    # From the hash, so that no image can hold it but by finding a fixed point of SHA-256; half of
    # it, for the head has to fit 512 bytes.
    boundary = f"ota-{image.sha256[:32]}"
    parts: list[bytes | ImageSpan] = []
    length = 0
    for number, span in enumerate(spans):
        part = ImageSpan(image, *span)
        head = b"%b--%b\r\n%b\r\n" % (
            b"\r\n" if number else b"",
            boundary.encode("ascii"),
            field_lines((_BINARY, _content_range(part))),
        )
        parts += [head, part]
        length += len(head) + part.stop - part.start
    end = b"\r\n--%b--\r\n" % boundary.encode("ascii")
    return [*parts, end], length + len(end), boundary
