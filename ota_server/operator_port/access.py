"""What a route asks of whoever wants it, who that is, and why one is refused. Pure."""

from enum import Enum, auto
from http import HTTPStatus
from typing import NamedTuple

REALM = 'Bearer realm="ota-server"'
_HOW_TO_SIGN_IN = (
    "Open the link that `token login` prints, or send `Authorization: Bearer TOKEN` with a token "
    "by `token create NAME`."
)


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
    """A request is refused; `detail` says what to do, and `fields` belong into the reply.

    A detail may hold what the request held: escape it. Where it `has_commands` in backticks, it
    does not.
    """

    def __init__(
        self,
        status: HTTPStatus,
        title: str,
        detail: str,
        fields: tuple[tuple[str, str], ...] = (),
        has_commands: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.fields = fields
        self.has_commands = has_commands


class NewSession(NamedTuple):
    """A session that has just begun.

    Attributes:
        cookie: the value of Set-Cookie.
        expires_ms: when it ends, in milliseconds since the epoch.
    """

    name: str
    cookie: str
    expires_ms: int


def unauthorised(problem: str = "") -> Denied:
    """Return the answer to whoever has no token, or one with a problem."""
    challenge = f'{REALM}, error="invalid_token"' if problem else REALM
    return Denied(
        HTTPStatus.UNAUTHORIZED,
        "A token is needed",
        f"{problem} {_HOW_TO_SIGN_IN}".strip(),
        (("WWW-Authenticate", challenge),),
        has_commands=True,
    )
