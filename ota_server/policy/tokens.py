"""Who may use the operators' port: tokens, and the sessions of people with a browser. Pure.

| what | file | how long | what it is for |
|---|---|---|---|
| token | version/tokens.json | until it is revoked or expires | programs: `Authorization: Bearer` |
| login | log/sessions.json | five minutes, once | the link of `token login` |
| session | log/sessions.json | twelve hours | a browser: a cookie |

A secret is shown once. What is on record is its SHA-256, from which nobody can find it: it is made
of 32 random bytes. A session that was made for a token ends with it, and may do no more than it.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time

TOKENS_NAME = "tokens.json"  # in version/
SESSIONS_NAME = "sessions.json"  # in log/: it is no decision, and no backup has it
USE_NAME = "token_use.json"  # in log/
TOKEN_NAME_RULE = "a letter, then up to 31 of a-z 0-9 . _ -"
SECRET_BYTES = 32
# By these people, and programs that look for published secrets, see what a text is.
TOKEN_PREFIX, LOGIN_PREFIX, SESSION_PREFIX = "otas_", "otal_", "otac_"
LOGIN_MS = 5 * 60 * 1000
SESSION_MS = 12 * 3600 * 1000
# More are people who never sign out: the oldest end.
MOST_SESSIONS = 1000

_NAME = re.compile(r"[a-z][a-z0-9._\-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OTHERS = re.compile(r"[^a-z0-9._\-]+")
_ANYBODY = "operator"


class Token(NamedTuple):
    """A token that is on record.

    Attributes:
        digest: the SHA-256 of its secret, in hex.
        expires_ms: None: never.
    """

    name: str
    digest: str
    may_act: bool
    created_ms: int
    expires_ms: int | None

    def is_over(self, now_ms: int) -> bool:
        """Return whether it has expired."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


class Session(NamedTuple):
    """A session, or a login: a session that nobody has begun yet.

    Attributes:
        name: of its token, or of the user who called `token login` without one.
        digest: the SHA-256 of its secret, in hex.
        token: the digest of its token; "": it was made without one.
    """

    name: str
    digest: str
    may_act: bool
    created_ms: int
    expires_ms: int
    token: str = ""

    def in_force(self, tokens: Mapping[str, Token], now_ms: int) -> "Session | None":
        """Return what it allows now, by the tokens on record; None: it is over."""
        if now_ms >= self.expires_ms:
            return None
        if not self.token:
            return self
        token = tokens.get(self.token)
        if token is None or token.is_over(now_ms):
            return None
        return self._replace(may_act=self.may_act and token.may_act)


class Sessions(NamedTuple):
    """What log/sessions.json holds, by digest."""

    logins: dict[str, Session]
    sessions: dict[str, Session]


def is_token_name(text: str) -> bool:
    """Return whether a token can have this name."""
    return bool(_NAME.fullmatch(text))


def name_of_user(user: str) -> str:
    """Return what the sessions of a user of the system are called, who has no token."""
    name = _OTHERS.sub("-", user.lower())[:32]
    return name if is_token_name(name) else _ANYBODY


def secret_of(prefix: str, random: bytes) -> str:
    """Return a new secret: letters, digits, `-` and `_`."""
    return prefix + base64.urlsafe_b64encode(random).rstrip(b"=").decode("ascii")


def digest_of(secret: str) -> str:
    """Return by what a secret is on record."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def parse_tokens(content: bytes) -> dict[str, Token]:
    """Parse tokens.json; return the tokens by digest. b"" holds none.

    Raises:
        BadPolicy: it cannot be used.
    """
    tokens: dict[str, Token] = {}
    for name, fields in _object(content).items():
        if not is_token_name(name):
            raise BadPolicy(f"has {name[:40]!r}, which is not a name: {TOKEN_NAME_RULE}")
        try:
            token = Token(
                name,
                _digest(fields["sha256"]),
                _truth(fields["may_act"]),
                parse_time(fields["created"]),
                None if fields["expires"] is None else parse_time(fields["expires"]),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise BadPolicy(f"has no valid token at {name!r} ({_said(problem)})") from None
        if token.digest in tokens:
            raise BadPolicy(f"has one token as {tokens[token.digest].name!r} and as {name!r}")
        tokens[token.digest] = token
    return tokens


def format_tokens(tokens: Iterable[Token]) -> bytes:
    """Return tokens.json."""
    return format_object(
        {
            each.name: {
                "sha256": each.digest,
                "may_act": each.may_act,
                "created": format_time(each.created_ms),
                "expires": None if each.expires_ms is None else format_time(each.expires_ms),
            }
            for each in tokens
        }
    )


def parse_sessions(content: bytes) -> Sessions:
    """Parse sessions.json; b"" holds none.

    Raises:
        BadPolicy: it cannot be used.
    """
    fields = _object(content)
    return Sessions(_sessions(fields, "logins"), _sessions(fields, "sessions"))


def _sessions(fields: Mapping[str, Any], name: str) -> dict[str, Session]:
    found = {}
    try:
        for each in fields.get(name, ()):
            session = Session(
                _name(each["name"]),
                _digest(each["sha256"]),
                _truth(each["may_act"]),
                parse_time(each["created"]),
                parse_time(each["expires"]),
                "" if each["token"] is None else _digest(each["token"]),
            )
            found[session.digest] = session
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise BadPolicy(f"has no valid list at {name!r} ({_said(problem)})") from None
    return found


def format_sessions(sessions: Sessions, now_ms: int) -> bytes:
    """Return sessions.json, without what is over."""
    lists = {}
    for name, found in sessions._asdict().items():
        left = [each for each in found.values() if now_ms < each.expires_ms]
        lists[name] = [_session_fields(each) for each in left[-MOST_SESSIONS:]]
    return format_object(lists)


def _session_fields(session: Session) -> dict[str, object]:
    return {
        "name": session.name,
        "sha256": session.digest,
        "may_act": session.may_act,
        "created": format_time(session.created_ms),
        "expires": format_time(session.expires_ms),
        "token": session.token or None,
    }


def _object(content: bytes) -> dict[str, Any]:
    try:
        return parse_object(content or b"{}")
    except ValueError as problem:
        raise BadPolicy(str(problem)) from None


def _name(value: str) -> str:
    if not is_token_name(value):
        raise ValueError(f"{value!r:.50} is not a name")
    return value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError(f"{value!r:.50} is not a SHA-256")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.50} is neither true nor false")
    return value


def _said(problem: Exception) -> str:
    return f"no {problem}" if isinstance(problem, KeyError) else str(problem)
