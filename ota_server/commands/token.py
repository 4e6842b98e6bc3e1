"""The command `token`: who may use the operators' port."""

import argparse
import json
from math import ceil
from pathlib import Path

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    add_local_argument,
    warn,
    warn_of_new_folder,
)
from ota_server.commands.terminal import to_the_second, write_table
from ota_server.model.quantity import count_of, parse_duration
from ota_server.model.timestamp import ago_ms, format_time
from ota_server.operations import token_edits
from ota_server.operations.session_edits import read_sessions
from ota_server.operations.token_use import read_uses
from ota_server.policy.admin_address import (
    DEFAULT_ADMIN_URL,
    is_admin_url,
    read_tokens,
    said_url,
)
from ota_server.policy.text import parse_until
from ota_server.policy.tokens import TOKEN_NAME_RULE, Token, is_token_name
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder, root_of
from ota_server.system.usage import print_problem

_CREATE_EXAMPLES = """\
  %(prog)s anna
      a token that may act, until it is revoked
  %(prog)s prometheus --read-only
      one that may look at everything
  %(prog)s build --expires 90d
      one that ends by itself

It is shown once: only its SHA-256 is kept. Programs send it as `Authorization: Bearer TOKEN`.
"""
_LIST_EXAMPLES = """\
  %(prog)s
  %(prog)s --json   a JSON object a line
"""
_REVOKE_EXAMPLES = """\
  %(prog)s anna
      the token, and all sessions of that name
"""
_LOGIN_EXAMPLES = """\
  %(prog)s
      for whoever runs this
  %(prog)s anna --read-only
      for the holder of a token; it ends with the token
  %(prog)s --url https://ota.example.org
      behind a proxy

The link works once, within five minutes. The browser stays signed in for twelve hours.
"""
# A hundred years are never.
_LONGEST_SECONDS = 100 * 365 * 86400.0


def add_commands(commands: Commands) -> None:
    """Add the command and its parts."""
    parts = add_command_of_parts(
        commands,
        "token",
        "say who may use the operators' page, API and metrics",
        "Say who may use the operators' page, API and metrics. On this machine everybody may look; "
        "a change needs a token, and from other machines so does a look.",
        "  %(prog)s create anna\n  %(prog)s login\n\n%(prog)s PART --help says more.\n",
        "create, list, revoke or login",
    )
    _add_create(parts)
    listing = add_command(
        parts,
        "list",
        "list the tokens",
        "List the tokens, with what they may do, when each was used last, and how many browsers "
        "are signed in by it.",
        _LIST_EXAMPLES,
        _list,
        has_product=False,
    )
    listing.add_argument("--json", action="store_true", help="a JSON object a line")
    add_local_argument(listing)
    revoking = add_command(
        parts,
        "revoke",
        "end a token",
        "End a token and all sessions of that name, from the next request on.",
        _REVOKE_EXAMPLES,
        _revoke,
        has_product=False,
    )
    revoking.add_argument("name", metavar="NAME", type=_name, help="of a token, or of a session")
    _add_login(parts)


def _add_create(parts: Commands) -> None:
    creating = add_command(
        parts,
        "create",
        "make a token, and show it once",
        "Make a token, and show it once. It is for all products.",
        _CREATE_EXAMPLES,
        _create,
        has_product=False,
    )
    creating.add_argument("name", metavar="NAME", type=_name, help="who or what will have it")
    creating.add_argument("--read-only", action="store_true", help="it may change nothing")
    creating.add_argument(
        "--expires",
        type=_expiry,
        metavar="WHEN",
        help="when it ends: after a time such as 90d, or at a date (default: never)",
    )


def _add_login(parts: Commands) -> None:
    login = add_command(
        parts,
        "login",
        "print a link that signs a browser in",
        "Print a link that signs a browser in, once, within five minutes.",
        _LOGIN_EXAMPLES,
        _login,
        has_product=False,
    )
    login.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        type=_name,
        help="of the token that the session is for (default: none, so it is called like the user "
        "who runs this)",
    )
    login.add_argument("--read-only", action="store_true", help="it may change nothing")
    login.add_argument(
        "--url",
        type=_url,
        metavar="URL",
        help="how the browser reaches the port, as scheme://host:port (default: where it listens)",
    )


