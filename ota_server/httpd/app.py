"""What this HTTP server asks of the application that it serves. Pure.

A turn of the event loop is: `begin_turn`; an answer to each request that has arrived; `flush`; then
the replies leave. So an application may put many answers on record by one write.
"""

from typing import NamedTuple, Protocol

from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply


class Awaited(Protocol):
    """Something that is being made, as a `threading.Event`."""

    def is_set(self) -> bool:
        """Return whether it is made."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is made, or for so many seconds."""


class NotReady(Exception):
    """The answer needs what is being made: ask again when `done` is set."""

    def __init__(self, problem: str, done: Awaited) -> None:
        super().__init__(problem)
        self.done = done


class QuickReply(NamedTuple):
    """A whole reply, head and body, that was made without a `Request`.

    Attributes:
        keep_alive: the client may send its next request on this connection.
        needs_record: as that of a `Reply`.
    """

    content: bytes
    keep_alive: bool
    needs_record: bool


class App(Protocol):
    """Answers requests. Nothing in it waits; threads may share it."""

    @property
    def failures(self) -> int:
        """How often records began to fail to be written.

        Where that changes between an answer and the end of the `flush` after it, a reply that
        `needs_record` must not leave.
        """

    @property
    def withdrawals(self) -> int:
        """How often something that is being sent became withdrawn: then look for it."""

    def begin_turn(self) -> None:
        """Look at what may have changed, once for all answers until the next turn."""

    def answer_quickly(self, data: bytes, peer: Peer) -> QuickReply | None:
        """Answer `data` where that is one request of the commonest kind, else return None.

        None means nothing was done: `read_request` and `respond` give the same answer.
        """

    def read_request(self, buffer: bytes) -> tuple[Request, int] | None:
        """Read the head that `buffer` begins with, as `http1.read_request` does."""

    def respond(self, request: Request, peer: Peer, may_wait: bool) -> Reply:
        """Answer a request.

        Raises:
            NotReady: ask again later. Only where the caller `may_wait`.
        """

    def flush(self) -> None:
        """Put all answers so far on record: then their replies may leave."""
