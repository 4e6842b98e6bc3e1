"""A board with MicroPython: runs code in a folder, with stand-ins for modules of boards alone.

python micropython_board.py FOLDER CODE
"""

import base64
import hashlib
import os
import sys
import types
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_SECONDS = 30


class Response:
    """What `urequests.get` returns, as far as updaters look at it."""

    def __init__(self, reply: Any) -> None:
        self.status_code = reply.status
        self.text = reply.read().decode()

    def close(self) -> None:
        """Do nothing: it is read to its end."""


def get(url: str, headers: Mapping[str, str] | None = None, timeout: object = None) -> Response:
    """Fetch something by HTTP."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            return Response(reply)
    except urllib.error.HTTPError as problem:
        return Response(problem)


def reset() -> None:
    """Say that the board would begin again."""
    print("reset")


MODULES: Mapping[str, Mapping[str, Any]] = {
    "machine": {"reset": reset, "soft_reset": reset},
    "ubinascii": {"b2a_base64": lambda content: base64.b64encode(content) + b"\n"},
    "uhashlib": vars(hashlib),
    "uos": vars(os),
    "urequests": {"get": get},
}

if __name__ == "__main__":
    for name, content in MODULES.items():
        vars(sys.modules.setdefault(name, types.ModuleType(name))).update(content)
    os.chdir(sys.argv[1])
    exec(sys.argv[2], {})
