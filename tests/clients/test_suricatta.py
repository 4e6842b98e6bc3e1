"""SWUpdate's daemon goes through updates of signed bundles by hawkBit's API, under a rollout."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support import until
from tests.support.fleet import read_progress
from tests.support.gateways import SwuCase
from tests.support.real_clients import SMALL, needs, needs_images, needs_packages

# SWUpdate sends the line end as it is, which JSON does not allow.
CONFIG = """
globals: {{ verbose = false; }};
suricatta: {{ }};
identify: (
    {{ name = "site"; value = "first line\\nsecond line"; }},
    {{ name = "version"; value = "{version}"; }}
);
"""
PAUSE_SECONDS = 0.05
STEP_SECONDS = 60.0
# A try of a gateway takes three seconds, some more on a busy machine.
TRY_SECONDS, TRIES = 20.0, 4
TO_ALL_AT_ONCE = ("--waves", "100", "--soak", "0s", "--count-new", "--min-devices", "2")
SUCCESS = "2"


class Gateway:
    """A gateway with SWUpdate's daemon; what it starts ends with the test."""

    def __init__(self, case: "SuricattaCase", name: str, port: int) -> None:
        self.name = name
        self._case = case
        self._port = port
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
        server = f"-t DEFAULT -u http://127.0.0.1:{self._port} -i {self.name}"
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


