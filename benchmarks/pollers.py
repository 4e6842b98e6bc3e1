"""Devices that speak hawkBit's DDI, made known to a server by what SWUpdate sends at its start."""

import http.client
import json
from collections.abc import Iterable
from contextlib import closing

from benchmarks.figures import Broken

# Most clients call themselves by a name. By MAC addresses they would take a quarter less of our
# memory.
PATH = "/DEFAULT/controller/v1/gw-@"
FIELDS = ("Accept: application/json", "Content-Type: application/json")
_TIMEOUT_SECONDS = 20.0
_FIELDS = dict(line.split(": ") for line in FIELDS)
_ATTRIBUTES = {"hw_boardname": "default", "hw_revision": "default", "sw_version": "1.0.1"}


def introduce(port: int, path: str, numbers: Iterable[int]) -> None:
    """Make devices known, on one connection: each polls, says what it runs, and polls again.

    To gooseBit each poll before a device has said that is a registration.

    Args:
        path: of a poll; @ stands for the MAC.
        numbers: of the devices, as load.lua counts them.

    Raises:
        Broken: a reply is not 200, or the last one has something for a device to do.
    """
    body = json.dumps({"mode": "merge", "data": _ATTRIBUTES}).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)) as server:
        for number in numbers:
            own = path.replace("@", f"02{number:010x}")
            _ask(server, "GET", own)
            _ask(server, "PUT", f"{own}/configData", body)
            links = json.loads(_ask(server, "GET", own))["_links"]
            if links:
                raise Broken(f"a poll with nothing to do was answered {links}")


def _ask(
    server: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> bytes:
    try:
        server.request(method, path, body, _FIELDS)
        reply = server.getresponse()
        content = reply.read()
    except http.client.HTTPException as problem:
        raise Broken(f"{method} {path}: {problem!r}") from problem
    if reply.status != http.HTTPStatus.OK:
        raise Broken(f"{method} {path}: {reply.status}, {content[:80]!r}")
    return content
