"""A power cut: ten thousand devices come within ten seconds, and each has an update to fetch.

    python -m benchmarks.power_cut [--devices 10000] [--max-downloads 50 0] [--poll-seconds 5]
                                   [--slow-percent 5] [--absent-percent 10]

Starts the server as its own process for each number of download slots (0: without the option), and
speaks to it as the devices would: check, and where another version is told download it, with a
small buffer and pauses, then report it; else check again after the poll interval, which differs by
up to a half between devices. A slow device takes twenty times as long for its download. An absent
one checks like the others, and never downloads what it is told of.

Prints a line of a table for each: connections that were refused, by their errors; the most
downloads at once, by the server's journal and as the devices saw it; the devices that have the
release at the end, of those that are not absent; how long it took; how long a device waited, from
its first check until it had the image; and how long a check took that was answered.
Linux only. A machine with two processors shows what they can do, and not what the server could.
"""

import argparse
import heapq
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

_OLD, _NEW = "v1.0.0", "v1.0.1"
_COMING_SECONDS = 10.0
_SOURCES = 16  # addresses 127.0.0.2 and on, or ports run out
_RECEIVE_BUFFER = 4096  # an ESP8266 has little more
_READ_BYTES = 8192
_PAUSE_SECONDS = 0.05
_SLOW_PAUSE_SECONDS = 1.0
_SETTLE_SECONDS = 4.0  # the server hashes an image that has not changed for two seconds
_TITLE = (
    "slots | refused connections | 429 | most at once, journal | most at once, devices "
    "| updated | seconds | wait p50, s | wait p90, s | wait p99, s | longest wait, s "
    "| check p50, ms | check p99, ms"
)


class Device:
    """One device: what it runs, and the request that is under way."""

    def __init__(self, number: int, poll_seconds: float, is_slow: bool, is_absent: bool) -> None:
        self.mac = (0x020000000000 + number).to_bytes(6, "big").hex(":")
        self.poll_seconds = poll_seconds
        self.pause_seconds = _SLOW_PAUSE_SECONDS if is_slow else _PAUSE_SECONDS
        self.is_absent = is_absent
        self.first_at: float | None = None
        self.version = _OLD
        self.wants = ""
        self.sock: socket.socket | None = None
        self.source = f"127.0.0.{2 + number % _SOURCES}"
        self.reply = bytearray()
        self.asked_at = 0.0
        self.is_read_slowly = False

    def head(self) -> bytes:
        """Return the request that comes next."""
        path = "/firmware.bin" if self.wants else "/version.txt"
        return (
            f"GET {path} HTTP/1.1\r\nHost: ota\r\nConnection: close\r\n"
            f"_br_mac_: {self.mac}\r\n_br_fwv_: {self.version}\r\n\r\n"
        ).encode("ascii")


class Seen(NamedTuple):
    """What the devices saw."""

    errors: Counter[str]
    most_at_once: int
    updated: int
    seconds: float
    wait_seconds: list[float]
    check_seconds: list[float]


class Crowd:
    """All devices, in one process."""

    def __init__(self, arguments: argparse.Namespace, port: int, image: bytes) -> None:
        self._port = port
        self._image = image
        self._give_up_seconds = arguments.give_up_seconds
        self._poller = select.epoll()
        self._busy: dict[int, Device] = {}
        self._errors: Counter[str] = Counter()
        self._wait_seconds: list[float] = []
        self._check_seconds: list[float] = []
        self._downloading = self._most = self._updated = 0
        self.coming = 0  # devices that fetch what they are told of
        source = random.Random(20261124)
        self._source = source
        self._due: list[tuple[float, int, Device]] = []
        for number in range(arguments.devices):
            poll_seconds = arguments.poll_seconds * source.uniform(0.5, 1.5)
            at = source.uniform(0.0, _COMING_SECONDS)
            percent = 100 * number / arguments.devices
            is_slow = percent < arguments.slow_percent
            is_absent = percent >= 100 - arguments.absent_percent
            self.coming += not is_absent
            self._due.append((at, number, Device(number, poll_seconds, is_slow, is_absent)))
        heapq.heapify(self._due)
        self._number = arguments.devices

    def run(self) -> Seen:
        """Have all devices come, until each that fetches has the release or the time is over."""
        self._began = time.monotonic()
        while self._updated < self.coming and (now := self._now()) < self._give_up_seconds:
            while self._due and self._due[0][0] <= now:
                self._wake(heapq.heappop(self._due)[2])
            wait = max(0.0, self._due[0][0] - now) if self._due else 0.1
            for descriptor, events in self._poller.poll(min(wait, 0.1)):
                self._take(self._busy[descriptor], events)
        seconds = self._now()
        return Seen(
            self._errors,
            self._most,
            self._updated,
            seconds,
            sorted(self._wait_seconds),
            sorted(self._check_seconds),
        )

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _later(self, device: Device, seconds: float) -> None:
        self._number += 1
        heapq.heappush(self._due, (self._now() + seconds, self._number, device))

    def _wake(self, device: Device) -> None:
        if device.sock is not None:
            self._poller.modify(device.sock, select.EPOLLIN)  # it has paused while it read
            return
        device.sock = sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((device.source, 0))
        device.reply.clear()
        device.is_read_slowly = False
        device.asked_at = self._now()
        if device.first_at is None:
            device.first_at = device.asked_at
        sock.connect_ex(("127.0.0.1", self._port))
        self._busy[sock.fileno()] = device
        self._poller.register(sock, select.EPOLLOUT)

    def _take(self, device: Device, events: int) -> None:
        assert device.sock is not None
        try:
            if not device.reply and events & select.EPOLLOUT:
                device.sock.send(device.head())
                self._poller.modify(device.sock, select.EPOLLIN)
                return
            part = device.sock.recv(_READ_BYTES)
        except OSError as problem:
            self._errors[os.strerror(problem.errno or 0)] += 1
            self._end(device)
            self._later(device, device.poll_seconds)
            return
        device.reply += part
        if not part:
            self._end(device)
            self._understand(device)
        elif device.wants:
            if not device.is_read_slowly and device.reply.startswith(b"HTTP/1.1 200"):
                device.is_read_slowly = True
                self._downloading += 1
                self._most = max(self._most, self._downloading)
            self._poller.modify(device.sock, 0)
            self._later(device, device.pause_seconds)

    def _end(self, device: Device) -> None:
        assert device.sock is not None
        self._poller.unregister(device.sock)
        del self._busy[device.sock.fileno()]
        device.sock.close()
        device.sock = None
        self._downloading -= device.is_read_slowly

    def _understand(self, device: Device) -> None:
        head, _, body = bytes(device.reply).partition(b"\r\n\r\n")
        status = head[9:12].decode("ascii", "replace")
        if status != "200":
            self._errors[status or "no reply"] += 1
            device.wants = ""
            self._later(device, device.poll_seconds)
        elif device.wants:
            if body == self._image:
                device.version = device.wants
                self._wait_seconds.append(self._now() - (device.first_at or 0.0))
            else:
                self._errors["a part of the image"] += 1
            device.wants = ""
            self._later(device, _PAUSE_SECONDS)  # it boots, and reports
        else:
            self._check_seconds.append(self._now() - device.asked_at)
            told = body.decode("ascii", "replace").strip()
            if told != device.version and not device.is_absent:
                device.wants = told
                self._later(device, self._source.uniform(0.0, 0.05))
            elif told == _NEW:
                self._updated += 1
            else:
                self._later(device, device.poll_seconds)