def _name(text: str) -> str:
    if not is_token_name(text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a name: use {TOKEN_NAME_RULE}")
    return text


def _expiry(text: str) -> int:
    """Parse when a token ends; return milliseconds since the epoch."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        pass
    else:
        if not 0 < seconds <= _LONGEST_SECONDS:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not between 1s and 36500d")
        return ceil(clock.now_ms() / 1000 + seconds) * 1000
    try:
        return parse_until(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not how long, such as 90d, and {problem}"
        ) from None


def _url(text: str) -> str:
    url = text.removesuffix("/")
    if not is_admin_url(url):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is not scheme://host:port, such as {DEFAULT_ADMIN_URL}"
        )
    return url


def _create(arguments: argparse.Namespace) -> int:
    root = _root(arguments)
    is_new = not (root / "version").is_dir()
    token, secret = token_edits.create_token(
        root, arguments.name, not arguments.read_only, arguments.expires
    )
    # By itself on standard output, so that it can be put into a variable or a file.
    print(secret)
    rights = token_edits.rights_text(token)
    print_problem(f"ota-server: the token {token.name} {rights}; it is not shown again")
    if is_new:
        warn_of_new_folder(root)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    root = _root(arguments)
    existing_folder(root, "version")
    tokens, sessions = read_tokens(root), read_sessions(root).sessions.values()
    uses, now_ms = read_uses(root), clock.now_ms()
    by_digest = {each.digest: each for each in tokens.values()}
    counts: dict[str, int] = {}
    for session in sessions:
        if session.in_force(by_digest, now_ms):
            counts[session.name] = counts.get(session.name, 0) + 1
    rows = []
    for token in sorted(tokens.values()):
        used, count = uses.get(token.digest), counts.pop(token.name, 0)
        if arguments.json:
            print(json.dumps(_fields(token, used, count, now_ms)))
        rows.append(_row(token, used, count, now_ms, arguments.local))
    if arguments.json:
        return 0
    rows += [(name, "-", "-", "no token", "-", str(counts[name])) for name in sorted(counts)]
    write_table(("NAME", "MAY", "CREATED", "EXPIRES", "LAST USE", "SESSIONS"), rows)
    return 0


def _fields(token: Token, used: int | None, sessions: int, now_ms: int) -> dict[str, object]:
    return {
        "name": token.name,
        "may_act": token.may_act,
        "created": format_time(token.created_ms),
        "expires": None if token.expires_ms is None else format_time(token.expires_ms),
        "is_over": token.is_over(now_ms),
        "last_use": None if used is None else format_time(used),
        "sessions": sessions,
    }


def _row(
    token: Token, used: int | None, sessions: int, now_ms: int, is_local: bool
) -> tuple[str, ...]:
    expires = "never"
    if token.expires_ms is not None:
        expires = to_the_second(format_time(token.expires_ms), is_local)
        expires += " (over)" if token.is_over(now_ms) else ""
    return (
        token.name,
        "act" if token.may_act else "read",
        to_the_second(format_time(token.created_ms), is_local),
        expires,
        "never" if used is None else ago_ms(used, now_ms),
        str(sessions),
    )


def _revoke(arguments: argparse.Namespace) -> int:
    done = token_edits.revoke_token(_root(arguments), arguments.name)
    name, sessions = arguments.name, count_of(done.sessions, "session")
    if done.token is None:
        print(f"{sessions} of {name} ended, and links that were not used; there was no such token")
    else:
        print(f"the token {name} is revoked; {sessions} of {name} ended")
    if done.problem:
        warn(f"a session by `token login` without a name may go on: {done.problem}")
        return 1
    return 0


def _login(arguments: argparse.Namespace) -> int:
    root = _root(arguments)
    login, code = token_edits.begin_login(root, arguments.name, not arguments.read_only)
    url = arguments.url or said_url(root)
    print(f"{url or DEFAULT_ADMIN_URL}/login?code={code}")
    rights = "may act" if login.may_act else "may read"
    print_problem(
        f"ota-server: it works once within five minutes, and signs in {login.name}, who {rights}"
    )
    return 0


def _root(arguments: argparse.Namespace) -> Path:
    """Return the data directory of the server: tokens are for all products."""
    root: Path = root_of(arguments.data_dir)
    return root
