"""A version check and an image by FastAPI on uvicorn, with one line of a log for each check.

python fastapi_app.py PORT SITE LOG IDLE_SECONDS
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import FileResponse, PlainTextResponse

_SITE = Path(sys.argv[2])
_LOG = open(sys.argv[3], "ab", buffering=0)  # noqa: SIM115 - as long as the process
_VERSION = (_SITE / "version.txt").read_text()
_Mac = Annotated[str, Header(alias="_br_mac_")]
_Current = Annotated[str, Header(alias="_br_fwv_")]
app = FastAPI()


@app.get("/version.txt")
async def version(mac: _Mac, current: _Current) -> PlainTextResponse:
    """Answer a check, and put it on record."""
    record = {"time": time.time(), "mac": mac, "firmware_version": current}
    _LOG.write(json.dumps(record).encode() + b"\n")
    return PlainTextResponse(_VERSION)


@app.get("/firmware.bin")
async def image(mac: _Mac, current: _Current) -> FileResponse:
    """Send the image."""
    return FileResponse(_SITE / "firmware.bin")


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    access_log=False,
    loop="uvloop",
    http="httptools",
    backlog=4096,
    timeout_keep_alive=int(float(sys.argv[4])),
)
