"""The operators' port: an `App` of `httpd` that finds a route, asks who may, and answers. I/O.

In this order: host and caller (`authoriser`), path (404), method (405), body, answer. The head of a
request is enough to refuse a stranger, so nobody who may not act can make us read a long body. A
connection ends after a request with a body.

Exceptions become statuses in `statuses`. Under `/api/` and for whoever prefers JSON an error is a
problem (RFC 9457), else a page.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from ota_server.httpd import http1
from ota_server.httpd.app import QuickReply
from ota_server.httpd.http1 import BadRequest, Request
from ota_server.httpd.reply import Peer, Reply
from ota_server.httpd.seats import Seats
from ota_server.httpd.taken import TakenConnection, TakesOver
from ota_server.operator_port.answer_turns import AnswerTurns
from ota_server.operator_port.asked import Asked, path_segments
from ota_server.operator_port.authoriser import NOBODY, Access
from ota_server.operator_port.problems import Problem, problem_reply, with_safe_fields
from ota_server.operator_port.routes import FoundPath, Route, RouteTable
from ota_server.operator_port.site import Site
from ota_server.operator_port.statuses import as_problem
from ota_server.policy import audit
from ota_server.system.server_log import Budget

log = logging.getLogger(__name__)

# Of a form or of JSON: a bulk action may name a hundred thousand devices. Of whoever need not be
# able to act it is a short form, such as a login.
_MOST_BODY_BYTES = 4 * 1024 * 1024
_MOST_OPEN_BYTES = 4096
# For a body as a whole, however often a piece of it arrives; a long one gets more by its length, a
# tenth of what a phone sends on a bad link.
_BODY_SECONDS = 10.0
_BODY_BYTES_A_SECOND = 4096
# About what breaks HTTP.
_LOG_LINES, _LOG_SECONDS = 10, 60.0


class OperatorApp:
    """Answers operators. Each connection has a thread, so an answer may take its time."""

    failures = withdrawals = 0  # nothing here is recorded in the journal, and no image is sent

    def __init__(self, site: Site, routes: RouteTable, seats: Seats) -> None:
        self._site = site
        self._routes = routes
        self._seats = seats
        self._turns = AnswerTurns()
        self._lines = Budget(_LOG_LINES, _LOG_SECONDS)

    def begin_turn(self) -> None:
        """Do nothing: each answer looks at its files."""

    def flush(self) -> None:
        """Do nothing: there are no records."""

    def answer_quickly(self, _data: bytes, _peer: Peer) -> QuickReply | None:
        """Return None: no request here is so common."""
        return None

    def read_request(self, buffer: bytes) -> tuple[Request, int] | None:
        """Read the head that `buffer` begins with.

        Raises:
            BadRequest: the bytes break HTTP or a limit.
        """
        return http1.read_request(buffer)

    def most_body_bytes(self, _request: Request) -> int:
        """Return 0: a body is read after it is known who sends it."""
        return 0

    def note_refused(self, problem: BadRequest, _head: bytes, peer: Peer) -> None:
        """Log a request that breaks HTTP."""
        if self._lines.allows(time.monotonic()):
            log.info("operators' port: %d for %s: %s", problem.status, peer.address, problem)

    def respond(self, request: Request, peer: Peer, _may_wait: bool = True) -> Reply:
        """Answer a request.

        Raises:
            TakesOver: it has a body, or is answered by a stream.
        """
        answer = self._respond(request, peer)
        # Nobody has read the body, and it must not be read as the next request.
        answer.close = answer.close or request.content_length > 0
        if request.method == "HEAD":
            answer.body = b""
        return answer

    def _respond(self, request: Request, peer: Peer) -> Reply:
        asked = Asked(request, peer, {}, NOBODY)
        try:
            segments = path_segments(request.path)
            found = None if segments is None else self._routes.find(segments)
            route = None if found is None else _route_for(found, request.method)
            if route is None or found is None:
                operator = self._site.authoriser.operator(request, peer, Access.READ)
                return self._not_there(Asked(request, peer, {}, operator), found)
            unnamed = Asked(request, peer, found.parts, NOBODY)
            if request.content_length:
                self._read_body_first(route, unnamed)
            if route.asks_who and self._site.authoriser.wants_body(request, peer):
                return self._answer(route, unnamed, is_known=True)
            operator = self._site.authoriser.operator(request, peer, route.access)
            return self._answer(route, Asked(request, peer, found.parts, operator))
        except TakesOver:
            raise
        except Exception as problem:
            return self._refuse(asked, problem)

    def _read_body_first(self, route: Route, asked: Asked) -> None:
        """Have a body read, unless the head is enough to refuse it.

        Raises:
            TakesOver: it is read, and the request answered, on the connection.
            Problem: it is too long.
        """
        request, authoriser = asked.request, self._site.authoriser
        is_act = route.access is Access.ACT
        if route.takes_body or (is_act and not authoriser.wants_body(request, asked.peer)):
            return
        most = _MOST_BODY_BYTES if is_act else _MOST_OPEN_BYTES
        if request.content_length > most:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body is longer than the {most} bytes that are read here.",
            )

        def talk(taken: TakenConnection) -> None:
            answer = self._respond_late(route, asked, partial(_body_of, taken, request))
            if request.method == "HEAD":
                answer.body = b""
            taken.reply(answer, request.minor_version)

        raise TakesOver(self._held(talk) if is_act else talk)

    def _respond_late(self, route: Route, asked: Asked, body: Callable[[], bytes]) -> Reply:
        """Answer a request whose body is on its way.

        Raises:
            OSError: the connection is gone.
        """
        try:
            with self._turns.keeping(asked.request.content_length):
                request = asked.request._replace(body=body())
                operator = self._site.authoriser.operator(request, asked.peer, route.access)
                return self._answer(route, Asked(request, asked.peer, asked.parts, operator))
        except ConnectionError:
            raise
        except Exception as problem:
            return self._refuse(asked, problem)

    def _answer(self, route: Route, asked: Asked, is_known: bool = False) -> Reply:
        """Answer a request that is allowed.

        Args:
            is_known: by its head it is from somebody who may act.
        """
        asked.last_change = self._site.changes.last_id
        try:
            return with_safe_fields(self._answered(route, asked, is_known))
        except TakesOver:
            raise
        except Exception as problem:  # the page of a problem says who is signed in, too
            return self._refuse(asked, problem)

    def _answered(self, route: Route, asked: Asked, is_known: bool) -> Reply:
        if not (is_known or asked.operator.name):
            with self._turns.answering_stranger():
                return route.answer(self._site, asked)
        # One who may only read acts nowhere.
        with self._seats.held(), audit.acting_as(asked.operator.name):
            try:
                return route.answer(self._site, asked)
            except TakesOver as taking:
                raise TakesOver(self._held(taking.talk)) from None

    def _held(self, talk: Callable[[TakenConnection], None]) -> Callable[[TakenConnection], None]:
        """Return what takes a connection over, which gives way to none meanwhile."""

        def talk_held(taken: TakenConnection) -> None:
            with self._seats.held():
                talk(taken)

        return talk_held

    def _not_there(self, asked: Asked, found: FoundPath | None) -> Reply:
        if found is None:
            return self._refuse(asked, Problem(HTTPStatus.NOT_FOUND, "There is nothing here."))
        text = f"{asked.request.method} does not apply here: use {found.allow}."
        allow = (("Allow", found.allow),)
        return self._refuse(asked, Problem(HTTPStatus.METHOD_NOT_ALLOWED, text, allow))

    def _refuse(self, asked: Asked, problem: Exception) -> Reply:
        """Return the reply to a request that cannot be answered as it was meant."""
        return with_safe_fields(problem_reply(self._site, asked, as_problem(problem)))


def _route_for(found: FoundPath, method: str) -> Route | None:
    return found.routes.get("GET" if method == "HEAD" else method)


def _body_of(taken: TakenConnection, request: Request) -> bytes:
    if request.expects_continue:
        taken.ask_for_body()
    length = request.content_length
    return taken.read_body(length, _BODY_SECONDS + length / _BODY_BYTES_A_SECOND)
