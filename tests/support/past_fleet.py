"""A fleet of several families with a month behind it: devices that a real server has answered.

Its past goes over the device port too. The server of that time has a clock that is set by us; the
server that operators then look at is another one, with the real time, on the same data directory.
"""

import json
import mmap
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.system.clock import now_ms
from tests.support.client import Answer, Client
from tests.support.fleet import run_command
from tests.support.images import esp32_image
from tests.support.server import Process
from tests.support.updaters import version_in

OLDEST, OLDER, TARGET = "v1.8.2", "v1.9.0", "v1.9.4"
PILOT, PILOTS = "pilot", 120
# So many devices with numbers in a row are of one family, then as many of the next one. The shop
# that tries releases first has none of the last family.
_BLOCK = 10
FAMILIES = ("br", "esphome", "br", "curl", "esphome", "br", "esphome", "br", "curl", "mongoose")
_AGENTS = {"esphome": "ESPHome/2026.10.0", "curl": "curl/8.5.0"}
_PLACES = ("kitchen", "hall", "cellar", "roof", "gate", "workshop")
# So many connections have all devices.
_CONNECTIONS = 40
# Replies that nobody has read yet stay far below what a socket takes.
_PIPELINED = 100
# The server closes a connection that says nothing for longer.
_IDLE_SECONDS = 2.0
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
# How a server is started for these devices: they speak through a proxy, or all would have the
# address of this machine.
ARGUMENTS = ("--trusted-proxy", "127.0.0.1")
_CLOCK_CODE = """
import mmap, sys
from ota_server.system import clock
with open({path!r}, "r+b") as file:
    shared = mmap.mmap(file.fileno(), 8)
clock.now_ms = lambda: int.from_bytes(shared[:8], "little")
from ota_server.server import main
sys.exit(main())
"""


class PastCheck(NamedTuple):
    """A check that a device made: when, which one, and what it ran."""

    time_ms: int
    number: int
    version: str


class Told(NamedTuple):
    """What a device was told: the version, and where the image is; "": it has it already."""

    version: str
    path: str


def mac_of(number: int) -> str:
    """Return the MAC of a device by its number."""
    return f"24:0a:c4:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def address_of(number: int) -> str:
    """Return the address of a device, as the proxy says it; no two are behind one."""
    return f"198.18.{number >> 8}.{number & 255}"


