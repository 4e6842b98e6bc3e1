"""SWUpdate's daemon goes through updates of signed bundles by hawkBit's API, under a rollout."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support import until
from tests.support.fleet import read_progress
from tests.support.gateways import SwuCase
from tests.support.real_clients import SMALL, needs, needs_images, needs_packages

CONFIG = """
globals: {{ verbose = false; }};
suricatta: {{ }};
identify: ({{ name = "version"; value = "{version}"; }});
"""
PAUSE_SECONDS = 0.05
STEP_SECONDS = 60.0
TO_ALL_AT_ONCE = ("--waves", "100", "--soak", "0s", "--count-new", "--min-devices", "2")
SUCCESS = "2"


class Gateway:
    """A gateway with SWUpdate's daemon; what it starts ends with the test."""

    def __init__(self, case: "SuricattaTest", name: str) -> None:
        self.name = name
        self._case = case
        # Sockets stand in TMPDIR: so daemons can run side by side.
        self.folder = case.folder / name
        self.folder.mkdir()
        self.restarts = self.folder / "restarts"
        self._daemon: subprocess.Popen[str] | None = None

    @property
    def _env(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    def start(self, version: str, confirm: str = "") -> None:
        """Start the daemon on a gateway that runs a version.

        Args:
            confirm: how the update that was installed before the restart went, as `-c` takes it.
        """
        config = self.folder / "swupdate.cfg"
        config.write_text(CONFIG.format(version=version))
        server = f"-t DEFAULT -u http://127.0.0.1:{self._case.port} -i {self.name}"
        if confirm:
            server += f" -c {confirm}"
        command = ["swupdate", "-l", "5", "-f", config, "-k", self._case.certificate]
        # What would restart the gateway after an update writes a file.
        command += ["-H", "test:1.0", "-M", "-m", "-p", f"touch {self.restarts}", "-u", server]
        self._daemon = self._case.start_client(command, self._env)

    def poll_each_second(self) -> None:
        """Have the daemon poll each second, and not when the server says.

        It is told once, while it is idle: while it installs something, it takes this for the end.
        """
        for option in (("-p", "1"), ("-t",)):
            self._case.run_client(["swupdate-ipc", "hawkbitcfg", *option], self._env)

    def end(self) -> str:
        """Cut the power; return what the daemon said."""
        assert self._daemon is not None
        self._daemon.kill()
        return self._daemon.communicate()[0]


@needs_images
@needs("swupdate", "swupdate-ipc", "openssl")
@needs_packages("swugenerator")
class SuricattaTest(SwuCase):
    def setUp(self) -> None:
        super().setUp()
        self.give(self.bundle(SMALL.image, self.folder / "old", "v1.0.0"), "v1.0.0")
        self.gateways = [Gateway(self, f"gw-{number}") for number in (1, 2)]

    def roll_out(self, bundle: Path, version: str) -> None:
        """Begin a rollout to the gateways, which have polled and run v1.0.0."""
        for gateway in self.gateways:
            gateway.start("v1.0.0")
        self.wait_until(lambda: self.versions() == ["v1.0.0", "v1.0.0"])
        for gateway in self.gateways:
            gateway.poll_each_second()
        self.operate("release", "publish", bundle, "--version", version)
        self.operate("rollout", "start", version, *TO_ALL_AT_ONCE)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what the gateways bring about."""
        if not until(is_so, STEP_SECONDS, PAUSE_SECONDS):
            said = [gateway.end() for gateway in self.gateways]
            self.fail("\n".join([str(read_progress(self.data_dir)), *said]))

    def versions(self) -> list[str]:
        """Return what the gateways run, as the table shows it."""
        rows = map(json.loads, self.operate("devices", "--json").splitlines())
        return [row["firmware_version"] for row in rows]

    def state(self) -> str:
        return str(read_progress(self.data_dir).get("state"))

    def test_gateways_are_updated_and_say_so_after_their_restart(self):
        installed = self.folder / "installed"
        self.roll_out(self.bundle(SMALL.next_image, installed), "v2.0.0")
        self.wait_until(lambda: all(each.restarts.exists() for each in self.gateways))
        self.assertEqual(installed.read_bytes(), SMALL.next_image)
        self.assertEqual(self.versions(), ["v1.0.0", "v1.0.0"])
        for gateway in self.gateways:
            gateway.end()
            gateway.start("v2.0.0", SUCCESS)
        self.wait_until(lambda: self.state() == "done")
        self.assertEqual(self.versions(), ["v2.0.0", "v2.0.0"])
        self.assertEqual(self.device("id:gw-1")["state"], "up to date")

    def test_a_release_whose_script_fails_is_halted(self):
        bundle = self.bundle(SMALL.next_image, self.folder / "installed", check="exit 1")
        self.roll_out(bundle, "v2.0.0")
        self.wait_until(lambda: self.state() == "halted")
        self.assertEqual(self.versions(), ["v1.0.0", "v1.0.0"])

    def test_a_release_that_another_key_has_signed_is_halted(self):
        ours = self.key, self.certificate
        self.key, self.certificate = self.make_key("another")
        bundle = self.bundle(SMALL.next_image, self.folder / "installed")
        self.key, self.certificate = ours
        self.roll_out(bundle, "v2.0.0")
        self.wait_until(lambda: self.state() == "halted")
        self.assertFalse((self.folder / "installed").exists())
