"""Who may have a page, the API, metrics or the stream: one place decides that for all. I/O.

What is checked, in this order; the first that fails is the answer:

| check | of | if it fails |
|---|---|---|
| 1. Host | every request | 403: the name of another site may lead here |
| 2. Origin, Sec-Fetch-Site | what may change something | 403: a page of another site sent it |
| 3. Sec-Fetch-Site, -Mode | all but `Access.OPEN` | 403: a page of another site embeds it |
| 4. Authorization, cookie | all but `Access.OPEN` | 401; wrong ones also 429 (`wrong_tokens`) |
| 5. may it act? | `Access.ACT` | 403 |
| 6. the form's token | what a cookie allows to act | 403 |

What may change something is all but GET and HEAD. A program sends `Authorization: Bearer TOKEN`; a
browser sends the cookie of a session, also when a page elsewhere has it do that: hence 2 and 6.

Reading needs no token where the port listens on loopback alone and the request comes from there.
But what a proxy on this machine forwards comes from there too, whoever sent it: a request that
says that it was forwarded needs a token, and so does one by HTTP/1.0, which nginx speaks unless it
is told otherwise, and then without a word about whom it asks for.
"""

import logging
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer
from ota_server.httpd.trusted_proxies import origin_of
from ota_server.model.address import is_loopback, source_of
from ota_server.model.refusal import BadPolicy
from ota_server.operations import session_edits
from ota_server.operations.token_use import TokenUse
from ota_server.operator_port.access import (
    NOBODY,
    Access,
    Denied,
    NewSession,
    Operator,
    unauthorised,
)
from ota_server.operator_port.known_tokens import Known, KnownTokens
from ota_server.operator_port.request_checks import (
    check_form_token,
    check_may_act,
    check_sent_by_page,
    check_site,
    is_forwarded,
    may_change,
)
from ota_server.operator_port.session_cookie import form_token_of, session_secret, set_cookie
from ota_server.operator_port.wrong_tokens import WrongTokens
from ota_server.policy.tokens import SESSION_MS, Session, digest_of
from ota_server.system.data_dir import root_of
from ota_server.system.locks import Busy
from ota_server.system.server_log import Budget

__all__ = ["NOBODY", "Access", "Authoriser", "Denied", "NewSession", "Operator"]

log = logging.getLogger(__name__)

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]{1,200}=*)")
_LOG_LINES, _LOG_SECONDS = 10, 60.0
_BUSY_SECONDS = 2
_BAD_LINK = "This link was used, or is older than five minutes; `token login` prints a new one."


class _Wrong(Exception):
    """A token, a session or a code is not valid; the message says what to do."""


