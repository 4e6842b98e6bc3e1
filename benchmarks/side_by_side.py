"""Workloads by wrk, all peers side by side: checks and downloads."""

import os
import urllib.request
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.figures import Broken, turns
from benchmarks.metrics import MEBIBYTE, WORKLOADS, Workload
from benchmarks.peers import PEERS, VERSION, Peer
from benchmarks.plan import Run
from benchmarks.server import Server
from benchmarks.wrk import Load

CONNECTIONS = 16
DEVICES = 100_000
_CLIENTS = (1, 16, 256)
_DOWNLOADERS = 100_000  # devices: none downloads the image more often than a device may
_IMAGES = {
    "download-1m": 1 * MEBIBYTE,
    "download-1m-new": 1 * MEBIBYTE,
    "download-64m": 64 * MEBIBYTE,
}
_ESP32 = "check-esp32"
# As HTTPUpdate of Arduino's core sends it, in its order.
_ESP32_FIELDS = (
    "User-Agent: ESP32-http-Update",
    "Connection: close",
    "Cache-Control: no-cache",
    "x-ESP32-BASE-MAC: @:",
    "x-ESP32-STA-MAC: @:",
    "x-ESP32-AP-MAC: @:",
    "x-ESP32-free-space: 1310720",
    "x-ESP32-sketch-size: 312704",
    "x-ESP32-sketch-md5: 0cc175b9c0f1b6a831c399e269772661",
    "x-ESP32-sketch-sha256: " + "AB" * 32,
    "x-ESP32-chip-size: 4194304",
    "x-ESP32-sdk-version: v5.1",
    "x-ESP32-mode: sketch",
    f"x-ESP32-version: {VERSION}",
)
_NEW_CONNECTIONS = frozenset(("check-new", "download-1m-new"))


class _Older(Broken):
    """A checkout from before what is measured was written."""


def cases(workload: str) -> list[str]:
    """Return the names of the cases of a workload of this module."""
    if workload in _IMAGES:
        return [f"{clients} client{'s' if clients > 1 else ''}" for clients in _CLIENTS]
    return [f"{CONNECTIONS} connections"]


def make_site(folder: Path, image_bytes: int = 64 * 1024) -> Path:
    """Make the files that all peers serve: version.txt and an image of random bytes."""
    folder.mkdir(exist_ok=True)
    (folder / "version.txt").write_text(VERSION)
    with (folder / "firmware.bin").open("wb") as image:
        for _ in range(0, image_bytes, MEBIBYTE):
            image.write(os.urandom(min(MEBIBYTE, image_bytes)))
    return folder


def run(run: Run, name: str) -> None:
    """Run all rounds of a workload; in each, all its peers run, and are loaded in turn."""
    workload = WORKLOADS[name]
    site = run.site
    if name in _IMAGES:
        site = make_site(run.plan.folder / f"site-{name}", _IMAGES[name])
    for number in range(run.plan.rounds):
        with ExitStack() as stack:
            servers = _start(run, workload, site, number, stack)
            for case, clients in zip(cases(name), _CLIENTS, strict=False):
                for peer in turns(run.plan.peers_of(workload), number):
                    if peer in servers:
                        _measure(run, name, case, clients, servers[peer], number)


def _start(
    run: Run, workload: Workload, site: Path, number: int, stack: ExitStack
) -> dict[str, Server]:
    """Start all, then wait for each; return those that answer."""
    servers = {}
    broken: dict[str, Exception] = {}
    left_out: dict[str, Exception] = {}
    for peer in run.plan.peers_of(workload):
        try:
            server = Server(PEERS[peer], site, run.folder(), run.plan.python)
            servers[peer] = stack.enter_context(server)
        except OSError as problem:
            broken[peer] = problem
    for peer, server in servers.items():
        try:
            server.wait()
            if workload.name == _ESP32:
                _prove_not_modified(server)
        except _Older as problem:
            left_out[peer] = problem
        except Broken as problem:
            broken[peer] = problem
    for peer, reason in broken.items():
        for case in cases(workload.name):
            run.fail(workload.name, case, peer, number, reason)
    for peer, reason in left_out.items():
        run.leave_out(workload.name, peer, reason)
    unfit = broken.keys() | left_out.keys()
    return {peer: server for peer, server in servers.items() if peer not in unfit}


def _prove_not_modified(server: Server) -> None:
    """Return where an ESP32 that is up to date is told so.

    Raises:
        Broken: it is not, as a checkout cannot that knows no ESP32 yet.
    """
    with server.blamed():
        status = wrk.status_of(server.port, esp32_load(server.peer, server.port, 1))
    if status != HTTPStatus.NOT_MODIFIED:
        kind = _Older if server.peer.name == "before" else Broken
        raise kind(f"an ESP32 that is up to date is answered {status}")


def esp32_load(peer: Peer, port: int, seconds: int) -> Load:
    """Return the load of ESP32s that run what the server on this port has."""
    path, fields = "/firmware.bin", _ESP32_FIELDS
    if peer.conditional_path:
        path = peer.conditional_path
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
            fields += (f"If-None-Match: {reply.headers['ETag']}",)
    return Load(path, CONNECTIONS, seconds, requests=DEVICES, fields=fields, protocol="HTTP/1.0")


def _measure(run: Run, name: str, case: str, clients: int, server: Server, number: int) -> None:
    plan = run.plan
    if name == _ESP32:
        load = esp32_load(server.peer, server.port, plan.seconds)
    elif name in _IMAGES:
        load = Load(
            "/firmware.bin", clients, plan.seconds, _DOWNLOADERS, close=name in _NEW_CONNECTIONS
        )
    else:
        load = Load(
            server.peer.check_path,
            CONNECTIONS,
            plan.seconds,
            requests=DEVICES if name == "check-keepalive-100k" else 1,
            close=name in _NEW_CONNECTIONS,
        )
    run.measure(
        name, case, server.peer.name, number, lambda: under_load(server, load, plan.warm_seconds)
    )


def under_load(server: Server, load: Load, warm_seconds: int) -> dict[str, float]:
    """Load a server; return rates, processor time by request and by GB, latencies, memory."""
    with server.blamed():
        if warm_seconds:
            wrk.run(server.port, load.lasting(warm_seconds))
        before = procfs.cpu_seconds(server.process)
        outcome = wrk.run(server.port, load)
    spent = procfs.cpu_seconds(server.process) - before
    return {
        "rate": outcome.requests / outcome.seconds,
        "cpu_us": spent * 1e6 / max(outcome.requests, 1),
        "mb_per_s": outcome.bytes / 1e6 / outcome.seconds,
        "cpu_s_per_gb": spent / (outcome.bytes / 1e9),
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "rss_mb": procfs.rss_mb(server.process),
        "peak_mb": procfs.peak_mb(server.process),
        "threads": procfs.threads(server.process),
        "errors": sum(outcome.errors.values()),
    }