def family_of(number: int) -> str:
    """Return the family of a device."""
    return FAMILIES[number // _BLOCK % len(FAMILIES)]


def pilots() -> list[int]:
    """Return the devices of the group that tries releases first; all run the target."""
    found = (each for each in range(0, 10 * PILOTS, 2) if family_of(each) != FAMILIES[-1])
    return [number for number, _ in zip(found, range(PILOTS), strict=False)]


def request_of(number: int, version: str, path: str = "") -> bytes:
    """Return the request by which a device asks for its version, or for `path`."""
    family, mac = family_of(number), mac_of(number)
    lines = [f"User-Agent: {_AGENTS.get(family)}"]
    if family == "br":
        path, lines = path or "/version.txt", [f"_br_mac_: {mac}", f"_br_fwv_: {version}"]
    elif family == "mongoose":
        digits = mac.replace(":", "").upper()
        path, lines = "/firmware.bin", [f"X-MGOS-Device-ID: esp32_{digits[-6:]} {digits}"]
        lines.append(f"X-MGOS-FW-Version: esp32 {version} 20260101-120000/g1234567")
    elif not path:
        name = "manifest.json" if family == "esphome" else "version.txt"
        path = f"/d/{mac}/{version}/{name}"
    lines.append(f"X-Forwarded-For: {address_of(number)}")
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: ota", *lines, "", "")).encode("ascii")


def told_by(number: int, version: str, answer: Answer) -> Told:
    """Return what the reply to a check says."""
    family = family_of(number)
    if answer.status == 304:
        return Told(version, "")
    assert answer.status == 200, (number, answer)
    if family == "mongoose":
        return Told(version_in(answer.body), "")  # it has the image by now
    if family == "esphome":
        manifest = json.loads(answer.body)
        path = manifest["builds"][0]["ota"]["path"]
        base = "" if path.startswith("/") else f"/d/{mac_of(number)}/{version}/"
        return Told(manifest["version"], base + path)
    path = "/firmware.bin" if family == "br" else f"/d/{mac_of(number)}/{version}/firmware.bin"
    return Told(answer.body.decode("ascii"), path)


class PastFleet:
    """Devices that ask a server, some on each connection.

    Attributes:
        runs: what each device runs, by its number.
    """

    def __init__(self, port: int, runs: dict[int, str]) -> None:
        self.runs = runs
        self._port = port
        self._clients: dict[int, Client] = {}
        self._used_at: dict[int, float] = {}

    def close(self) -> None:
        """Close all connections."""
        for at in [*self._clients]:
            self._hang_up(at)

    def _client(self, number: int) -> Client:
        at, now = number % _CONNECTIONS, time.monotonic()
        if now - self._used_at.get(at, now) > _IDLE_SECONDS:
            self._hang_up(at)
        if at not in self._clients:
            self._clients[at] = Client(self._port)
        self._used_at[at] = now
        return self._clients[at]

    def _hang_up(self, at: int) -> None:
        """Close a connection, if it is there."""
        client = self._clients.pop(at, None)
        if client is not None:
            client.sock.close()

    def ask(self, numbers: Iterable[int]) -> dict[int, Told]:
        """Have devices ask for their version; return what each was told.

        Those whose connection ends are left out, and ask again next time: a rollout that halts
        ends the downloads of its release.
        """
        by_connection: dict[int, list[int]] = {}
        for number in numbers:
            by_connection.setdefault(number % _CONNECTIONS, []).append(number)
        told: dict[int, Told] = {}
        for at, asked in by_connection.items():
            try:
                for begin in range(0, len(asked), _PIPELINED):
                    told.update(self._ask_at_once(asked[begin : begin + _PIPELINED]))
            except (ConnectionError, ValueError):  # reset, or closed before a reply
                self._hang_up(at)
        return told

    def _ask_at_once(self, numbers: list[int]) -> Iterator[tuple[int, Told]]:
        client = self._client(numbers[0])
        client.send(b"".join(request_of(each, self.runs[each]) for each in numbers))
        for number in numbers:
            yield number, told_by(number, self.runs[number], client.answer())

    def step(
        self, numbers: Iterable[int], boots: Callable[[int], bool] = lambda _: True
    ) -> dict[int, str]:
        """Have devices ask and take what they are told; return what they fetched.

        Args:
            boots: whether a device runs the new image after that; else it stays on what it had.
        """
        fetched = {}
        for number, told in self.ask(numbers).items():
            if told.version == self.runs[number]:
                continue
            if told.path and not self._fetch(number, told.path):
                continue
            fetched[number] = told.version
            if boots(number):
                self.runs[number] = told.version
        return fetched

    def _fetch(self, number: int, path: str) -> bool:
        """Fetch an image; return whether it came whole."""
        client = self._client(number)
        try:
            client.send(request_of(number, self.runs[number], path))
            answer = client.answer()
        except (ConnectionError, ValueError):
            self._hang_up(number % _CONNECTIONS)
            return False
        length = int(answer.fields.get("content-length", "-1"))
        return answer.status == 200 and len(answer.body) == length


def operate(data_dir: Path, *arguments: str) -> str:
    """Run a command, which must succeed; return what it printed."""
    code, out, err = run_command(data_dir, *arguments)
    assert code == 0, err
    return out


def prepare_past(data_dir: Path) -> None:
    """Make a data directory with three releases, a group and labels."""
    data_dir.mkdir(exist_ok=True)
    image = data_dir / "build.bin"
    for version, notes in (
        (OLDEST, "The first release that all shops run."),
        (OLDER, "Fixes the clock after a power cut."),
        (TARGET, "Takes half the memory; sensors are read twice a second."),
    ):
        image.write_bytes(esp32_image(version))
        operate(data_dir, "release", "publish", str(image), "--version", version, "--notes", notes)
    image.unlink()
    operate(data_dir, "release", "activate", TARGET)
    groups = data_dir / "version" / "groups"
    groups.mkdir(exist_ok=True)
    (groups / f"{PILOT}.txt").write_text("".join(f"{mac_of(each)}\n" for each in pilots()))
    labels = {mac_of(each): f"{_PLACES[each % 6]} {each // 6 + 1}" for each in range(1500)}
    (data_dir / "version" / "labels.json").write_text(json.dumps(labels))


def live_through(data_dir: Path, devices: int) -> dict[int, str]:
    """Have a fleet live through a month that ends now; return what each device runs."""
    batches: dict[int, list[PastCheck]] = {}
    for check in _past_of(now_ms(), devices):
        batches.setdefault(check.time_ms, []).append(check)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        shared = mmap.mmap(file.fileno(), 8)
        shared[:8] = min(batches).to_bytes(8, "little")
        code = _CLOCK_CODE.format(path=file.name)
        server = Process("--data-dir", str(data_dir), *ARGUMENTS, code=code)
        fleet = PastFleet(server.port, {})
        try:
            for time_ms in sorted(batches):
                shared[:8] = time_ms.to_bytes(8, "little")
                fleet.runs.update((each.number, each.version) for each in batches[time_ms])
                fleet.ask(each.number for each in batches[time_ms])
        finally:
            fleet.close()
            server.end()
            shared.close()
    return fleet.runs


def _past_of(now: int, devices: int) -> Iterator[PastCheck]:
    """Yield what devices did, for each in order of time."""
    at_first, silent = {*pilots()}, {*away(devices)}
    for number in range(devices):
        # They update one after the other; some not yet, some that were not heard from since.
        share = 0.0 if number in at_first else number % 97 / 97
        first = now - 30 * _DAY_MS + number * 7919 % 24 * _HOUR_MS
        version = OLDEST
        yield PastCheck(first, number, version)
        # No device polls more than three times: one with three gaps on record would be a slow
        # poller, for which rollouts wait for days.
        if share < 0.7:
            version = TARGET
            yield PastCheck(now - int((12 - 8 * share) * 24) * _HOUR_MS, number, version)
        elif share < 0.9:
            version = OLDER
            yield PastCheck(now - int((36 - 18 * share) * 24) * _HOUR_MS, number, version)
        if number not in silent:
            minutes = 3 if number in at_first else 3 + number * 7919 % 50
            yield PastCheck(now - minutes * 60_000, number, version)


def away(devices: int) -> list[int]:
    """Return the devices that were not heard from for days."""
    return sorted({*range(7, devices, 25)} - {*pilots()})


def count_versions(runs: dict[int, str]) -> Counter[str]:
    """Return how many devices run each version."""
    return Counter(runs.values())
