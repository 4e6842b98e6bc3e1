"""A version check and an image by aiohttp, with one line of a log for each check.

python aiohttp_app.py PORT SITE LOG IDLE_SECONDS
"""

import json
import sys
import time
from pathlib import Path

from aiohttp import web

_SITE = Path(sys.argv[2])
_LOG = open(sys.argv[3], "ab", buffering=0)  # noqa: SIM115 - as long as the process


def _device(request: web.Request) -> tuple[str, str]:
    try:
        return request.headers["_br_mac_"], request.headers["_br_fwv_"]
    except KeyError as problem:
        raise web.HTTPUnauthorized from problem


async def version(request: web.Request) -> web.Response:
    """Answer a check, and put it on record."""
    mac, current = _device(request)
    record = {"time": time.time(), "mac": mac, "firmware_version": current}
    _LOG.write(json.dumps(record).encode() + b"\n")
    return web.Response(text=_VERSION)


async def image(request: web.Request) -> web.FileResponse:
    """Send the image."""
    _device(request)
    return web.FileResponse(_SITE / "firmware.bin")


_VERSION = (_SITE / "version.txt").read_text()
app = web.Application()
app.add_routes([web.get("/version.txt", version), web.get("/firmware.bin", image)])
web.run_app(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    access_log=None,
    backlog=4096,
    keepalive_timeout=float(sys.argv[4]),
)
