"""What a client has sent and nobody has answered yet: bytes in, whole requests out. Pure.

A body is read only where the application wants it, and before its request is answered. Until both
are whole, head and body stay in one bounded buffer.
"""

from http import HTTPStatus
from typing import Protocol

from ota_server.httpd.app import App
from ota_server.httpd.http1 import MAX_HEAD_BYTES, BadRequest, Request

# The longest head, and the two empty lines that may come before it: more bytes than that hold a
# request to answer or to refuse. It is cheap to copy so few bytes for each request.
_MOST_UNREAD_BYTES = MAX_HEAD_BYTES + 4


class BodyRoom(Protocol):
    """What all connections together may take for bodies that are not whole yet."""

    def take(self, length: int) -> bool:
        """Return whether there is room for a body, and take that."""

    def give_back(self, length: int) -> None:
        """Give back what a body took."""


class Incoming:
    """The bytes that a client has sent. Used by one thread at a time.

    Attributes:
        bodies: the budget of all connections for bodies; None: there is no limit.
    """

    __slots__ = ("_app", "_begun", "_buffer", "bodies")

    def __init__(self, app: App) -> None:
        self._app = app
        self.bodies: BodyRoom | None = None
        self._buffer = b""
        # A request whose body is not whole yet, and the length of its head.
        self._begun: tuple[Request, int] | None = None

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
        return len(self._buffer) >= head_bytes + request.content_length

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

    def _begin_body(self, request: Request, head_bytes: int) -> None:
        """Wait for the rest of a body.

        Raises:
            BadRequest: the memory for bodies is taken.
        """
        if self._begun is not None:
            return
        if self.bodies is not None and not self.bodies.take(request.content_length):
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, "too many bodies at once")
        self._begun = request, head_bytes

    def _end_body(self) -> None:
        if self._begun is not None and self.bodies is not None:
            self.bodies.give_back(self._begun[0].content_length)
        self._begun = None

    def _with_body(self, request: Request, head_bytes: int) -> Request | None:
        """Return a request with its body, without it if it is not wanted; None: it is not whole."""
        most = self._app.most_body_bytes(request)
        if not most:
            return request
        if request.content_length > most:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {most} bytes")
        body = self._buffer[head_bytes : head_bytes + request.content_length]
        return request._replace(body=body) if len(body) == request.content_length else None
