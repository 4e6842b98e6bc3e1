"""Measure what the socket options of the server are worth, one change at a time.

    python -m benchmarks.socket_options [--rounds 7] [--seconds 2]

The server as it is takes turns with forms of it in which one option is another: checks with a new
connection and downloads of 1 MiB by wrk, and ten thousand slow downloads. Printed are medians:
processor time of a check, MB of downloads a second, and of the slow ones the memory that the kernel
holds for TCP and the 99th percentile of a check meanwhile.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from benchmarks.crowds import hold
from benchmarks.figures import OURS, turns
from benchmarks.metrics import MEBIBYTE
from benchmarks.peers import PEERS, Peer, Place
from benchmarks.server import Server
from benchmarks.side_by_side import CONNECTIONS, make_site, under_load
from benchmarks.wrk import Load

_BUFFERS = """
OTAServer.unsent_bytes = 0
def activate(server, activate=OTAServer.server_activate):
    activate(server)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {size} * 1024)
OTAServer.server_activate = activate
"""
# What is run before the server starts.
_FORMS = {
    "as it is": "",
    "no TCP_DEFER_ACCEPT": "OTAServer.defer_seconds = 0",
    "buffers of the kernel's choice": "OTAServer.unsent_bytes = 0",
    "128 KiB unsent": "OTAServer.unsent_bytes = 128 * 1024",
    "buffers of 32 KiB": _BUFFERS.format(size=32),
    "buffers of 64 KiB": _BUFFERS.format(size=64),
    "buffers of 256 KiB": _BUFFERS.format(size=256),
}
_START = """
import socket
import sys
from ota_server.server import main
from ota_server.server import OTAServer
{change}
sys.exit(main())
"""
_DOWNLOADERS = 100_000
_HOLD_SECONDS = 8.0


def form(change: str) -> Peer:
    """Return this server with a change."""
    ours = PEERS[OURS]

    def prepare(place: Place) -> list[str]:
        python, _, _, *arguments = ours.prepare(place)
        return [python, "-c", _START.format(change=change), *arguments]

    return replace(ours, prepare=prepare)


def measure(peer: Peer, site: Path, folder: Path, seconds: int) -> dict[str, float]:
    """Start one form of the server and load it in three ways."""
    with Server(peer, site, folder, Path(sys.executable)) as server:
        server.wait()
        check = under_load(server, Load("/version.txt", CONNECTIONS, seconds, close=True), 1)
        download = under_load(server, Load("/firmware.bin", CONNECTIONS, seconds, _DOWNLOADERS), 1)
        slow = hold(server, _HOLD_SECONDS, print, slow=True)
    return {
        "check, µs": check["cpu_us"],
        "checks/s": check["rate"],
        "MB/s": download["mb_per_s"],
        "s/GB": download["cpu_s_per_gb"],
        "slow: TCP, MB": slow["tcp_mb"],
        "p99, ms": slow["p99_ms"],
    }


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="default: %(default)s")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        site = make_site(Path(name) / "site", MEBIBYTE)
        for number in range(arguments.rounds):
            for title in turns(list(_FORMS), number):
                folder = Path(name) / f"{number} {title}"
                values = measure(form(_FORMS[title]), site, folder, arguments.seconds)
                for metric, value in values.items():
                    found[title][metric].append(value)
                print(f"round {number + 1}: {title}", flush=True)
    width = max(map(len, _FORMS))
    metrics = list(found["as it is"])
    print(" " * width, *(f"{metric:>13}" for metric in metrics))
    for title, columns in found.items():
        medians = (f"{statistics.median(columns[metric]):13.2f}" for metric in metrics)
        print(f"{title:{width}}", *medians)


if __name__ == "__main__":
    main()
