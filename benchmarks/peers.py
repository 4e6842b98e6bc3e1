"""The servers that are compared: how each is started, what it can do, whether it is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import OURS
from benchmarks.pollers import introduce

ROOT = Path(__file__).resolve().parent.parent
APPS = Path(__file__).with_name("apps")
VERSION = "v1.0.1"
# Without what the packages of this machine load into each Python: some take 5 MB.
_PYTHON = (sys.executable, "-S")
_GOOSEBIT_CHECK = "/DEFAULT/controller/v1/@"
# nginx keeps a table of this size in memory; the limit of open files of its worker is above it.
_NGINX_CONNECTIONS = 16384


@dataclass(frozen=True)
class Place:
    """Where one server of a peer is to run.

    Attributes:
        folder: its own, for its configuration, log and data.
        site: a folder with version.txt and firmware.bin.
        python: the Python with the packages of requirements.txt.
    """

    folder: Path
    site: Path
    port: int
    python: Path
    idle_seconds: float


@dataclass(frozen=True)
class Peer:
    """A server that can be measured.

    Attributes:
        needs: a program of PATH, or a package in the environment of the benchmarks ("" neither).
        prepare: makes the files of a place and returns the command that serves there.
        check_path: what a check asks for; @ stands for the MAC.
        environment: what the command needs beside the one that we have.
        introduce: makes the first device known where a peer wants more than a check for that.
        has_images: whether it serves firmware.bin as it is.
        conditional_path: of the image, where only an If-None-Match tells the server that a device
            has it; "": the version that the device reports does.
    """

    name: str
    label: str
    needs: str
    prepare: Callable[[Place], list[str]]
    check_path: str = "/version.txt"
    environment: Callable[[Place], dict[str, str]] = lambda place: {}
    introduce: Callable[[int], None] = lambda port: None
    has_images: bool = True
    conditional_path: str = ""


def _ours(place: Place) -> list[str]:
    """Serve it without a port for operators: that is another process."""
    return [*_this_server(place), "--no-admin"]


def _this_server(place: Place) -> list[str]:
    """Serve the data directory in this place, which is made if nobody did yet."""
    for name in ("version", "firmware"):
        (place.folder / name).mkdir(exist_ok=True)
    shutil.copy(place.site / "version.txt", place.folder / "version")
    # A link, so that all peers send the same pages of memory.
    os.link(place.site / "firmware.bin", place.folder / "firmware" / f"firmware_{VERSION}.bin")
    command = [*_PYTHON, "-m", "ota_server.server", "--port", str(place.port)]
    command += ["--data-dir", str(place.folder)]
    if place.idle_seconds:
        command += ["--idle-timeout", str(place.idle_seconds)]
    return command


def _nginx(place: Place, send_buffer: str) -> list[str]:
    settings = {
        "USER": "user root;" if os.geteuid() == 0 else "",  # the folder is ours alone
        "FILES": str(_NGINX_CONNECTIONS + 1024),
        "CONNECTIONS": str(_NGINX_CONNECTIONS),
        "IDLE": f"{place.idle_seconds or 75:.0f}s",
        "PORT": str(place.port),
        "SNDBUF": send_buffer,
        "SITE": str(place.site),
    }
    text = Path(__file__).with_name("nginx.conf").read_text()
    for name, value in settings.items():
        text = text.replace(f"@{name}@", value)
    (place.folder / "nginx.conf").write_text(text)
    return ["nginx", "-e", "stderr", "-p", str(place.folder), "-c", "nginx.conf"]


def _http_server(place: Place) -> list[str]:
    command = [*_PYTHON, "-m", "http.server", str(place.port), "--bind", "127.0.0.1"]
    return [*command, "--directory", str(place.site)]


def _app(place: Place, name: str) -> list[str]:
    log = place.folder / "checks.jsonl"
    command = [str(place.python), str(APPS / name), str(place.port), str(place.site), str(log)]
    return [*command, f"{place.idle_seconds or 75:.0f}"]


def _goosebit(place: Place) -> list[str]:
    return [str(place.python), str(APPS / "goosebit_app.py"), str(place.port)]


def _goosebit_environment(place: Place) -> dict[str, str]:
    return {
        "GOOSEBIT_DB_URI": f"sqlite:///{place.folder}/db.sqlite3",
        "GOOSEBIT_ARTIFACTS_DIR": str(place.folder / "artifacts"),
    }


def _ours_before(place: Place) -> list[str]:
    """Serve by another checkout: -P keeps this one, the current folder, off the path."""
    command = _this_server(place)  # it may know no port for operators
    return [command[0], "-P", *command[1:]]


_ALL = (
    Peer(OURS, "this server", "", _ours),
    Peer(
        "before",
        "this server, the checkout that OTA_SERVER_BEFORE names",
        "OTA_SERVER_BEFORE",
        _ours_before,
        environment=lambda place: {"PYTHONPATH": os.environ["OTA_SERVER_BEFORE"]},
    ),
    Peer(
        "nginx",
        "nginx, one worker",
        "nginx",
        lambda place: _nginx(place, "sndbuf=64k"),
        conditional_path="/esp32/firmware.bin",
    ),
    Peer(
        "nginx-default",
        "nginx with its default send buffers",
        "nginx",
        lambda place: _nginx(place, ""),
    ),
    Peer("http.server", "python -m http.server", "", _http_server),
    Peer("aiohttp", "aiohttp", "aiohttp", lambda place: _app(place, "aiohttp_app.py")),
    Peer("uvicorn", "FastAPI on uvicorn", "fastapi", lambda place: _app(place, "fastapi_app.py")),
    Peer(
        "goosebit",
        "gooseBit (SQLite)",
        "goosebit",
        _goosebit,
        _GOOSEBIT_CHECK,
        _goosebit_environment,
        lambda port: introduce(port, _GOOSEBIT_CHECK, (1,)),
        has_images=False,
    ),
)
PEERS = {peer.name: peer for peer in _ALL}


def versions(python: Path) -> dict[str, str]:
    """Return the versions of programs and packages that are there."""
    found = {"Python": sys.version.split()[0]}
    if before := os.environ.get("OTA_SERVER_BEFORE"):
        found["OTA_SERVER_BEFORE"] = Path(before).name
    for program, option in (("nginx", "-v"), ("wrk", "-v")):
        if shutil.which(program):
            done = subprocess.run([program, option], capture_output=True, text=True)
            said = re.search(r"(\d[\d.]+\S*)", done.stdout + done.stderr)
            found[program] = said[1] if said else "?"
    return {**found, **_packages(python)}


def _packages(python: Path) -> dict[str, str]:
    names = ("aiohttp", "fastapi", "uvicorn", "uvloop", "httptools", "goosebit", "matplotlib")
    code = (
        "import importlib.metadata as m, json\nfound = {}\n"
        f"for name in {names!r}:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    if not python.exists():
        return {}
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    packages: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return packages
