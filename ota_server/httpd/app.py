"""What this HTTP server asks of the application that it serves. Pure.

A turn of the event loop: `begin_turn`; an answer to each request that has arrived; `flush`; then
the replies are sent. So an application can record many answers with one write.
"""

from typing import NamedTuple, Protocol

from ota_server.httpd.http1 import BadRequest, Request
from ota_server.httpd.reply import Peer, Reply


class Awaited(Protocol):
    """Something that is not ready yet, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Return whether it is ready."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is ready, at most `timeout` seconds."""


class NotReady(Exception):
    """The answer needs something that is not ready: ask again when `done` is set."""

    def __init__(self, problem: str, done: Awaited) -> None:
        super().__init__(problem)
        self.done = done


class QuickReply(NamedTuple):
    """A whole reply, head and body, that was made without a `Request`.

    Attributes:
        keep_alive: the connection stays open for further requests.
        needs_record: as in `Reply`.
    """

    content: bytes
    keep_alive: bool
    needs_record: bool


class App(Protocol):
    """Answers requests. It never waits; threads may share it."""

    @property
    def failures(self) -> int:
        """How often the writing of records began to fail.

        If that changes between an answer and the end of the `flush` after it, a reply that
        `needs_record` must not be sent.
        """

    @property
    def withdrawals(self) -> int:
        """How often an image was withdrawn while it was being sent: then look for it."""

    def begin_turn(self) -> None:
        """Look for changes of files, once for all answers until the next turn."""

    def answer_quickly(self, data: bytes, peer: Peer) -> QuickReply | None:
        """Answer `data` if it is one request of the most common kind, else return None.

        None means that nothing was done: use `read_request` and `respond`.
        """

    def read_request(self, buffer: bytes) -> tuple[Request, int] | None:
        """Read the head that `buffer` begins with, as `http1.read_request` does."""

    def most_body_bytes(self, request: Request) -> int:
        """Return how long the body of a request may be; 0 if it is not wanted.

        Of a longer one the beginning is kept. One that is not wanted is not read, and the reply has
        to close.
        """

    def note_refused(self, problem: BadRequest, head: bytes, peer: Peer) -> None:
        """Note that a request was refused; it began with `head`, which is not valid."""

    def respond(self, request: Request, peer: Peer, may_wait: bool) -> Reply:
        """Answer a request.

        Raises:
            NotReady: ask again later. Only if the caller `may_wait`.
            TakesOver: the application wants the connection for itself; see `taken.py`.
        """

    def flush(self) -> None:
        """Record all answers so far: then their replies may be sent."""
