"""Who may have a page, the API, metrics or the stream: one place decides that for all. I/O.

What is checked, in this order; the first that fails is the answer:

| check | of | if it fails |
|---|---|---|
| Host | every request | 403: another site's name may lead here (DNS rebinding) |
| Origin, Sec-Fetch-Site | what is not GET or HEAD | 403: a page of another site sent it |
| Authorization, cookie | what is not open | 401; 429 after ten wrong ones in a minute |
| may it act | `Access.ACT` | 403 |
| the form's token | what is not GET or HEAD, by a cookie, `Access.ACT` | 403 |
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer


class Access(Enum):
    """What a route asks of whoever wants it."""

    OPEN = auto()  # nothing: the style, the script, the page that signs in
    READ = auto()  # a token; on loopback nothing
    ACT = auto()  # a token that may act


class Operator(NamedTuple):
    """Who sent a request.

    Attributes:
        name: of the token, for the audit log; "": nobody, who may only read.
        form_token: what forms of the session have to send as `form_token`; "": no session.
        is_session: by a cookie, so a person with a browser; else a program, or nobody.
    """

    name: str
    may_act: bool
    form_token: str = ""
    is_session: bool = False


NOBODY = Operator("", False)


class Denied(Exception):
    """A request is refused; `detail` says what to do, and `fields` belong into the reply."""

    def __init__(
        self,
        status: HTTPStatus,
        title: str,
        detail: str,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.fields = fields


class NewSession(NamedTuple):
    """A session that has just begun.

    Attributes:
        cookie: the value of Set-Cookie.
        expires_ms: when it ends, in milliseconds since the epoch.
    """

    name: str
    cookie: str
    expires_ms: int


class Authoriser:
    """Says who sent a request, and refuses it if that one may not have what it asks for."""

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
            reads_openly: the port listens on loopback alone: whoever is on this machine may read.
            names: by which the port is reached, besides addresses, localhost and this machine's.
            now_seconds: the time, in seconds since the epoch.
        """

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
        raise NotImplementedError

    def wants_body(self, request: Request, peer: Peer) -> bool:
        """Return whether the body of a request is worth reading, by its head alone.

        It counts nothing as a wrong token: `operator` does, once the body is there.
        """
        raise NotImplementedError

    def begin_session(self, request: Request, peer: Peer, code: str) -> NewSession:
        """Sign in: use up the code of a link by `token login`.

        Raises:
            Denied: the code is wrong, was used, or is too old; or the session cannot be recorded.
        """
        raise NotImplementedError

    def end_session(self, request: Request, peer: Peer) -> str:
        """Sign out: end the session of a request; return the value of Set-Cookie.

        Raises:
            Denied: its form has not the token of the session; or the end cannot be recorded.
        """
        raise NotImplementedError

    def look_after(self) -> None:
        """Write when tokens were used last, once a minute at most. To be called every second."""

    def close(self) -> None:
        """Write when tokens were used last."""
