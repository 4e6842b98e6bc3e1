"""Rollouts over a simulated fleet that speaks the real protocol to a real server process.

python -m benchmarks.rollout_sim [--devices 10000] [--scenario NAME ...] [--results FILE]

Time is made to run fast by short polls and the options of `rollout start`, not in the server. Each
device has an address of its own in 127.0.0.0/8, so Linux only.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_OLDEST, _OLD, _NEW = "v0.9.0", "v1.0.0", "v1.1.0"
_OLDEST_SHARE = 0.2
_CHURN = 0.01
_REBOOT_SECONDS = 0.3
_TIMEOUT_SECONDS = 10.0
_SPREAD = 100.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Scenario:
    """What a release does to devices, or the world to all of them: shares of the fleet.

    Attributes:
        image_bytes: its size; cut_at: how many bytes from its end a transfer is cut.
        outage, kills: the server is away for so many seconds, or killed so often, in the middle.
        dark: devices that lose their power in the middle, for so many seconds.
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


SCENARIOS = (
    Scenario("good", True),
    Scenario("cut", True, cut=0.5),
    Scenario("outage", True, outage=20.0),
    Scenario("killed", True, kills=3),
    Scenario("power", True, dark=0.05),
    Scenario("boot", False, cannot_boot=0.3),
    Scenario("bricks", False, bricked=0.3),
    Scenario("one-version", False, cannot_boot=1.0, only_from=_OLDEST),
    Scenario("falls-back", False, falls_back=0.3),
)


@dataclass
class Count:
    """What became of the fleet: who has had a whole image, who runs it, at which second."""

    had: set[int] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    last_begin: float = 0.0
    refused: int = 0


class Device:
    """One device: it polls, downloads, and does what the scenario does to it."""

    def __init__(self, number: int, slow_seconds: float, scenario: Scenario, count: Count) -> None:
        chance = random.Random(number)
        self.number = number
        self.mac = f"02:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:" + (
            f"{number >> 8 & 255:02x}:{number & 255:02x}"
        )
        host = number + 256
        self.address = f"127.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}"
        self.interval = slow_seconds * _SPREAD ** -chance.random()
        self.version = _OLDEST if chance.random() < _OLDEST_SHARE else _OLD
        self.is_hit = scenario.only_from in (None, self.version)
        self.fate = chance.random()
        self.leaves_at = chance.random() * 3600 if chance.random() < _CHURN else None
        self.is_dark_at_times = chance.random() < scenario.dark
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

    async def _poll(self, world: "World") -> bool:
        """Ask once, and do what is told; False where the device is dead after that."""
        told = await self._get(world, "/version.txt", 64)
        if told is None or not told or told.decode() == self.version:
            return True
        image = await self._get(world, "/firmware.bin", self._scenario.image_bytes)
        if image is None or len(image) < self._scenario.image_bytes:
            return True
        version = told.decode()
        if version != _NEW:
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


