"""HTTP/1 on bytes: request heads in, reply heads out. Pure: no sockets, no files, no clock.

The reader is stricter than `http.server`, whose `parse_request` takes a bare CR for a line end,
drops all fields after a line without a colon, and reads an unread body as the next request.
Everything that two programs could read differently is refused: that is how requests are smuggled.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from ota_server.model.quoting import quoted

# RFC 9112 section 3 recommends this length of a request line. A head of 16 KiB is twice what nginx
# accepts, and still small enough to keep one for each connection.
MAX_REQUEST_LINE_BYTES = 8000
MAX_HEAD_BYTES = 16 * 1024
# The ESP8266 updater sends 14 fields, a browser 20: 64 are enough, and bound the work for a head.
MAX_FIELDS = 64

KNOWN_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_VALUES = re.compile(rb"(?:[\t -~\x80-\xff]++|\r\n)*+")
_COMMON_NAME_BYTES = 40
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_ORIGIN_FORM = re.compile(rb"/[!-\"$-~]*")
_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?#]*)([/?][!-\"$-~]*)?")
# RFC 3986 section 3.2.2, less user information, which RFC 9110 section 4.2.4 forbids.
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?"
)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,19}")
_EMPTY_LINES = re.compile(rb"(?:\r\n){0,2}")
_HEAD_METHOD = re.compile(rb"\s*+HEAD(?:\s|\Z)")


# RFC 9110 section 15.2.1: the client may send the body that it holds back.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BadRequest(Exception):
    """The bytes are not a valid request: reply with `status` and close."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Request(NamedTuple):
    """One request. Field names are in lower case; repeated fields are joined by a comma.

    `body` is b"" where nobody wants the body: then its bytes may follow the head.

    A NamedTuple, like other values here: importing `dataclasses` takes 1 MB of memory.
    """

    method: str
    path: bytes
    query: bytes
    minor_version: int
    fields: dict[bytes, bytes]
    repeated: frozenset[bytes]
    keep_alive: bool
    content_length: int
    body: bytes = b""

    @property
    def expects_continue(self) -> bool:
        """Whether its client may hold the body back until it is asked for (RFC 9110 10.1.1)."""
        return self.minor_version > 0 and self.fields.get(b"expect", b"").lower() == b"100-continue"

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the field `name` (lower case), or None if it was not sent."""
        return self.fields.get(name)


def read_request(buffer: bytes | bytearray) -> tuple[Request, int] | None:
    """Read the request head that `buffer` begins with.

    Returns:
        The request and the length of its head in bytes, or None if the head is not whole yet.

    Raises:
        BadRequest: the bytes break HTTP or a limit; raised as soon as that is certain.
    """
    # RFC 9112 section 2.2: an empty line before the request line is ignored; old clients send two.
    start = _EMPTY_LINES.match(buffer).end()  # type: ignore[union-attr]
    end = buffer.find(b"\r\n\r\n", start)
    if end < 0:
        _refuse_hopeless(bytes(buffer[start : start + MAX_HEAD_BYTES + 1]))
        return None
    if end + 4 - start > MAX_HEAD_BYTES:
        raise _too_large(bytes(buffer[start:end]))
    return parse_head(bytes(buffer[start:end])), end + 4


def is_head(buffer: bytes | bytearray) -> bool:
    """Return whether the request that `buffer` begins with, even if malformed, is a HEAD.

    RFC 9110 section 9.3.2: no reply to it has a body, and its client takes one for the next reply.
    """
    return _HEAD_METHOD.match(buffer) is not None


def parse_head(head: bytes) -> Request:
    """Parse a whole head, without the empty line that ends it.

    Raises:
        BadRequest: 400, 414, 431, 501 or 505, as RFC 9112 asks.
    """
    line, _, rest = head.partition(b"\r\n")
    method, target, minor_version = _request_line(line)
    fields, repeated = _field_lines(rest)
    _check_host(fields.get(b"host"), b"host" in repeated, minor_version)
    path, query, authority = _target(method, target)
    if authority is not None:
        fields[b"host"] = authority  # RFC 9112 section 3.2.2: the field is ignored then
    return Request(
        method=method.decode("ascii"),
        path=path,
        query=query,
        minor_version=minor_version,
        fields=fields,
        repeated=repeated,
        keep_alive=_keep_alive(fields.get(b"connection", b""), minor_version),
        content_length=_content_length(fields, b"content-length" in repeated),
    )


def _refuse_hopeless(part: bytes) -> None:
    """Refuse an incomplete head that can no longer become valid, without waiting for its end."""
    # By counting: a pattern takes ten times as long, and a head may arrive byte by byte.
    line_ends = part.count(b"\r\n")
    if part.count(b"\n") > line_ends or part.count(b"\r", 0, len(part) - 1) > line_ends:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "a line must end with CR LF")
    line, end_of_line, _ = part.partition(b"\r\n")
    if end_of_line:
        _request_line(line)
    elif line not in (b"", b"\r") and not _TOKEN.match(line):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line does not begin with a method")
    # One byte more than the longest line, for the CR that ends it.
    if len(part) > (MAX_HEAD_BYTES if end_of_line else MAX_REQUEST_LINE_BYTES + 1):
        raise _too_large(part)


def _too_large(part: bytes) -> BadRequest:
    if len(part.partition(b"\r\n")[0]) > MAX_REQUEST_LINE_BYTES:
        return BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    return BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is over 16 KiB")


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    if len(line) > MAX_REQUEST_LINE_BYTES:
        raise _too_large(line)
    words = line.split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line is not METHOD TARGET VERSION")
    version = _VERSION.fullmatch(words[2])
    if not version:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line names no HTTP version")
    if version[1] != b"1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1")
    return words[0], words[1], min(int(version[2]), 1)


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Return path and query as raw bytes: without decoding nothing can be disguised.

    And the authority of a target in absolute form; None: it has none.
    """
    if method == b"CONNECT" or (method == b"OPTIONS" and target == b"*"):
        return target, b"", None  # nothing is read into where a CONNECT goes: it is refused
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute:
        if absolute[1][:1] in (b"", b":") or not is_host(absolute[1]):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the target has no valid authority")
        target = absolute[2] or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
    elif not _ORIGIN_FORM.fullmatch(target):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the target is no path of visible ASCII")
    path, _, query = target.partition(b"?")
    return path, query, absolute[1] if absolute else None


