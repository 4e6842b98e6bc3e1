"""Measure what work on the journal adds to replies: the latency of checks while it goes on.

    python -m benchmarks.rotation [--devices 1000000] [--fsync interval]

Starts the server on a journal with many known devices, as its own process, and asks it for the
version again and again, on a connection that is kept and on new ones: while it loads rows after a
start; and while it begins a new file, because the old one was moved away, writes all devices into
it, and deletes the old one. In turns with that it asks a second server that does nothing, for what
else the machine does at that moment shows in both. Linux only.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.known import write_journal

_PAUSE_SECONDS = 0.001
_HEAD = "GET /version.txt HTTP/1.1\r\nHost: ota\r\n_br_mac_: %s\r\n_br_fwv_: v1.0.1\r\n%s\r\n"
# Often enough to see an end, and seldom enough not to load the machine.
_LOOK_EVERY = 50


class Server:
    """The server as its own process, on a journal with many known devices."""

    def __init__(self, folder: str, devices: int, *options: str) -> None:
        data_dir = Path(folder)
        (data_dir / "version").mkdir()
        (data_dir / "version" / "version.txt").write_text("v1.0.1")
        self.devices = devices
        self.journal = write_journal(data_dir / "log", devices)
        command = [sys.executable, "-m", "ota_server.server", "--port", "0", "--no-admin", *options]
        self.process = subprocess.Popen(
            [*command, "--data-dir", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "listening" in line)
        self._port = int(line.split("//")[1].split("/")[0].rsplit(":", 1)[1])

    def is_loading(self) -> bool:
        """Say whether it still reads rows: it has the journal open also for reading alone."""
        for entry in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            try:
                flags = int(entry.read_text().split("flags:")[1].split()[0], 8)
                name = os.readlink(f"/proc/{self.process.pid}/fd/{entry.name}")
            except FileNotFoundError:
                continue  # closed meanwhile
            if name == str(self.journal) and flags & os.O_ACCMODE == os.O_RDONLY:
                return True
        return False

    def is_writing_snapshot(self) -> bool:
        """Say whether the current file lacks its marker."""
        with self.journal.open("rb") as file:
            file.seek(max(0, self.journal.stat().st_size - 1024 * 1024))
            return b'"event":"snapshot"' not in file.read()

    def begin_new_file(self) -> None:
        """Have it do what it does when the file is long enough, but at a moment of ours."""
        self.journal.rename(self.journal.with_name("devices.000001.jsonl"))
        self.process.send_signal(signal.SIGHUP)
        while not self.journal.exists():
            time.sleep(_PAUSE_SECONDS)

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self._port), timeout=60)

    def ask(self, sock: socket.socket | None) -> float:
        """Ask as one of its devices; return the milliseconds. None: on a new connection."""
        mac = (0x020000000000 + random.randrange(self.devices)).to_bytes(6, "big").hex(":")
        field = "Connection: close\r\n" if sock is None else ""
        began = time.perf_counter()
        used = sock or self.connect()
        used.sendall((_HEAD % (mac, field)).encode("ascii"))
        answer = used.recv(4096)
        milliseconds = (time.perf_counter() - began) * 1000
        if sock is None:
            used.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return milliseconds


def probe(servers: list[Server], goes_on: Callable[[], bool]) -> list[list[float]]:
    """Ask all servers in turns while something goes on; return each one's times."""
    times: list[list[float]] = [[] for _ in servers for _ in ("kept", "new")]
    kept = [server.connect() for server in servers]
    while len(times[0]) % _LOOK_EVERY or goes_on():
        ways = [(server, sock) for server, sock in zip(servers, kept, strict=True)]
        asked = [pair for server, sock in ways for pair in ((server, sock), (server, None))]
        for (server, sock), taken in zip(asked, times, strict=True):
            time.sleep(_PAUSE_SECONDS)
            taken.append(server.ask(sock))
    for sock in kept:
        sock.close()
    return times


def show(phase: str, times: list[list[float]]) -> None:
    """Print the rows of one phase: the server at work, then the one that does nothing."""
    names = [f"{who}, {way}" for who in (phase, "idle meanwhile") for way in ("kept", "new")]
    for name, taken in zip(names, times, strict=True):
        taken.sort()
        count = len(taken)
        marks = [taken[count // 2], taken[count * 99 // 100], taken[count * 999 // 1000], taken[-1]]
        late = sum(one > 5 for one in taken)
        cells = " | ".join(f"{one:.2f}" for one in marks)
        print(f"| {name} | {count} | {cells} | {late} |", flush=True)


def main() -> None:
    """Run once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--fsync", default="interval", help="default: %(default)s")
    arguments = parser.parse_args()
    options = ("--fsync", arguments.fsync, "--journal-files", "0")
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        servers = []
        try:
            servers.append(Server(other, 1000, *options))
            servers.insert(0, Server(one, arguments.devices, *options))
            busy = servers[0]
            print("| connection | checks | median ms | 99 % | 99.9 % | longest | over 5 ms |")
            print("|---|---|---|---|---|---|---|")
            show("loading", probe(servers, busy.is_loading))
            busy.begin_new_file()
            show("snapshot", probe(servers, busy.is_writing_snapshot))
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()


if __name__ == "__main__":
    main()