class World:
    """The server, the fleet and the clock of one run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.room = asyncio.Semaphore(300)
        self.began = time.monotonic()
        self.is_over = self.is_dark = False
        self.port = 0
        self._log = (data_dir / "server.log").open("a")

    def serve(self) -> None:
        """Start the server, on the port that it had."""
        command = [sys.executable, "-m", "ota_server.server", "--data-dir", str(self.data_dir)]
        self.server = subprocess.Popen(
            [*command, "--port", str(self.port), "--host", "127.0.0.1"],
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
        self.server.send_signal(signum)
        self.server.communicate()

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


def _prepare(data_dir: Path, scenario: Scenario) -> None:
    for name in ("version", "firmware", "log"):
        (data_dir / name).mkdir()
    for version in (_OLDEST, _OLD, _NEW):
        image = random.Random(version).randbytes(scenario.image_bytes)
        (data_dir / "firmware" / f"firmware_{version}.bin").write_bytes(image)
    (data_dir / "version" / "version.txt").write_text(_OLD)


def _start(data_dir: Path, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "ota_server", "rollout", "start", _NEW, "--count-new"]
    command += ["--waves", "1,10,50,100", "--soak", f"{options.soak}s", "--apply-grace", "2s"]
    # Devices on the oldest version go on by themselves to the old one: before the rollout.
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)], cwd=_ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)


async def _run(scenario: Scenario, options: argparse.Namespace, data_dir: Path) -> dict[str, Any]:
    _prepare(data_dir, scenario)
    if scenario.only_from:
        # Else the target would take all to one version before the rollout begins.
        (data_dir / "version" / "groups").mkdir()
    world, count = World(data_dir), Count()
    world.serve()
    devices = [
        Device(number, options.slowest, scenario, count) for number in range(options.devices)
    ]
    if scenario.only_from:
        macs = [device.mac for device in devices if device.version == _OLDEST]
        (data_dir / "version" / "groups" / "oldest.txt").write_text("\n".join(macs))
        (data_dir / "version" / "targets.json").write_text(json.dumps({"oldest": _OLDEST}))
    lives = [asyncio.create_task(device.live(world)) for device in devices]
    await asyncio.sleep(options.slowest * 2.2)
    await asyncio.to_thread(_start, data_dir, options)
    began = time.monotonic()
    samples, stopped_at, kills, was_out = [], 0.0, scenario.kills, False
    while time.monotonic() - began < options.most:
        await asyncio.sleep(1.0)
        progress = world.progress()
        share = count.runs[_NEW] / options.devices
        second = round(time.monotonic() - began, 1)
        samples.append((second, len(count.had), count.runs[_NEW], progress["wave"]))
        if progress["state"] in ("halted", "done", "paused"):
            stopped_at = stopped_at or time.time()
            if progress["state"] != "done" or share > 1 - 2 * _CHURN:
                break
        is_middle = progress["wave"] >= 2 and share > 0.15
        if is_middle and scenario.outage and not was_out:
            was_out = True
            await world.outage(scenario.outage)
        if kills and share > 0.15 * (scenario.kills - kills + 1):
            kills -= 1
            await world.outage(1.0, signal.SIGKILL)
        world.is_dark = is_middle and share < 0.9
    begun_at_the_end = len(_begun(data_dir))
    await asyncio.sleep(options.slowest / 4)
    progress = world.progress()
    after_halt = len(_begun(data_dir)) - begun_at_the_end if progress["state"] == "halted" else 0
    world.is_over = True
    for life in lives:
        life.cancel()
    world.end()
    return {
        "scenario": scenario.name,
        "is_good": scenario.is_good,
        "devices": options.devices,
        "state": progress["state"],
        "reason": progress.get("reason", ""),
        "seconds": samples[-1][0],
        "had": len(count.had),
        "runs": count.runs[_NEW],
        "begun_after_halt": after_halt,
        "samples": samples,
    }


def _begun(data_dir: Path) -> list[str]:
    """Return the downloads of the new release that began."""
    found: list[str] = []
    for path in (data_dir / "log").glob("devices*.jsonl"):
        with path.open() as journal:
            found += [
                line
                for line in journal
                if f'"download_version":"{_NEW}"' in line and '"event":"begin"' in line
            ]
    return found


def main() -> int:
    """Run the scenarios; return 1 where one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--devices", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--slowest", type=float, default=60.0, help="longest poll, in seconds")
    parser.add_argument("--soak", type=int, default=30, help="in seconds (default: %(default)s)")
    parser.add_argument("--most", type=float, default=1200.0, help="seconds for each scenario")
    parser.add_argument("--scenario", action="append", choices=names, help="(default: all)")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    results = []
    for scenario in SCENARIOS:
        if options.scenario and scenario.name not in options.scenario:
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(_run(scenario, options, Path(folder)))
        result["is_right"] = _is_right(result)
        results.append(result)
        print(
            f"{'ok  ' if result['is_right'] else 'BAD '} {scenario.name:12} {result['state']:7} "
            f"after {result['seconds']:.0f} s, {result['had']} of {result['devices']} had it, "
            f"{result['begun_after_halt']} begun after the halt  {result['reason']}",
            flush=True,
        )
    if options.results:
        options.results.write_text(json.dumps(results) + os.linesep)
    return 0 if all(result["is_right"] for result in results) else 1


def _is_right(result: dict[str, Any]) -> bool:
    if result["is_good"]:
        return bool(result["state"] == "done" and result["runs"] > 0.97 * result["devices"])
    few = result["had"] < 0.02 * result["devices"]
    return bool(result["state"] == "halted" and few and not result["begun_after_halt"])


if __name__ == "__main__":
    sys.exit(main())