def _field_lines(block: bytes) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    fields: dict[bytes, bytes] = {}
    repeated = set()
    lines = block.split(b"\r\n") if block else []
    if len(lines) > MAX_FIELDS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"over {MAX_FIELDS} fields")
    # One match for all values, and names that are known: one for each costs three times as much.
    are_clean = _VALUES.fullmatch(block) is not None
    for line in lines:
        # Partition before matching: one pattern for the whole line would backtrack over blanks.
        text, colon, value = line.partition(b":")
        name = _common_name(text) if len(text) <= _COMMON_NAME_BYTES else _lower_name(text)
        value = value.strip(b" \t")
        if not colon or name is None or not (are_clean or _VALUE.fullmatch(value)):
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"malformed field line {quoted(line)}")
        if name in fields:
            repeated.add(name)
            value = fields[name] + b", " + value
        fields[name] = value
    return fields, frozenset(repeated)


def _lower_name(name: bytes) -> bytes | None:
    """Return the name of a field in lower case; None: it is malformed."""
    return name.lower() if _TOKEN.fullmatch(name) else None


_common_name = lru_cache(maxsize=256)(_lower_name)


def is_host(host: bytes) -> bool:
    """Return whether this is a host, with a port or without, as a Host field has it."""
    match = _HOST.fullmatch(host)
    return bool(match) and int(match[1] or 0) <= 65535  # type: ignore[index]


def _check_host(host: bytes | None, repeated: bool, minor_version: int) -> None:
    """RFC 9112 section 3.2: exactly one valid Host; only HTTP/1.0 may leave it out."""
    if host is None and minor_version >= 1:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "no Host field")
    if repeated or (host is not None and not is_host(host)):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "more than one Host, or a malformed one")


def _content_length(fields: dict[bytes, bytes], repeated: bool) -> int:
    text = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        if text is not None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding")
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, "no body here has a coding")
    if text is None:
        return 0
    # RFC 9112 section 6.3 allows accepting equal repetitions; no honest client sends them.
    if repeated or not _CONTENT_LENGTH.fullmatch(text):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
    return int(text)


def _keep_alive(connection: bytes, minor_version: int) -> bool:
    options = [option.strip(b" \t") for option in connection.lower().split(b",")]
    if b"close" in options:
        return False
    return minor_version >= 1 or b"keep-alive" in options


_STATUS_LINES = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
# The phrases of 413, 414 and 416 changed between Python versions; these are RFC 9110's.
for _status, _phrase in (
    (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Content Too Large"),
    (HTTPStatus.REQUEST_URI_TOO_LONG, "URI Too Long"),
    (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range Not Satisfiable"),
):
    _STATUS_LINES[_status] = f"HTTP/1.1 {_status.value} {_phrase}\r\n".encode("ascii")


def field_lines(fields: Iterable[tuple[str, str]]) -> bytes:
    """Serialise reply fields that this server made; a line end in one is a bug."""
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    if any(line.count("\n") != 1 or line.count("\r") != 1 for line in lines):
        raise ValueError(f"line end in reply fields: {lines!r}")
    return "".join(lines).encode("ascii")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


@lru_cache(maxsize=4096)
def http_date(seconds: int) -> str:
    """Return a time in whole seconds since the epoch as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    # By hand: `email.utils` takes 0.7 MB, and strftime uses the names of the locale.
    moment = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment:%Y %H:%M:%S} GMT"


def reply_head(
    status: HTTPStatus,
    fields: bytes,
    content_length: int | None,
    seconds: int,
    keep_alive: bool,
    minor_version: int,
) -> bytes:
    """Return a whole reply head.

    Args:
        fields: further fields, serialised by `field_lines`.
        content_length: None for 304, where RFC 9110 section 8.6 forbids any length but that of the
            200 reply, and simple clients would wait for so many bytes; for 204, which it forbids
            any; and for a stream, which ends with its connection.
        seconds: the time for the Date field, in seconds since the epoch.
    """
    length = b"" if content_length is None else b"Content-Length: %d\r\n" % content_length
    connection = b""
    if not keep_alive:
        connection = b"Connection: close\r\n"
    elif minor_version == 0:
        connection = b"Connection: keep-alive\r\n"
    date = http_date(seconds).encode("ascii")
    return b"%bDate: %b\r\n%b%b%b\r\n" % (_STATUS_LINES[status], date, fields, length, connection)
