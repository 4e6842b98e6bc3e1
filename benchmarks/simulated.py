"""A simulated fleet: devices that poll, download and fail, and the server that they ask."""

import asyncio
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
OLDEST, OLD, NEW = "v0.9.0", "v1.0.0", "v1.1.0"
_OLDEST_SHARE = 0.2
CHURN = 0.01
_REBOOT_SECONDS = 0.3
_TIMEOUT_SECONDS = 10.0
_SPREAD = 100.0
SHAPES = ("own", "nat", "shops", "homes", "mobile")
_SHOPS = 20
_HOME = 3  # devices
_CARRIER = 2000  # addresses
# A mobile device has another address after so many polls, from and to.
_POLLS_TO_MOVE = (2, 6)
_DARK_OF = 20
_AT_ONCE = 300
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class SimulatedScenario:
    """What a release does to devices, or the world to all of them: shares of the fleet.

    Attributes:
        image_bytes: its size; cut_at: how many bytes from its end a transfer is cut.
        outage, kills: the server is away for so many seconds, or killed so often, in the middle.
        dark: devices that lose their power in the middle: those of a site, where there are sites.
    """

    name: str
    is_good: bool
    cannot_boot: float = 0.0
    bricked: float = 0.0
    falls_back: float = 0.0
    only_from: str | None = None
    cut: float = 0.0
    image_bytes: int = 50_000
    outage: float = 0.0
    kills: int = 0
    dark: float = 0.0


@dataclass
class FleetCount:
    """What became of the fleet: who has had a whole image, who runs it, at which second."""

    had: set[int] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    last_begin: float = 0.0
    refused: int = 0


class SimulatedDevice:
    """One device: it polls, downloads, and does what the scenario does to it."""

    def __init__(
        self,
        number: int,
        slow_seconds: float,
        scenario: SimulatedScenario,
        count: FleetCount,
        shape: str = "own",
    ) -> None:
        chance = random.Random(number)
        self.number = number
        self.mac = f"02:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:" + (
            f"{number >> 8 & 255:02x}:{number & 255:02x}"
        )
        self.interval = slow_seconds * _SPREAD ** -chance.random()
        self.version = OLDEST if chance.random() < _OLDEST_SHARE else OLD
        self.is_hit = scenario.only_from in (None, self.version)
        self.fate = chance.random()
        self.leaves_at = chance.random() * 3600 if chance.random() < CHURN else None
        self.is_dark_at_times = _neighbours(number, shape) % _DARK_OF < scenario.dark * _DARK_OF
        is_at_site = shape == "own" and self.is_dark_at_times
        self.address = _address(number, "nat" if is_at_site else shape)
        self._moves_in = 0 if shape == "mobile" else None  # polls
        self._chance, self._scenario, self._count = chance, scenario, count
        count.runs[self.version] += 1

    async def live(self, world: "World") -> None:
        """Poll until the world ends, or the device does."""
        await asyncio.sleep(self.interval * self._chance.random())
        while not world.is_over:
            began = time.monotonic()
            if self.leaves_at is not None and began - world.began > self.leaves_at:
                return
            if not (self.is_dark_at_times and world.is_dark) and not await self._poll(world):
                return
            await asyncio.sleep(self.interval * self._chance.uniform(0.9, 1.1))

    @property
    def is_harmed(self) -> bool:
        """Whether the release does it harm."""
        scenario = self._scenario
        harmed = max(scenario.cannot_boot, scenario.bricked, scenario.falls_back)
        return self.is_hit and self.fate < harmed

    def _move(self) -> None:
        """Have another address after some polls, if it is a mobile device."""
        if self._moves_in is None:
            return
        self._moves_in -= 1
        if self._moves_in < 0:
            self.address = _address(self._chance.randrange(_CARRIER), "mobile")
            self._moves_in = self._chance.randint(*_POLLS_TO_MOVE)

    async def told(self, world: "World") -> bytes | None:
        """Return which version it is told to run, also in a world that is frozen."""
        return await self._exchange(world, "/version.txt", 64)

    async def _poll(self, world: "World") -> bool:
        """Ask once, and do what is told; False where the device is dead after that."""
        self._move()
        told = await self._get(world, "/version.txt", 64)
        if told is None or not told or told.decode() == self.version:
            return True
        image = await self._get(world, "/firmware.bin", self._scenario.image_bytes)
        if image is None or len(image) < self._scenario.image_bytes:
            return True
        version = told.decode()
        if version != NEW:
            self._run(version)
            return True
        self._count.had.add(self.number)
        scenario, fate = self._scenario, self.fate if self.is_hit else 1.0
        if fate < scenario.bricked:
            return False
        await asyncio.sleep(_REBOOT_SECONDS)
        if fate < scenario.cannot_boot:
            return True
        before = self.version
        self._run(version)
        if fate < scenario.falls_back:
            await self._get(world, "/version.txt", 64)
            await asyncio.sleep(self.interval)
            self._run(before)
        return True

    def _run(self, version: str) -> None:
        self._count.runs[self.version] -= 1
        self._count.runs[version] += 1
        self.version = version

    async def _get(self, world: "World", path: str, most: int) -> bytes | None:
        await world.moving.wait()
        return await self._exchange(world, path, most)

    async def _exchange(self, world: "World", path: str, most: int) -> bytes | None:
        """Return a body, or as much as came of it; None where nobody answered 200."""
        is_cut = path == "/firmware.bin" and self._chance.random() < self._scenario.cut
        try:
            async with world.room, asyncio.timeout(_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", world.port, local_addr=(self.address, 0)
                )
                try:
                    writer.write(
                        f"GET {path} HTTP/1.1\r\nHost: ota\r\n_br_mac_: {self.mac}\r\n"
                        f"_br_fwv_: {self.version}\r\nConnection: close\r\n\r\n".encode()
                    )
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 200 " not in head:
                        return None
                    if path == "/firmware.bin":
                        self._count.last_begin = time.time()
                    stop = most - self._chance.randrange(1, 16_000) if is_cut else most
                    if is_cut:
                        body = await reader.readexactly(stop)
                        # What the kernel took already must not look like a whole download.
                        sock = writer.transport.get_extra_info("socket")
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        writer.transport.abort()
                        return body
                    return await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self._count.refused += 1
            return None