def most_at_once(journal: Path) -> int:
    """Return how many downloads ran at once, by the order of their records."""
    running = most = 0
    for line in journal.read_bytes().splitlines():
        record = json.loads(line)
        if record["event"] == "begin":
            running += 1
            most = max(most, running)
        elif record["event"] == "download" and record["status"] == 200:
            running -= 1
    return most


def start(data_dir: Path, image: bytes, slots: int) -> tuple[subprocess.Popen[str], int]:
    """Start the server on a new data directory; return it and its port."""
    for name in ("version", "firmware"):
        (data_dir / name).mkdir()
    (data_dir / "firmware" / f"firmware_{_NEW}.bin").write_bytes(image)
    (data_dir / "version" / "version.txt").write_text(_NEW)
    command = [sys.executable, "-m", "ota_server.server", "--port", "0", "--no-admin"]
    command += ["--journal-rotate", "1024", "--data-dir", str(data_dir)]
    if slots:
        command += ["--max-downloads", str(slots)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = next(line for line in process.stdout if "listening" in line)
    return process, int(line.split("//")[1].split("/")[0].rsplit(":", 1)[1])


def measure(arguments: argparse.Namespace, slots: int) -> str:
    """Let the devices come to a server with so many slots; return the line of the table."""
    image = random.Random(1).randbytes(arguments.image_bytes)
    with tempfile.TemporaryDirectory() as folder:
        process, port = start(Path(folder), image, slots)
        try:
            time.sleep(_SETTLE_SECONDS)
            crowd = Crowd(arguments, port, image)
            seen = crowd.run()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
        most = most_at_once(Path(folder) / "log" / "devices.jsonl")
    late = seen.errors.pop("429", 0)
    refused = seen.errors.total()
    which = f" ({dict(seen.errors)})" if refused else ""
    waits = " | ".join(f"{_at(seen.wait_seconds, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
    checks = " | ".join(f"{1000 * _at(seen.check_seconds, share):.1f}" for share in (0.5, 0.99))
    return (
        f"{slots or 'no limit'} | {refused}{which} | {late} | {most} | {seen.most_at_once} "
        f"| {seen.updated} of {crowd.coming} | {seen.seconds:.0f} | {waits} | {checks}"
    )


def _at(times: list[float], share: float) -> float:
    """Return the quantile of times that are in order."""
    return times[min(int(len(times) * share), len(times) - 1)] if times else float("nan")


def main(argv: list[str] | None = None) -> None:
    """Run `python -m benchmarks.power_cut`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--max-downloads", type=int, nargs="+", default=[50], metavar="N")
    parser.add_argument("--poll-seconds", type=float, default=5.0, help="default: %(default)s")
    parser.add_argument("--image-bytes", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--give-up-seconds", type=float, default=900.0, help="default: %(default)s")
    parser.add_argument("--slow-percent", type=float, default=0.0, help="default: %(default)s")
    parser.add_argument("--absent-percent", type=float, default=0.0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{_TITLE}\n{'---|' * 12}---:")
    for slots in arguments.max_downloads:
        print(measure(arguments, slots), flush=True)


if __name__ == "__main__":
    main()