class SuricattaCase(SwuCase):
    """Gateways, and a release that they run."""

    gateways: list[Gateway]

    def setUp(self) -> None:
        super().setUp()
        self.give(self.bundle(SMALL.image, self.folder / "old", "v1.0.0"), "v1.0.0")
        self.installed = self.folder / "installed"

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what the gateways bring about."""
        if not until(is_so, STEP_SECONDS, PAUSE_SECONDS):
            # The end of what each has said: all of it is longer than what CI shows.
            said = ["\n".join(each.end().splitlines()[-80:]) for each in self.gateways]
            self.fail("\n".join([str(read_progress(self.data_dir)), *said]))

    def versions(self) -> list[str]:
        """Return what the gateways run, as the table shows it."""
        rows = map(json.loads, self.operate("devices", "--json").splitlines())
        return [row["firmware_version"] for row in rows]


@needs_images
@needs("swupdate", "swupdate-ipc", "openssl")
@needs_packages("swugenerator")
class SuricattaTest(SuricattaCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateways = [Gateway(self, f"gw-{number}", self.port) for number in (1, 2)]

    def roll_out(self, bundle: Path, version: str) -> None:
        """Begin a rollout to the gateways, which have polled and run v1.0.0."""
        for gateway in self.gateways:
            gateway.start("v1.0.0")
        self.wait_until(lambda: self.versions() == ["v1.0.0", "v1.0.0"])
        for gateway in self.gateways:
            gateway.poll_each_second()
        self.operate("release", "publish", bundle, "--version", version)
        self.operate("rollout", "start", version, *TO_ALL_AT_ONCE)

    def state(self) -> str:
        return str(read_progress(self.data_dir).get("state"))

    def test_gateways_are_updated_and_say_so_after_their_restart(self):
        self.roll_out(self.bundle(SMALL.next_image, self.installed), "v2.0.0")
        self.wait_until(lambda: all(each.restarts.exists() for each in self.gateways))
        self.assertEqual(self.installed.read_bytes(), SMALL.next_image)
        self.assertEqual(self.versions(), ["v1.0.0", "v1.0.0"])
        for gateway in self.gateways:
            gateway.end()
            gateway.start("v2.0.0", SUCCESS)
        self.wait_until(lambda: self.state() == "done")
        self.assertEqual(self.versions(), ["v2.0.0", "v2.0.0"])
        self.assertEqual(self.device("id:gw-1")["state"], "up to date")

    def wait_for_the_halt(self) -> None:
        """Wait until the rollout is halted, and cut the power of gateways that hang.

        On a busy machine SWUpdate 2022.12 sometimes misses that its installation has ended, and
        says and asks nothing any more: 2 of 40 gateways beside seven others.
        """
        for _ in range(TRIES - 1):
            if until(lambda: self.state() == "halted", TRY_SECONDS, PAUSE_SECONDS):
                return
            for gateway in self.gateways:
                gateway.end()
                gateway.start("v1.0.0")
        self.wait_until(lambda: self.state() == "halted")

    def test_a_release_whose_script_fails_is_halted(self):
        bundle = self.bundle(SMALL.next_image, self.installed, check="exit 1")
        self.roll_out(bundle, "v2.0.0")
        self.wait_for_the_halt()
        self.assertEqual(self.versions(), ["v1.0.0", "v1.0.0"])

    def test_a_release_that_another_key_has_signed_is_halted(self):
        ours = self.key, self.certificate
        self.key, self.certificate = self.make_key("another")
        bundle = self.bundle(SMALL.next_image, self.installed)
        self.key, self.certificate = ours
        self.roll_out(bundle, "v2.0.0")
        self.wait_for_the_halt()
        self.assertFalse(self.installed.exists())


@needs_images
@needs("swupdate", "swupdate-ipc", "openssl")
@needs_packages("swugenerator")
class FieldTest(SuricattaCase):
    """What goes wrong between SWUpdate and other servers, and must not happen here."""

    def setUp(self) -> None:
        super().setUp()
        self.link = self.weak_link()
        self.gateway = Gateway(self, "gw-1", self.link.port)
        self.gateways = [self.gateway]

    def start(self, check: str = "exit 0", is_held: bool = False) -> None:
        """Start a gateway that polls each second, with an update that is given to all."""
        self.give(self.bundle(SMALL.next_image, self.installed, check=check), "v2.0.0")
        if is_held:
            self.operate("hold", "--reason", "night")
        self.gateway.start("v1.0.0")
        self.wait_until(lambda: b"/configData" in self.link.requests)
        self.wait_until(lambda: self.versions() == ["v1.0.0"])
        self.gateway.poll_each_second()

    def messages(self) -> list[bytes]:
        """Return the bodies of what the gateway has sent."""
        sent = self.link.requests
        lengths = re.finditer(rb"\r\nContent-Length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n", sent)
        return [sent[each.end() : each.end() + int(each[1])] for each in lengths]

    def polls(self) -> int:
        return self.link.requests.count(b"GET /DEFAULT/controller/v1/gw-1 ")

    def test_the_link_for_attributes_stays_and_no_update_begins(self):
        self.start()
        self.wait_until(self.gateway.restarts.exists)
        self.wait_until(self.installed.exists)
        self.assertEqual(self.installed.read_bytes(), SMALL.next_image)
        self.assertEqual(self.link.requests.count(b"PUT /DEFAULT/"), 1)

    def test_feedback_is_answered_204_and_the_image_is_never_fetched(self):
        self.start()
        self.wait_until(self.gateway.restarts.exists)
        said = self.gateway.end()
        self.assertIn(b"/feedback ", self.link.requests)
        statuses = set(re.findall(r"^< HTTP/1.1 (\d+)", said, re.MULTILINE))
        self.assertEqual(statuses - {"100"}, {"200"})

    def test_an_update_that_has_to_wait_is_reported_as_installed(self):
        self.start(is_held=True)
        polls = self.polls()
        self.wait_until(lambda: self.polls() > polls + 2)
        self.assertNotIn(b"/feedback ", self.link.requests)
        self.assertEqual(self.versions(), ["v1.0.0"])
        self.operate("unhold")
        self.wait_until(self.gateway.restarts.exists)
        self.assertNotIn("Skipped", self.gateway.end())
        self.assertEqual(self.installed.read_bytes(), SMALL.next_image)

    def test_line_ends_within_its_strings_hide_the_version_and_the_failure(self):
        self.start(check="echo one; echo two >&2; exit 1")
        self.wait_until(lambda: bool(self.records(event="feedback", finished="failure")))
        failed = self.records(event="feedback", finished="failure")[0]
        self.assertEqual((failed["action_state"], failed["firmware_version"]), ("failed", "v1.0.0"))
        (broken,) = (each for each in self.messages() if b"\n" in each)
        self.assertRaises(ValueError, json.loads, broken)