def _neighbours(number: int, shape: str) -> int:
    """Return the number of what loses its power at once: a shop, a home or a device."""
    if shape == "shops":
        return number % _SHOPS
    return number // _HOME if shape == "homes" else number


def _address(number: int, shape: str) -> str:
    """Return the address of a device in 127.0.0.0/8; of a mobile one, one of its carrier's."""
    if shape == "nat":
        return "127.200.0.1"
    if shape == "shops":
        return f"127.200.1.{number % _SHOPS + 1}"
    host = number // _HOME if shape == "homes" else number
    host += 256  # 127.0.0.1 is the server's
    net = {"own": 0, "homes": 64, "mobile": 128}[shape]
    return f"127.{net + (host >> 16 & 63)}.{host >> 8 & 255}.{host & 255}"


class World:
    """The server, the fleet and the clock of one run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.room = asyncio.Semaphore(_AT_ONCE)
        self.moving = asyncio.Event()
        self.moving.set()
        self.began = time.monotonic()
        self.is_over = self.is_dark = False
        self.port = 0
        self._log = (data_dir / "server.log").open("a")

    def serve(self) -> None:
        """Start the server, on the port that it had."""
        command = [sys.executable, "-m", "ota_server.server", "--data-dir", str(self.data_dir)]
        self.server = subprocess.Popen(
            [*command, "--port", str(self.port), "--host", "127.0.0.1", "--no-admin"],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.server.stdout is not None
        for line in self.server.stdout:
            if "listening" in line:
                self.port = int(line.split("//")[1].split("/")[0].rsplit(":", 1)[1])
                return
        raise SystemExit(f"no server: {self.data_dir / 'server.log'}")

    def end(self, signum: int = signal.SIGTERM) -> None:
        """End the server."""
        if self.server.poll() is None:
            self.server.send_signal(signum)
        self.server.communicate()

    def kill(self) -> None:
        """Kill the server and its controller (SIGKILL)."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text()
        for process in [*map(int, children.split()), self.server.pid]:
            os.kill(process, signal.SIGKILL)
        self.server.communicate()

    async def freeze(self) -> None:
        """Have no device begin anything, and wait for what was begun."""
        self.moving.clear()
        for _ in range(_AT_ONCE):
            await self.room.acquire()
        for _ in range(_AT_ONCE):
            self.room.release()

    def progress(self) -> dict[str, Any]:
        """Return how far the rollout is."""
        try:
            progress: dict[str, Any] = json.loads(
                (self.data_dir / "version" / "progress.json").read_bytes()
            )
        except FileNotFoundError:
            return {"state": "waiting", "wave": 0, "counts": {}}
        return progress

    async def outage(self, seconds: float, signum: int = signal.SIGTERM) -> None:
        """Have the server be away for a while."""
        self.end(signum)
        await asyncio.sleep(seconds)
        self.serve()
