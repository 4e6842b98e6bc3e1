"""A small fleet that speaks the real protocol, and rollouts made for seconds instead of days."""

import fcntl
import io
import json
import tempfile
import unittest
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

from ota_server.cli import main
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, format_plan, plan_name
from ota_server.rollouts.keeper import LOCK_NAME
from tests.support import Client, DataDirCase, Process, bare, until

OLD, NEW = "v1.0.0", "v2.0.0"
_PAUSE_SECONDS = 0.05
_TIMEOUT_SECONDS = 90.0  # a rollout is many steps, each late on a busy machine
IMAGES = {OLD: b"the old image " * 1000, NEW: b"the new image " * 1000}


def mac_of(number: int) -> str:
    """Return the MAC of a device by its number."""
    return f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"


class Fleet:
    """Devices that ask again and again, each with what it runs.

    Attributes:
        versions: what each device runs, by its MAC.
        told: the versions that devices were told, by how often.
        downloads: the versions of whole images that devices got, one for each.
        holders: the devices that got a whole image.
        off: the devices that do not ask, such as bricked ones.
    """

    def __init__(self, size: int, version: str = OLD) -> None:
        self.versions = dict.fromkeys(map(mac_of, range(size)), version)
        self.told: Counter[str] = Counter()
        self.downloads: list[str] = []
        self.holders: set[str] = set()
        self.off: set[str] = set()

    def ask(
        self, port: int, boots: Callable[[str], bool] = lambda _mac: True, fetches: bool = True
    ) -> None:
        """Have each device ask once, and take what it is told.

        Args:
            fetches: they get the image from the server, and not from a cache before it.
            boots: whether a device runs the new image after that; else it stays on what it had.
        """
        for mac, version in self.versions.items():
            if mac in self.off:
                continue
            told = self._get(port, "/version.txt", mac, version)
            self.told[told] += 1
            if (
                fetches
                and told
                and told != version
                and self._get(port, "/firmware.bin", mac, version)
            ):
                self.downloads.append(told)
                self.holders.add(mac)
                if boots(mac):
                    self.versions[mac] = told

    def _get(self, port: int, path: str, mac: str, version: str) -> str:
        """Return what is answered; "" where that is no 200, or nobody answers."""
        fields = {"_br_mac_": mac, "_br_fwv_": version, "Connection": "close"}
        try:
            with Client(port) as client:
                client.request(path, fields)
                answer = client.answer()
        except (OSError, AssertionError, ValueError):
            return ""
        return answer.body.decode("latin-1") if answer.status == 200 else ""


class FleetAtHome(Fleet):
    """A fleet of which so many devices live at each address, in 127.0.0.0/8 (Linux has them all).

    Each address has one connection, which is kept: a thousand devices ask in 0.2 s.

    Attributes:
        homes: the address of each device, by its MAC.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__(sum(sizes))
        macs = iter(self.versions)
        self.homes: dict[str, str] = {}
        for number, size in enumerate(sizes, start=1):
            self.homes.update(dict.fromkeys(islice(macs, size), f"127.0.1.{number}"))
        self._clients: dict[str, Client] = {}

    def move(self, address: str) -> None:
        """Have all devices ask from another address from now on."""
        self.homes = dict.fromkeys(self.homes, address)

    def hang_up(self) -> None:
        """Close all connections."""
        while self._clients:
            self._clients.popitem()[1].sock.close()

    def _get(self, port: int, path: str, mac: str, version: str) -> str:
        address = self.homes[mac]
        try:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = Client(port, source=address)
            client.request(path, {"_br_mac_": mac, "_br_fwv_": version})
            answer = client.answer()
        except (OSError, AssertionError, ValueError):
            client = self._clients.pop(address, None)
            if client is not None:
                client.sock.close()
            return ""
        return answer.body.decode("latin-1") if answer.status == 200 else ""


def write_images(folder: Path, images: Mapping[str, bytes] = IMAGES) -> None:
    """Make a folder with the images of both releases.

    An image is served only when it is two seconds old, and a link or a copy of it is new, while one
    in a folder that moves is not.
    """
    folder.mkdir()
    for version, content in images.items():
        (folder / f"firmware_{version}.bin").write_bytes(content)


def start_server(
    case: unittest.TestCase, data_dir: Path, *arguments: str, code: str | None = None
) -> Process:
    """Start a server that ends with the test."""
    server = Process("--data-dir", str(data_dir), *arguments, code=code)
    # Controllers end a moment after their server, and write a last checkpoint.
    case.addCleanup(lambda: case.assertTrue(until(lambda: have_all_ended(data_dir))))
    case.addCleanup(server.kill)
    return server


def have_all_ended(data_dir: Path) -> bool:
    """Return whether no controller is left, of no product either."""
    return all(map(is_no_controller_there, (data_dir, *data_dir.glob("products/*"))))


def is_no_controller_there(data_dir: Path) -> bool:
    """Return whether no controller holds its lock."""
    path = data_dir / "log" / LOCK_NAME
    if not path.exists():
        return True
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def run_rollout(data_dir: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `rollout`; return the exit code, what it printed, and what it complained about."""
    return run_command(data_dir, "rollout", *arguments)


