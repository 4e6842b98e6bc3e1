"""Where operators reach their port: its default, whether it may listen there, its URL. I/O."""

import json
import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from ota_server.model.address import is_loopback, plain_address
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.policy.tokens import TOKENS_NAME, Token, parse_tokens
from ota_server.system import clock
from ota_server.system.data_dir import log_dir, root_of
from ota_server.system.files import named, open_regular, read, replace, unreadable_text

DEFAULT_ADMIN_HOST, DEFAULT_ADMIN_PORT = "127.0.0.1", 7778
DEFAULT_ADMIN_URL = f"http://{DEFAULT_ADMIN_HOST}:{DEFAULT_ADMIN_PORT}"
FILE_NAME = "admin.json"
TOKENS_ADVICE = "fix it, or delete it and make new tokens by `token create NAME`"
# Not more than a URL can be: whoever may write to log/ must not put other text into a terminal.
_URL = re.compile(r"https?://(?:[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MAX_BYTES = 4096


def is_loopback_host(host: str) -> bool:
    """Return whether a port that listens on this address is reached from this machine alone."""
    try:
        return is_loopback(plain_address(ip_address(host.strip("[]"))))
    except ValueError:
        return host.lower() == "localhost"  # any other name may lead anywhere


def check_address(data_dir: Path, host: str) -> str:
    """Return why the operators' port must not listen on an address; "": it may.

    On another address than loopback everybody needs a token, so there has to be one.
    """
    if is_loopback_host(host):
        return ""
    what = f"the operators' port does not listen on {host or 'all addresses'}"
    try:
        tokens = read_tokens(data_dir)
    except (BadPolicy, OSError) as problem:
        return f"{what}: {_text(problem)}"
    now_ms = clock.now_ms()
    if any(not each.is_over(now_ms) for each in tokens.values()):
        return ""
    is_left = "none of the tokens on record is still valid" if tokens else "no token is on record"
    return (
        f"{what}: {is_left}, and there everybody needs one; `token create NAME` makes one, or let "
        f"it listen on {DEFAULT_ADMIN_HOST}"
    )


def read_tokens(data_dir: Path) -> dict[str, Token]:
    """Return the tokens that are on record, by digest.

    Raises:
        BadPolicy: their file is damaged; the message says what to do.
        OSError: it cannot be read.
    """
    path = root_of(data_dir) / "version" / TOKENS_NAME
    with named(path):
        content = read(path.parent, path.name)
    try:
        return parse_tokens(content)
    except BadPolicy as problem:
        raise BadPolicy(f"{path} {problem}; {TOKENS_ADVICE}") from problem


def say_url(data_dir: Path, url: str) -> None:
    """Let `token login` know where the port is that has just begun to listen.

    Raises:
        OSError: it cannot be written.
    """
    replace(_path(data_dir), json.dumps({"url": url}).encode("ascii") + b"\n")


def forget_url(data_dir: Path) -> None:
    """Say that the port listens no longer."""
    with suppress(OSError):
        _path(data_dir).unlink()


def said_url(data_dir: Path) -> str | None:
    """Return where the port is, or was when it was killed; None: nothing says so."""
    with suppress(OSError, ValueError), open(open_regular(_path(data_dir)), "rb") as file:
        url = parse_object(file.read(_MAX_BYTES)).get("url")
        return url if isinstance(url, str) and is_admin_url(url) else None
    return None


def is_admin_url(text: str) -> bool:
    """Return whether this can be where the port is: scheme, host and port, without a path."""
    return bool(_URL.fullmatch(text))


def _path(data_dir: Path) -> Path:
    return log_dir(root_of(data_dir)) / FILE_NAME


def _text(problem: BadPolicy | OSError) -> str:
    if isinstance(problem, OSError):
        return f"{problem.filename} {unreadable_text(problem)}"
    return str(problem)
