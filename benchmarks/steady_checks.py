"""Checks of known devices at a steady rate, on kept connections, in a process of its own.

Run as `python -m benchmarks.steady_checks --port N --devices N --rate N`; it checks until its
standard input ends, then prints one line of JSON: how long each check took, in ms. `SteadyChecks`
runs it. A check begins when it is sent, and a late reply holds up no other: the next check takes
another connection. Where all wait for replies, it begins when it should have been sent. Linux only.
"""

import argparse
import json
import random
import select
import socket
import subprocess
import sys
import time
from collections import deque

from benchmarks.device_index import known_device, mac_of
from benchmarks.figures import Broken
from benchmarks.peers import ROOT

_CONNECTIONS = 50
_LOST_SECONDS = 20.0
# How many different devices ask, drawn among all.
_ASKING = 20_000


class SteadyChecks:
    """A process that checks, from its start until `end`."""

    def __init__(self, port: int, devices: int, rate: int) -> None:
        command = [sys.executable, "-m", "benchmarks.steady_checks", "--port", str(port)]
        command += ["--devices", str(devices), "--rate", str(rate)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it is connected
        self._began = time.monotonic()

    def end(self) -> tuple[list[float], float]:
        """End it; return what the checks took, in ms, and how many there were in a second.

        Raises:
            Broken: it failed.
        """
        seconds = time.monotonic() - self._began
        printed, _ = self._process.communicate(timeout=_LOST_SECONDS * 2)
        if self._process.returncode or not printed:
            raise Broken(f"the checks ended with exit code {self._process.returncode}")
        taken = json.loads(printed)
        return taken, len(taken) / seconds


def heads(devices: int) -> list[bytes]:
    """Return requests of devices that report what is on record of them.

    They are of no family: by these header fields the others would change theirs.
    """
    found, chance = [], random.Random(3)
    for number in chance.sample(range(devices), min(devices, _ASKING)):
        device = known_device(number, 0)
        if device.updater is None:
            fields = f"_br_mac_: {mac_of(number)}\r\n_br_fwv_: {device.firmware_version}\r\n"
            found.append(f"GET /version.txt HTTP/1.1\r\nHost: ota\r\n{fields}\r\n".encode())
    return found


class _Load:
    def __init__(self, port: int, heads: list[bytes]) -> None:
        self._heads = heads
        self._at = 0
        self._poll = select.epoll()
        self._idle: deque[socket.socket] = deque()
        self._began: dict[int, tuple[float, socket.socket]] = {}
        self.taken: list[float] = []
        for _ in range(_CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", port), _LOST_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(sock, select.EPOLLIN)
            self._idle.append(sock)

    def run(self, rate: int) -> None:
        """Check until standard input ends, and all replies are there."""
        self._poll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
        due, goes_on, all_waited = time.perf_counter(), True, False
        while goes_on or self._began:
            now = time.perf_counter()
            while goes_on and due <= now and self._idle:
                self._send(due if all_waited else now)
                due += 1 / rate
            all_waited = not self._idle
            wait = due - now if goes_on and self._idle else _LOST_SECONDS
            events = self._poll.poll(max(wait, 0))
            if not events and wait == _LOST_SECONDS:
                raise Broken("a check was not answered")
            for number, _ in events:
                if number == sys.stdin.fileno():
                    goes_on = False
                    self._poll.unregister(sys.stdin)
                else:
                    self._receive(number)

    def _send(self, began: float) -> None:
        sock = self._idle.popleft()
        self._began[sock.fileno()] = began, sock
        sock.sendall(self._heads[self._at % len(self._heads)])
        self._at += 1

    def _receive(self, number: int) -> None:
        if number not in self._began:
            raise Broken("the server closed a connection")
        began, sock = self._began.pop(number)
        reply = sock.recv(4096)  # so short a reply comes in one piece
        self.taken.append((time.perf_counter() - began) * 1000)
        if not reply.startswith(b"HTTP/1.1 200 "):
            raise Broken(f"a check was answered {reply[:80]!r}")
        self._idle.append(sock)


def main() -> None:
    """Check, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.steady_checks", description=__doc__)
    for name in ("port", "devices", "rate"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    load = _Load(options.port, heads(options.devices))
    print(flush=True)
    load.run(options.rate)
    print(json.dumps([round(each, 3) for each in load.taken]))


if __name__ == "__main__":
    main()
