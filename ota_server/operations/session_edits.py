"""Sessions of people with a browser: begun by a link of `token login`, ended, counted. I/O.

They have a lock of their own, which is held for a moment only: a command that takes long holds up
nobody who signs in. A login becomes a session by one write, so it does that once.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.policy import audit
from ota_server.policy.tokens import (
    SECRET_BYTES,
    SESSION_MS,
    SESSION_PREFIX,
    SESSIONS_NAME,
    Session,
    Sessions,
    Token,
    digest_of,
    format_sessions,
    parse_sessions,
    secret_of,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.files import named, read, replace
from ota_server.system.locks import EDIT_LOCK_SECONDS, locked_by
from ota_server.system.new_files import OWNER_ONLY

LOCK_NAME = ".sessions.lock"
SESSIONS_ADVICE = "delete it, and everybody signs in again by `token login`"
# The port answers others meanwhile, so it does not wait longer.
PORT_WAIT_SECONDS = 0.5


class WrongCode(Exception):
    """A code begins no session: it is wrong, too old, was used, or its token has ended."""


def read_sessions(data_dir: Path) -> Sessions:
    """Return the sessions that are on record, also those that are over.

    Raises:
        BadPolicy: their file is damaged; the message says what to do.
        OSError: it cannot be read.
    """
    path = log_dir(data_dir) / SESSIONS_NAME
    with named(path):
        content = read(path.parent, path.name)
    try:
        return parse_sessions(content)
    except BadPolicy as problem:
        raise BadPolicy(f"{path} {problem}; {SESSIONS_ADVICE}") from problem


def add_login(data_dir: Path, login: Session, now_ms: int) -> None:
    """Let somebody begin a session.

    Raises:
        BadPolicy, Busy, OSError: as `read_sessions` and `locks.locked`.
    """
    with _changing(data_dir, EDIT_LOCK_SECONDS) as found:
        found.logins[login.digest] = login
        _write(data_dir, found, now_ms)


def begin(
    data_dir: Path, code: str, tokens: Mapping[str, Token], address: str, now_ms: int
) -> tuple[Session, str]:
    """Begin a session, and use up its code; return it with its secret.

    Args:
        tokens: on record now, by digest.
        address: from where, for the audit log.

    Raises:
        WrongCode: the code begins none.
        BadPolicy, Busy, OSError: as `read_sessions` and `locks.locked`; no code was used up.
    """
    digest = digest_of(code)
    with _changing(data_dir, PORT_WAIT_SECONDS) as found:
        login = found.logins.pop(digest, None)
        allowed = None if login is None else login.in_force(tokens, now_ms)
        if allowed is None:
            raise WrongCode
        secret = secret_of(SESSION_PREFIX, secrets.token_bytes(SECRET_BYTES))
        session = allowed._replace(
            digest=digest_of(secret), created_ms=now_ms, expires_ms=now_ms + SESSION_MS
        )
        found.sessions[session.digest] = session
        rights = "may act" if session.may_act else "may read"
        with (
            audit.acting_as(session.name),
            audit.noted(log_dir(data_dir), "sign in", f"from {address}", to=rights),
        ):
            _write(data_dir, found, now_ms)
    return session, secret


def end(data_dir: Path, digest: str, address: str, now_ms: int) -> None:
    """End a session; one that is over already is no error.

    Args:
        address: from where, for the audit log.

    Raises:
        BadPolicy, Busy, OSError: as `read_sessions` and `locks.locked`.
    """
    with _changing(data_dir, PORT_WAIT_SECONDS) as found:
        session = found.sessions.pop(digest, None)
        if session is None:
            return
        with (
            audit.acting_as(session.name),
            # Whoever signs out gives something up: a broken audit log must not be in the way.
            audit.noted(log_dir(data_dir), "sign out", f"from {address}", lambda _: True),
        ):
            _write(data_dir, found, now_ms)


def end_all_of(data_dir: Path, name: str, now_ms: int) -> int:
    """End the sessions and logins of a name; return how many sessions were in force.

    Raises:
        BadPolicy, Busy, OSError: as `read_sessions` and `locks.locked`.
    """
    with _changing(data_dir, EDIT_LOCK_SECONDS) as found:
        if not any(_of(each, name) for each in found):
            return 0
        ended = sum(now_ms < each.expires_ms for each in _of(found.sessions, name))
        for each in found:
            for session in _of(each, name):
                del each[session.digest]
        _write(data_dir, found, now_ms)
    return ended


def has_any_of(data_dir: Path, name: str) -> bool:
    """Return whether there are sessions or logins of a name.

    Raises:
        BadPolicy, OSError: as `read_sessions`.
    """
    return any(_of(each, name) for each in read_sessions(data_dir))


def _of(sessions: Mapping[str, Session], name: str) -> list[Session]:
    return [each for each in sessions.values() if each.name == name]


@contextmanager
def _changing(data_dir: Path, wait_seconds: float) -> Iterator[Sessions]:
    """Hold the lock while the sessions, which are yielded, are changed."""
    with locked_by(log_dir(data_dir) / LOCK_NAME, wait_seconds):
        yield read_sessions(data_dir)


def _write(data_dir: Path, sessions: Sessions, now_ms: int) -> None:
    content = format_sessions(sessions, now_ms)
    replace(log_dir(data_dir) / SESSIONS_NAME, content, mode=OWNER_ONLY)
