"""Workloads with 10,000 connections at once, one server at a time: slow downloads, idle ones."""

import json
import subprocess
import sys
from collections.abc import Callable

from benchmarks import procfs
from benchmarks.figures import Broken, turns
from benchmarks.metrics import MEBIBYTE, WORKLOADS
from benchmarks.peers import PEERS, ROOT
from benchmarks.plan import Run
from benchmarks.probe import watch
from benchmarks.server import Server
from benchmarks.side_by_side import make_site

CLIENTS = 10_000
CASE = f"{CLIENTS:,} clients"
_BYTES_A_SECOND = 4096
_IMAGE_BYTES = MEBIBYTE  # at 4 KiB/s it outlasts the run, so that the load stays the same
_IDLE_SECONDS = 120.0  # longer than the run: who closes idle connections is not what is measured
# Their memory is a multiple of the others': one round shows it, and saves ten minutes of a run.
_ONCE = frozenset(("aiohttp", "uvicorn"))
# Beyond what it was told to take: to connect, and to end.
_PATIENCE_SECONDS = 90.0


def run(run: Run, name: str) -> None:
    """Run all rounds of a workload; each peer has the machine to itself when it is its turn."""
    slow = name == "slow-downloads"
    site = make_site(run.plan.folder / f"site-{name}", _IMAGE_BYTES)
    for number in range(run.plan.rounds):
        for peer in turns(run.plan.peers_of(WORKLOADS[name]), number):
            if number and peer in _ONCE:
                continue

            def measure(peer: str = peer) -> dict[str, float]:
                idle_seconds = 0.0 if slow else _IDLE_SECONDS
                server = Server(PEERS[peer], site, run.folder(), run.plan.python, idle_seconds)
                with server, server.blamed():
                    server.wait()
                    return hold(server, run.plan.hold_seconds, run.progress.note, slow=slow)

            run.measure(name, CASE, peer, number, measure)


def hold(
    server: Server,
    seconds: float,
    note: Callable[[str], None],
    *,
    slow: bool,
    clients: int = CLIENTS,
) -> dict[str, float]:
    """Hold so many connections, and check and weigh meanwhile; `note` why some were not served.

    Raises:
        Broken: the clients did not run to their end.
    """
    before = procfs.threads(server.process)
    # The clients outlast the probes by a little.
    crowd = _crowd(server, seconds + 0.5, clients, slow=slow)
    try:
        assert crowd.stdout is not None
        crowd.stdout.readline()
        values = watch(server, seconds)
        said, complaint = crowd.communicate(timeout=seconds + _PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as problem:
        raise Broken("the slow clients did not end") from problem
    finally:
        crowd.kill()
        crowd.wait()
    if crowd.returncode != 0:
        raise Broken(f"slow clients: {complaint[-300:]}")
    report = json.loads(said)
    if report["errors"]:
        note(f"{server.peer.name}, clients that were not served: {report['errors']}")
    return {
        **values,
        "answered": report["answered"],
        "clients": clients,
        "delivery": report["delivery"],
        "peak_mb": procfs.peak_mb(server.process),
        "threads_before": before,
    }


def _crowd(server: Server, seconds: float, clients: int, *, slow: bool) -> "subprocess.Popen[str]":
    """Start the process of the clients."""
    file = server.site / ("firmware.bin" if slow else "version.txt")
    path = "/firmware.bin" if slow else server.peer.check_path
    command = [sys.executable, "-m", "benchmarks.slow_clients", "--port", str(server.port)]
    command += ["--path", path, "--clients", str(clients), "--expect", str(file)]
    command += ["--bytes-a-second", str(_BYTES_A_SECOND if slow else 0)]
    return subprocess.Popen(
        [*command, "--seconds", str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
