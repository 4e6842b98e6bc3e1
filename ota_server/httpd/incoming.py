"""What a client has sent and nobody has answered yet: bytes in, whole requests out. Pure.

A body is read only where the application wants it, and before its request is answered. Until both
are whole, head and body stay in one bounded buffer. Of a body that is longer than the application
wants only the beginning is kept.
"""

from http import HTTPStatus
from typing import Protocol

from ota_server.httpd.app import App
from ota_server.httpd.http1 import MAX_HEAD_BYTES, BadRequest, Request

# The longest head, and the two empty lines that may come before it: more bytes than that hold a
# request to answer or to refuse. It is cheap to copy so few bytes for each request.
_MOST_UNREAD_BYTES = MAX_HEAD_BYTES + 4
# A client whose body is longer than is wanted has to be answered all the same, if it is no longer
# than this: of a log of an update the beginning is enough.
MOST_CUT_BYTES = 1024 * 1024


class Bodies(Protocol):
    """The memory for the bodies of all connections that have begun and are not whole yet."""

    def take(self, length: int) -> bool:
        """Return whether there is room for a body, and take that."""

    def give_back(self, length: int) -> None:
        """Give back what a body took."""


class Incoming:
    """The bytes that a client has sent. Used by one thread at a time.

    Attributes:
        bodies: the budget of all connections for bodies; None: there is no limit.
    """

    __slots__ = ("_app", "_begun", "_buffer", "_dropped_bytes", "bodies")

    def __init__(self, app: App) -> None:
        self._app = app
        self.bodies: Bodies | None = None
        self._buffer = b""
        # A request whose body is not whole yet, and the length of its head.
        self._begun: tuple[Request, int] | None = None
        self._dropped_bytes = 0  # of its body

    @property
    def has_input(self) -> bool:
        """Whether bytes have arrived that are not read as a request yet."""
        return bool(self._buffer)

    @property
    def _holds_request(self) -> bool:
        """Whether the buffer holds so much that there is a request to answer or to refuse."""
        if self._begun is None:
            return len(self._buffer) > _MOST_UNREAD_BYTES
        request, head_bytes = self._begun
        return len(self._buffer) + self._dropped_bytes >= head_bytes + request.content_length

    def _take_request(self) -> Request | None:
        """Take the next request out of the buffer, or return None if it is not whole yet.

        Raises:
            BadRequest: the bytes break HTTP or a limit.
        """
        found = self._begun
        if found is None and self._buffer:
            found = self._app.read_request(self._buffer)
        if found is None:
            return None
        request, length = found
        if request.content_length:
            whole = self._with_body(request, length)
            if whole is None:
                self._begin_body(request, length)
                return None
            self._end_body()
            request, length = whole, length + len(whole.body)
        self._buffer = self._buffer[length:]
        return request

    def take_rest(self) -> bytes:
        """Take what has arrived and is not read: for who reads on by itself."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _begin_body(self, request: Request, head_bytes: int) -> None:
        """Wait for the rest of a body.

        Raises:
            BadRequest: the memory for bodies is taken.
        """
        if self._begun is not None:
            return
        if self.bodies is not None and not self.bodies.take(self._kept_bytes(request)):
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, "too many bodies at once")
        self._begun = request, head_bytes

    def _end_body(self) -> None:
        if self._begun is not None and self.bodies is not None:
            self.bodies.give_back(self._kept_bytes(self._begun[0]))
        self._begun = None
        self._dropped_bytes = 0

    def _kept_bytes(self, request: Request) -> int:
        return min(request.content_length, self._app.most_body_bytes(request))

    def _with_body(self, request: Request, head_bytes: int) -> Request | None:
        """Return a request with its body, without it if it is not wanted; None: it is not whole."""
        kept = self._kept_bytes(request)
        if not kept:
            return request
        if request.content_length > max(kept, MOST_CUT_BYTES):
            said = f"the body is over {MOST_CUT_BYTES} bytes"
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
        end, left = head_bytes + kept, request.content_length - kept - self._dropped_bytes
        if left and len(self._buffer) > end:
            length = len(self._buffer)
            self._buffer = self._buffer[:end] + self._buffer[end + left :]
            self._dropped_bytes += length - len(self._buffer)
        body = self._buffer[head_bytes:end]
        is_whole = len(body) + self._dropped_bytes == request.content_length
        return request._replace(body=body) if is_whole else None
