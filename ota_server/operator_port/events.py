"""What changes, as a stream of server-sent events: for the page, and for programs. I/O.

An event says what to look at again, not how it is. Each has the `id` by which a client that was
away asks for what it has missed. At most `MOST_STREAMS` are open; the next one is refused, and its
client polls.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.httpd.taken import TakenConnection, TakesOver
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.changes import MOST_STREAMS, Changes, SiteChange
from ota_server.operator_port.problems import Problem, problem_reply, with_safe_fields
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site

RETRY_SECONDS = 3
_REFUSED_SECONDS = 15
# Proxies close what is silent for a minute, some for half of that.
COMMENT_SECONDS = 15.0
# How soon a client that has left gives its room to the next one.
_LOOK_SECONDS = 1.0
_FIELDS = field_lines(
    (
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),  # or nginx keeps events until it has many
    )
)


def follow(site: Site, asked: Asked) -> Reply:
    """Stream what changes, until the client leaves.

    Raises:
        TakesOver: always, but for a HEAD.
    """
    if asked.request.method == "HEAD":
        return Reply(HTTPStatus.OK, _FIELDS, content_length=None, close=True)
    last_id = last_seen_id(asked)
    is_let = partial(site.authoriser.still_lets_read, asked.request, asked.peer)

    def talk(taken: TakenConnection) -> None:
        if not site.changes.begin_stream():
            taken.reply(_no_room(site, asked), asked.request.minor_version)
            return
        try:
            stream = EventStream(site.changes, taken, last_id, is_let=is_let)
            stream.send(asked.request.minor_version)
        finally:
            site.changes.end_stream()

    raise TakesOver(talk)


def last_seen_id(asked: Asked) -> int | None:
    """Return the id of the last event that a client has seen; None: it begins.

    A browser sends the field when it connects again, and the query each time: so the field counts.
    What is not an id counts as an old one: then everything has to be looked at again.
    """
    said = asked.request.get(b"last-event-id")
    text = asked.one("last_event_id") if said is None else said.decode("latin-1")
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def event_text(change: SiteChange) -> bytes:
    """Return a change as an event."""
    said = json.dumps({"kind": change.kind, **change.fields})
    return f"id: {change.id}\nevent: {change.kind}\ndata: {said}\n\n".encode("ascii")


def _no_room(site: Site, asked: Asked) -> Reply:
    text = f"{MOST_STREAMS} streams are open, and no more: ask for what you want every 15 seconds."
    retry = (("Retry-After", str(_REFUSED_SECONDS)),)
    problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, text, retry)
    return with_safe_fields(problem_reply(site, asked, problem))


class EventStream:
    """One client that listens."""

    def __init__(
        self,
        changes: Changes,
        taken: TakenConnection,
        last_id: int | None,
        comment_seconds: float = COMMENT_SECONDS,
        is_let: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin after the change that the client has seen; None: with the next one.

        Args:
            is_let: whether the client may still listen: its token may be revoked.
            comment_seconds: how long it is silent at most.
        """
        self._changes = changes
        self._taken = taken
        self._last_id = changes.last_id if last_id is None else last_id
        self._comment_seconds = comment_seconds
        self._is_let = is_let

    def send(self, minor_version: int) -> None:
        """Send events until the client leaves or may not listen, or there are none any longer."""
        head = with_safe_fields(Reply(HTTPStatus.OK, _FIELDS, content_length=None))
        begin = f"retry: {RETRY_SECONDS * 1000}\nid: {self._last_id}\n\n".encode("ascii")
        self._send(head.head(int(time.time()), False, minor_version) + begin)
        while not self._changes.is_closed and not self._taken.is_left():
            wait_seconds = min(_LOOK_SECONDS, self._comment_seconds)
            changes = self._changes.after(self._last_id, wait_seconds)
            if not self._is_let():
                return
            self._send_next(changes)

    def _send_next(self, changes: Sequence[SiteChange]) -> None:
        if changes:
            self._last_id = changes[-1].id
            self._send(b"".join(map(event_text, changes)))
        elif time.monotonic() - self._sent_at >= self._comment_seconds:
            self._send(b": still here\n\n")

    def _send(self, content: bytes) -> None:
        self._taken.send(content)
        self._sent_at = time.monotonic()


ROUTES = (Route("GET", "/events", Access.READ, follow),)
