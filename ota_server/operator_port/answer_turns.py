"""What is answered at once: strangers a few at a time, so that they slow no operator. I/O: waits.

On loopback whoever is on this machine may read without a token. A few hundred of their requests at
once would share one interpreter with those of operators, and a page would take seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import BoundedSemaphore

from ota_server.httpd.body_budget import BodyBudget
from ota_server.operator_port.problems import Problem

_STRANGERS_AT_ONCE = 2
_PATIENCE_SECONDS = 5.0
_LATER_SECONDS = 5
# Bodies of all requests that are answered at once: each may be 4 MiB. What is made of one, such as
# an object of JSON, may take thirty times its length.
_MOST_BODIES_BYTES = 16 * 1024 * 1024


def _later(text: str) -> Problem:
    retry = (("Retry-After", str(_LATER_SECONDS)),)
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, text, retry)


class AnswerTurns:
    """Who is answered now. Safe for use by many threads."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Begin with nobody.

        Args:
            patience_seconds: for so long a stranger waits for the others.
        """
        self._patience_seconds = patience_seconds
        self._strangers = BoundedSemaphore(_STRANGERS_AT_ONCE)
        self._bodies = BodyBudget(_MOST_BODIES_BYTES)

    @contextmanager
    def answering_stranger(self) -> Iterator[None]:
        """Wait until a request may be answered that nobody is known to have sent.

        Raises:
            Problem: too many others wait too.
        """
        if not self._strangers.acquire(timeout=self._patience_seconds):
            raise _later("Too much is asked without a token just now; who has one is not held up.")
        try:
            yield
        finally:
            self._strangers.release()

    @contextmanager
    def keeping(self, body_bytes: int) -> Iterator[None]:
        """Keep a body of this length in memory.

        Raises:
            Problem: there is no room now.
        """
        if not self._bodies.take(body_bytes):
            raise _later("Too many long requests arrive at once.")
        try:
            yield
        finally:
            self._bodies.give_back(body_bytes)