class Authoriser:
    """Says who sent a request, and refuses it if that one may not have what it asks for.

    Threads may share it. Whoever has one calls `look_after` about every second, and `close`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        reads_openly: bool,
        names: Sequence[str] = (),
        now_seconds: Callable[[], float],
    ) -> None:
        """Read the tokens that are on record.

        Args:
            data_dir: of the server or of a product: tokens are for all products.
            reads_openly: the port listens on loopback alone: whoever is on this machine may read.
            names: by which the port is reached, besides addresses, localhost and this machine's.
            now_seconds: the time, in seconds since the epoch.
        """
        self._data_dir = root_of(data_dir)
        self._reads_openly = reads_openly
        self._names = frozenset(
            name.lower().removesuffix(".") for name in (*_own_names(), *names) if name
        )
        self._now_seconds = now_seconds
        self._tokens = KnownTokens(self._data_dir)
        self._use = TokenUse(self._data_dir)
        self._wrong = WrongTokens()
        self._lock = Lock()
        self._lines = Budget(_LOG_LINES, _LOG_SECONDS)
        self._tokens.current()  # so that what is wrong with the files is said at the start

    @property
    def reads_openly(self) -> bool:
        """Whether whoever is on this machine may read without a token."""
        return self._reads_openly

    def operator(
        self, request: Request, peer: Peer, access: Access, form_token: str | None = None
    ) -> Operator:
        """Return who sent a request.

        Args:
            form_token: that a route has found in a body of another kind; None: it is in the header
                X-Form-Token, or in a body that is `application/x-www-form-urlencoded`.

        Raises:
            Denied: they may not have it.
        """
        self._check_site(request, peer, access)
        try:
            operator = self._sender(request, peer)
        except _Wrong as problem:
            if access is Access.OPEN:
                return NOBODY
            raise self._denied_wrong(problem, peer) from None
        if access is Access.OPEN:
            return operator
        if not operator.name and (access is Access.ACT or not self._may_read_openly(request, peer)):
            raise unauthorised()
        if access is Access.ACT:
            check_may_act(operator)
            if operator.is_session and may_change(request):
                check_form_token(operator, request, form_token)
        return operator

    def wants_body(self, request: Request, peer: Peer) -> bool:
        """Return whether the body of a request is worth reading, by its head alone.

        It counts nothing as a wrong token: `operator` does, once the body is there.
        """
        try:
            self._check_site(request, peer, Access.ACT)
            return self._sender(request, peer).may_act
        except (Denied, _Wrong):
            return False

    def still_lets_read(self, request: Request, peer: Peer) -> bool:
        """Return whether who sent a request may still read: for a stream, again and again."""
        try:
            return bool(self._sender(request, peer).name) or self._may_read_openly(request, peer)
        except (Denied, _Wrong):
            return False

    def begin_session(self, request: Request, peer: Peer, code: str) -> NewSession:
        """Sign in: use up the code of a link by `token login`.

        Raises:
            Denied: the code is wrong, was used, or is too old; or the session cannot be recorded.
        """
        self._check_site(request, peer, Access.OPEN)
        known = self._tokens.current()
        try:
            # So that wrong codes, however many, take neither the lock nor a look at the disk.
            if digest_of(code) not in known.logins:
                raise session_edits.WrongCode
            with _recorded():
                session, secret = session_edits.begin(
                    self._data_dir, code, known.tokens, peer.address, self._now_ms()
                )
        except session_edits.WrongCode:
            raise self._denied_wrong(_Wrong(_BAD_LINK), peer, HTTPStatus.FORBIDDEN) from None
        cookie = set_cookie(origin_of(request, peer), secret, SESSION_MS // 1000)
        return NewSession(session.name, cookie, session.expires_ms)

    def end_session(self, request: Request, peer: Peer, form_token: str | None = None) -> str:
        """Sign out: end the session of a request; return the value of Set-Cookie.

        Args:
            form_token: as of `operator`.

        Raises:
            Denied: its form has not the token of the session; or the end cannot be recorded.
        """
        self._check_site(request, peer, Access.OPEN)
        secret = session_secret(request, origin_of(request, peer))
        found = self._session(secret, self._tokens.current())
        if found is not None:
            check_form_token(_of_session(found, secret), request, form_token)
            with _recorded():
                session_edits.end(self._data_dir, found.digest, peer.address, self._now_ms())
        return set_cookie(origin_of(request, peer), "", 0)

    def look_after(self) -> None:
        """Write when tokens were used last, once a minute at most. To be called every second."""
        self._use.look_after(frozenset(self._tokens.current().tokens), self._now_ms())

    def close(self) -> None:
        """Write when tokens were used last."""
        self._use.write(frozenset(self._tokens.current().tokens), self._now_ms())

    def _now_ms(self) -> int:
        return int(self._now_seconds() * 1000)

    def _check_site(self, request: Request, peer: Peer, access: Access) -> None:
        check_site(request, origin_of(request, peer), access, self._names)

    def _sender(self, request: Request, peer: Peer) -> Operator:
        """Return whose token or session a request has.

        Raises:
            _Wrong: it has one that is not valid.
            Denied: it has those of two operators, or a cookie and nothing that says who sent it.
        """
        known, field = self._tokens.current(), request.get(b"authorization")
        secret = session_secret(request, origin_of(request, peer))
        session = self._session(secret, known)
        if field is not None:
            operator = self._of_token(field, known)
            if session is not None and session.name != operator.name:
                raise Denied(
                    HTTPStatus.BAD_REQUEST,
                    "Two operators",
                    f"The token is of {operator.name}, and the session of {session.name}: "
                    "send one of them.",
                )
            return operator
        if session is None:
            # A session that is over must not keep anybody from what needs none.
            if secret and not self._may_read_openly(request, peer):
                raise _Wrong("Your session has ended.")
            return NOBODY
        check_sent_by_page(request)
        if session.token:
            self._use.note(session.token, self._now_ms())
        return _of_session(session, secret)

    def _of_token(self, field: bytes, known: Known) -> Operator:
        match, now_ms = _BEARER.fullmatch(field), self._now_ms()
        if match is None:
            raise _Wrong("Send `Authorization: Bearer TOKEN`.")
        token = known.tokens.get(digest_of(match[1].decode("ascii")))
        if token is None:
            raise _Wrong("There is no such token; it may have been revoked.")
        if token.is_over(now_ms):
            raise _Wrong("This token has expired.")
        self._use.note(token.digest, now_ms)
        return Operator(token.name, token.may_act)

    def _session(self, secret: str, known: Known) -> Session | None:
        """Return the session that a cookie stands for, None if it is over."""
        session = known.sessions.get(digest_of(secret)) if secret else None
        return None if session is None else session.in_force(known.tokens, self._now_ms())

    def _may_read_openly(self, request: Request, peer: Peer) -> bool:
        return (
            self._reads_openly
            and is_loopback(peer.address)
            and not peer.is_proxied
            and not is_forwarded(request)
        )

    def _denied_wrong(
        self, problem: _Wrong, peer: Peer, status: HTTPStatus = HTTPStatus.UNAUTHORIZED
    ) -> Denied:
        """Count what was wrong; return the answer to it."""
        now = self._now_seconds()
        with self._lock:
            wait_seconds = self._wrong.count(source_of(peer.address), now)
        if self._lines.allows(now):
            log.warning("a wrong token, session or link from %s", peer.address)
        if wait_seconds:
            return Denied(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many wrong tokens",
                f"More than ten in a minute came from {peer.address}; a right one is accepted.",
                (("Retry-After", str(wait_seconds)),),
            )
        if status is HTTPStatus.UNAUTHORIZED:
            return unauthorised(str(problem))
        return Denied(status, "A link that is not valid", str(problem), has_commands=True)


def _own_names() -> tuple[str, ...]:
    """Return by which names this machine is reached; `.local` is that of multicast DNS."""
    name = socket.gethostname()
    short = name.partition(".")[0]
    return ("localhost", name, short, f"{short}.local" if short else "")


def _of_session(session: Session, secret: str) -> Operator:
    return Operator(session.name, session.may_act, form_token_of(secret), is_session=True)


@contextmanager
def _recorded() -> Iterator[None]:
    """Refuse for now what cannot be put on record."""
    try:
        yield
    except (BadPolicy, Busy, OSError) as problem:
        text = str(problem)
        if isinstance(problem, OSError):
            text = f"{problem.filename}: {problem.strerror}"
        log.error("a session cannot be recorded: %s", text)
        raise Denied(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Not recorded",
            "Sessions cannot be recorded just now; the server's log says why.",
            (("Retry-After", str(_BUSY_SECONDS)),),
        ) from problem
