"""Replies with an image, or with parts of it, or with its signature. Reads no files."""

import base64
from functools import lru_cache
from http import HTTPStatus

from ota_server.httpd import byterange, reply
from ota_server.httpd.byterange import Precondition, RangeSpec, Span, Unsatisfiable
from ota_server.httpd.http1 import Request, field_lines, http_date
from ota_server.httpd.reply import ImageSpan, Reply
from ota_server.model.archive import ArchivedFile
from ota_server.releases.image import Image

_BINARY = ("Content-Type", "application/octet-stream")


def signature_reply(content: bytes, caching: tuple[str, str]) -> Reply:
    """Return the detached signature of an image."""
    lines = field_lines((_BINARY, caching))
    return Reply(HTTPStatus.OK, lines, content, content_length=len(content))


def file_reply(image: Image, file: ArchivedFile, caching: tuple[str, str]) -> Reply:
    """Return one file of an archive."""
    length = file.stop - file.start
    parts = (ImageSpan(image, file.start, file.stop),) if length else ()
    lines = field_lines((_BINARY, caching))
    return Reply(HTTPStatus.OK, lines, parts=parts, content_length=length)


def conditional_reply(
    request: Request,
    image: Image,
    ranges: tuple[RangeSpec, ...],
    modified_seconds: int | None,
    caching: tuple[str, str],
) -> Reply:
    """Answer with the image, a part of it, 304, 412 or 416.

    Args:
        modified_seconds: Last-Modified in seconds since the epoch; None to ignore dates.
    """
    condition = byterange.precondition(request.fields, image.etag, modified_seconds)
    if condition is Precondition.FAILED:
        return reply.text(HTTPStatus.PRECONDITION_FAILED, "Precondition Failed")
    modified = None if modified_seconds is None else http_date(modified_seconds)
    if condition is Precondition.NOT_MODIFIED:
        dated = () if modified is None else (("Last-Modified", modified),)
        return reply.not_modified(image.etag, caching, *dated)
    try:
        spans = byterange.resolve(ranges, image.size) if ranges else ()
    except Unsatisfiable:
        content_range = ("Content-Range", f"bytes */{image.size}")
        return reply.text(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range Not Satisfiable", content_range
        )
    return image_reply(image, spans, caching, modified)


def ranges_of(request: Request) -> tuple[RangeSpec, ...]:
    """Return what a request asks for; () for all of it."""
    # RFC 9110 section 14.2: only a GET can have a Range.
    return byterange.parse_ranges(request.get(b"range")) if request.method == "GET" else ()


def range_start_of(answer: Reply) -> int | None:
    """Return the position of the first byte that is sent of an image; None unless it is a 206."""
    if answer.status is not HTTPStatus.PARTIAL_CONTENT:
        return None
    return next(part.start for part in answer.parts if isinstance(part, ImageSpan))


def has_end_of(image: Image, answer: Reply) -> bool:
    """Return whether the last byte of the image is sent."""
    spans = (part for part in answer.parts if isinstance(part, ImageSpan))
    return any(span.stop == image.size for span in spans)


def image_reply(
    image: Image, spans: tuple[Span, ...], caching: tuple[str, str], modified: str | None
) -> Reply:
    """Return the image, or spans of it: 200, 206 or 206 in parts (RFC 9110 section 15.3.7).

    The whole head has to fit into 512 bytes, ESP-IDF's buffer, so a 206 has only the fields that
    RFC 9110 requires.

    Args:
        modified: Last-Modified, for a 200; None if dates are ignored.
    """
    if not spans:
        whole = ImageSpan(image, 0, image.size)
        lines = _whole_fields(image.etag, image.sha256, image.md5, image.version, caching, modified)
        return Reply(HTTPStatus.OK, lines, parts=(whole,), content_length=image.size)
    described = _described(image.etag, image.sha256, image.md5, image.version, caching)
    if len(spans) == 1:
        part = ImageSpan(image, *spans[0])
        lines = field_lines((_BINARY, _content_range(image, part))) + described
        length = part.stop - part.start
        return Reply(HTTPStatus.PARTIAL_CONTENT, lines, parts=(part,), content_length=length)
    parts, length, boundary = _multipart(image, spans)
    content_type = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    lines = field_lines((content_type,)) + described
    return Reply(HTTPStatus.PARTIAL_CONTENT, lines, parts=parts, content_length=length)


@lru_cache(maxsize=256)
def _described(etag: str, sha256: str, md5: str, version: str, caching: tuple[str, str]) -> bytes:
    """Return the fields that say which bytes these are. Cached: a device asks for many parts."""
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
    # aria2 checks a finished file against Digest (RFC 3230), the predecessor of Repr-Digest. It
    # resumes with a GET without Range, which begins the current target, and would otherwise mix it
    # with the pieces that it has of another image.
    digest = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
    last = ("Digest", f"SHA-256={digest}") if modified is None else ("Last-Modified", modified)
    described = _described(etag, sha256, md5, version, caching)
    return field_lines((_BINARY,)) + described + field_lines((last,))


def _content_range(image: Image, span: ImageSpan) -> tuple[str, str]:
    return "Content-Range", f"bytes {span.start}-{span.stop - 1}/{image.size}"


def _multipart(image: Image, spans: tuple[Span, ...]) -> tuple[list[bytes | ImageSpan], int, str]:
    # Made from the hash, so that no image can contain it without a fixed point of SHA-256; half of
    # it, since the head has to fit into 512 bytes.
    boundary = f"ota-{image.sha256[:32]}"
    parts: list[bytes | ImageSpan] = []
    length = 0
    for number, span in enumerate(spans):
        part = ImageSpan(image, *span)
        head = b"%b--%b\r\n%b\r\n" % (
            b"\r\n" if number else b"",
            boundary.encode("ascii"),
            field_lines((_BINARY, _content_range(image, part))),
        )
        parts += [head, part]
        length += len(head) + part.stop - part.start
    end = b"\r\n--%b--\r\n" % boundary.encode("ascii")
    return [*parts, end], length + len(end), boundary
