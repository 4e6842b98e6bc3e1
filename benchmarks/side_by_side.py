"""Workloads by wrk, all peers side by side: checks and downloads."""

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.figures import Broken, turns
from benchmarks.metrics import MEBIBYTE, WORKLOADS, Workload
from benchmarks.peers import PEERS, VERSION
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
_NEW_CONNECTIONS = frozenset(("check-new", "download-1m-new"))


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
    for peer in run.plan.peers_of(workload):
        try:
            server = Server(PEERS[peer], site, run.folder(), run.plan.python)
            servers[peer] = stack.enter_context(server)
        except OSError as problem:
            broken[peer] = problem
    for peer, server in servers.items():
        try:
            server.wait()
        except Broken as problem:
            broken[peer] = problem
    for peer, reason in broken.items():
        for case in cases(workload.name):
            run.fail(workload.name, case, peer, number, reason)
    return {peer: server for peer, server in servers.items() if peer not in broken}


def _measure(run: Run, name: str, case: str, clients: int, server: Server, number: int) -> None:
    plan = run.plan
    if name in _IMAGES:
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
