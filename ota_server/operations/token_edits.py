"""Changes of who may use the operators' port: tokens, and the links that sign people in. I/O."""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations import session_edits
from ota_server.policy import audit, edits
from ota_server.policy.admin_address import read_tokens
from ota_server.policy.text import time_text
from ota_server.policy.tokens import (
    LOGIN_MS,
    LOGIN_PREFIX,
    SECRET_BYTES,
    TOKEN_PREFIX,
    TOKENS_NAME,
    Session,
    Token,
    digest_of,
    format_tokens,
    name_of_user,
    secret_of,
)
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder, log_dir
from ota_server.system.files import is_full, replace
from ota_server.system.locks import Busy
from ota_server.system.new_files import OWNER_ONLY, make_folder


class Revoked(NamedTuple):
    """What was ended.

    Attributes:
        token: None: there were only sessions of that name.
        sessions: how many were in force.
        problem: why sessions that were made without the token may go on; "": none does.
    """

    token: Token | None
    sessions: int
    problem: str = ""


def create_token(
    data_dir: Path, name: str, may_act: bool, expires_ms: int | None
) -> tuple[Token, str]:
    """Put a new token on record; return it with its secret, which is nowhere else.

    The data directory may be a new one: a port that others reach needs a token before it starts.

    Raises:
        Refused: there is one of that name, or its end is past.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    now_ms = clock.now_ms()
    if expires_ms is not None and expires_ms <= now_ms:
        raise Refused(f"{time_text(expires_ms)} is past; give a time in the future")
    make_folder(data_dir / "version")
    with edits.changing(data_dir) as version_dir:
        tokens = read_tokens(data_dir)
        if any(each.name == name for each in tokens.values()):
            raise Refused(f"there is a token {name} already; `token revoke {name}` ends it")
        secret = secret_of(TOKEN_PREFIX, secrets.token_bytes(SECRET_BYTES))
        token = Token(name, digest_of(secret), may_act, now_ms, expires_ms)
        with audit.noted(log_dir(data_dir), "token create", name, to=rights_text(token)):
            _write(version_dir, [*tokens.values(), token])
    return token, secret


def revoke_token(data_dir: Path, name: str) -> Revoked:
    """End a token, and all sessions of that name, at once; a token also on a full disk.

    If this is killed halfway, the sessions that were made for the token have ended with it, and
    another call ends the others.

    Raises:
        Refused: there is neither a token nor a session of that name.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        tokens = read_tokens(data_dir)
        token = next((each for each in tokens.values() if each.name == name), None)
        if token is None and not session_edits.has_any_of(data_dir, name):
            raise Refused(f"there is no token {name}; `token list` shows all")
        if token is None:
            with audit.noted(log_dir(data_dir), "token revoke", name):
                return Revoked(None, session_edits.end_all_of(data_dir, name, clock.now_ms()))
        del tokens[token.digest]
        before = {"from": rights_text(token)}
        with audit.noted(log_dir(data_dir), "token revoke", name, is_full, **before):
            _write(version_dir, tokens.values(), is_stop=True)
        try:
            return Revoked(token, session_edits.end_all_of(data_dir, name, clock.now_ms()))
        except (BadPolicy, Busy) as problem:
            return Revoked(token, 0, str(problem))
        except OSError as problem:
            return Revoked(token, 0, f"{problem.filename}: {problem.strerror}")


def begin_login(data_dir: Path, name: str | None, may_act: bool) -> tuple[Session, str]:
    """Prepare to sign somebody in; return the session that can begin, and the code that begins it.

    Args:
        name: of the token that the session is made for; None: it is for who runs this.

    Raises:
        Refused: there is no such token, or it has expired, or may only read.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    existing_folder(data_dir, "version")
    now_ms = clock.now_ms()
    token = None if name is None else _valid_token(data_dir, name, now_ms)
    code = secret_of(LOGIN_PREFIX, secrets.token_bytes(SECRET_BYTES))
    login = Session(
        name_of_user(audit.user()) if token is None else token.name,
        digest_of(code),
        may_act and (token is None or token.may_act),
        now_ms,
        now_ms + LOGIN_MS,
        "" if token is None else token.digest,
    )
    to = "may act" if login.may_act else "may read"
    with audit.noted(log_dir(data_dir), "token login", login.name, to=to):
        session_edits.add_login(data_dir, login, now_ms)
    return login, code


def rights_text(token: Token) -> str:
    """Return what a token allows, and until when, for the audit log."""
    what = "may act" if token.may_act else "may read"
    return what if token.expires_ms is None else f"{what} until {time_text(token.expires_ms)}"


def _valid_token(data_dir: Path, name: str, now_ms: int) -> Token:
    for token in read_tokens(data_dir).values():
        if token.name == name:
            if token.is_over(now_ms):
                raise Refused(f"the token {name} has expired; `token revoke {name}`, then make one")
            return token
    raise Refused(f"there is no token {name}; `token create {name}` makes one")


def _write(version_dir: Path, tokens: Iterable[Token], is_stop: bool = False) -> None:
    content = format_tokens(tokens)
    replace(version_dir / TOKENS_NAME, content, is_stop=is_stop, mode=OWNER_ONLY)
