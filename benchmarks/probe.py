"""Checks while something else goes on: how long they take, what the server weighs meanwhile."""

import socket
import time
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import Broken, percentile
from benchmarks.server import Server

_PAUSE_SECONDS = 0.02
_TIMEOUT_SECONDS = 20.0
_WEIGH_EVERY = 10
_PAGE_BYTES = 4096


def check_seconds(port: int, head: bytes) -> float:
    """Make one check on a connection of its own: from the connect to the last byte of the reply.

    Raises:
        Broken: the reply is no 200.
        OSError: there is none.
    """
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as sock:
        sock.sendall(head)
        reply = b""
        while part := sock.recv(4096):
            reply += part
    taken = time.perf_counter() - began
    if reply.split(b" ", 2)[1:2] != [b"200"]:
        raise Broken(f"a check was answered {reply[:80]!r}")
    return taken


def check_head(path: str) -> bytes:
    """Return the request of a check on a connection that closes after it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: ota\r\n_br_mac_: 02:ff:00:00:00:01\r\n"
        "_br_fwv_: v1.0.1\r\nConnection: close\r\n\r\n"
    ).encode()


def tcp_mb() -> float:
    """Return the memory that the kernel holds for all TCP of this machine, in MB of 10^6 bytes."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * _PAGE_BYTES / 1e6
    return 0.0


def watch(server: Server, seconds: float) -> dict[str, float]:
    """Check each 20 ms for so long; return latencies in ms, and the most memory and threads."""
    head = check_head(server.peer.check_path)
    until = time.monotonic() + seconds
    taken: list[float] = []
    rss, count, tcp = [0.0], [0.0], [0.0]
    while time.monotonic() < until:
        if len(taken) % _WEIGH_EVERY == 0:
            rss.append(procfs.rss_mb(server.process))
            count.append(procfs.threads(server.process))
            tcp.append(tcp_mb())
        try:
            taken.append(check_seconds(server.port, head) * 1000)
        except TimeoutError:
            taken.append(_TIMEOUT_SECONDS * 1000)
        time.sleep(_PAUSE_SECONDS)
    return {
        "p50_ms": percentile(taken, 50),
        "p99_ms": percentile(taken, 99),
        "rss_mb": max(rss),
        "threads": max(count),
        "tcp_mb": max(tcp),
    }
