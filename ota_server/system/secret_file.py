"""A file that holds the secret by which notices are signed. I/O."""

import os
import stat
from pathlib import Path

from ota_server.model.webhook import parse_secret
from ota_server.system.files import open_regular

_MOST_BYTES = 4096
_OTHERS = 0o077


def read_secret(path: Path) -> bytes:
    """Return the key in a secret file.

    Raises:
        ValueError: it does not hold one.
        OSError: it cannot be read.
    """
    with open(open_regular(path), "rb") as file:
        return parse_secret(file.read(_MOST_BYTES))


def who_else_reads(path: Path) -> str:
    """Return that others than its owner can read a file, and what to do; "": nobody else can."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if not mode & _OTHERS:
        return ""
    return f"{path} can be read by others than its owner (mode {mode:04o}); `chmod 600 {path}`"