def run_command(data_dir: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command; return the exit code, what it printed, and what it complained about."""
    code, out, err = run_main(*arguments, "--data-dir", str(data_dir))
    return code, bare(out), bare(err)


def run_main(*arguments: str) -> tuple[int, str, str]:
    """Run a command, with its hints as it gives them; return the same as `run_command`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([*arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def read_progress(data_dir: Path, name: str = "progress.json") -> dict[str, Any]:
    """Return how far a rollout is; {} where there is none yet."""
    try:
        progress: dict[str, Any] = json.loads((data_dir / "version" / name).read_bytes())
    except FileNotFoundError:
        return {}
    return progress


class RolloutCase(DataDirCase):
    """A data directory with two releases, the fleet on the old one, servers and rollouts on it."""

    images: "tempfile.TemporaryDirectory[str]"
    IMAGES: Mapping[str, bytes] = IMAGES

    @classmethod
    def setUpClass(cls) -> None:
        # A folder for each test, made for all at once: only the first one waits for its age.
        cls.images = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.images.cleanup)
        for name in unittest.defaultTestLoader.getTestCaseNames(cls):
            write_images(Path(cls.images.name) / name, cls.IMAGES)

    def setUp(self) -> None:
        super().setUp()
        (Path(self.images.name) / self._testMethodName).rename(self.data_dir / "firmware")
        self.set_target(OLD)
        self.devices = Fleet(60)

    def serve(self, *arguments: str, code: str | None = None) -> Process:
        """Start a server that ends with the test."""
        return start_server(self, self.data_dir, *arguments, code=code)

    def roll_out(self, **changes: Any) -> RolloutPlan:
        """Write the plan of a rollout that takes seconds, as `rollout start` does."""
        plan = RolloutPlan(
            id=f"id-{len(list((self.data_dir / 'version').iterdir()))}",
            version=NEW,
            group="",
            waves=(10.0, 50.0, 100.0),
            time=format_time(0),
            instead_of=OLD,
            min_devices=3,
            soak_seconds=0.3,
            grace_seconds=0.5,
            count_new=True,
        )
        plan = plan._replace(**changes)
        self.write_plan(plan)
        return plan

    def write_plan(self, plan: RolloutPlan) -> None:
        """Replace the plan."""
        temporary = self.data_dir / "version" / "plan.new"
        temporary.write_bytes(format_plan(plan))
        temporary.replace(self.data_dir / "version" / plan_name(plan.group))

    def progress(self, name: str = "progress.json") -> dict[str, Any]:
        """Return how far a rollout is; {} where there is none yet."""
        return read_progress(self.data_dir, name)

    def state(self) -> str:
        """Return the state of the rollout to the fleet."""
        return str(self.progress().get("state"))

    def ask_until(self, server: Process, is_so: Callable[[], bool], **more: Any) -> None:
        """Have the fleet ask until something is so."""

        def so_after_a_round() -> bool:
            self.devices.ask(server.port, **more)
            return is_so()

        # The pause is for the server: in less time not much can have come of a round.
        if not until(so_after_a_round, _TIMEOUT_SECONDS, _PAUSE_SECONDS):
            self.fail(f"{self.progress()}\n{server.end()[1]}")
