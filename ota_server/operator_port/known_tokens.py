"""The tokens and sessions on record, read again when their files change. I/O.

A look takes two calls of lstat, and no lock that a command can hold. What a broken file held before
applies until it is fixed; if it never held anything, nobody has a token.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ota_server.model.refusal import BadPolicy
from ota_server.operations.session_edits import SESSIONS_ADVICE
from ota_server.policy.admin_address import TOKENS_ADVICE
from ota_server.policy.tokens import (
    SESSIONS_NAME,
    TOKENS_NAME,
    Session,
    Sessions,
    Token,
    parse_sessions,
    parse_tokens,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.hints import hints
from ota_server.system.watched import Watched

_NO_TOKENS: dict[str, Token] = {}
_NO_SESSIONS = Sessions({}, {})


class Known(NamedTuple):
    """What is on record, by digest."""

    tokens: dict[str, Token]
    logins: dict[str, Session]
    sessions: dict[str, Session]


class KnownTokens:
    """Reads the tokens and sessions of one data directory. Threads may share it."""

    def __init__(self, data_dir: Path) -> None:
        self._version_dir = data_dir / "version"
        self._log_dir = log_dir(data_dir)
        self._lock = Lock()
        self._watched = Watched(True, "nobody can sign in by it")

    def current(self) -> Known:
        """Return what is on record now."""
        with self._lock:
            self._watched.begin(is_turn=False)
            tokens: dict[str, Token] = self._watched.read(
                self._version_dir, TOKENS_NAME, _with(TOKENS_ADVICE, parse_tokens), _NO_TOKENS
            )
            found: Sessions = self._watched.read(
                self._log_dir, SESSIONS_NAME, _with(SESSIONS_ADVICE, parse_sessions), _NO_SESSIONS
            )
            self._watched.end()
        return Known(tokens, found.logins, found.sessions)


def _with(advice: str, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser whose error says what to do."""

    def parse_or_advise(content: bytes) -> Any:
        try:
            return parse(content)
        except BadPolicy as problem:
            raise BadPolicy(hints.paste(f"{problem}; {advice}")) from problem

    return parse_or_advise
