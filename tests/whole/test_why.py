"""A server and `why` as processes of their own: what the one alone knows the other says."""

import json
import socket
import subprocess
import sys
import time
import unittest
import urllib.request
from contextlib import suppress
from hashlib import sha256

from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.rollouts.keeper import LOCK_NAME
from ota_server.system.files import replace
from tests.support import DEVICE, MAC, ROOT, Client, DataDirCase, Process, bare, until

SAMPLE = ROOT / "ota_server" / "firmware" / "firmware_v1.0.1.bin"


def own_address() -> str:
    """Return an address of this machine that is not a loopback address; "": it has none."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        unsent.connect(("192.0.2.1", 9))
        return unsent.getsockname()[0]
    return ""


class SampleTest(DataDirCase):
    """The shipped sample is for clients on the machine of the server, by whatever address."""

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", SAMPLE.read_bytes())
        self.set_target("v1.0.1")

    def shown(self, *words: str) -> str:
        command = [sys.executable, "-m", "ota_server", *words, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split())

    @unittest.skipUnless(own_address(), "this machine has no address but loopback")
    def test_who_asks_by_the_machines_own_address_is_told_what_why_says(self) -> None:
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        url = f"http://{own_address()}:{server.port}/version.txt"
        with urllib.request.urlopen(urllib.request.Request(url, headers=DEVICE)) as answer:
            self.assertEqual(answer.read(), b"v1.0.1")
        self.assertIn("is told v1.0.1 because the target of the fleet", self.shown("why", MAC))
        self.assertIn(" behind ", self.shown("devices"))
        self.assertIn("1 behind", self.shown("status"))

    def test_of_a_device_that_is_not_on_record_it_says_what_a_client_here_gets(self) -> None:
        shown = self.shown("why", MAC, "--version", "v1.0.0")
        self.assertIn("is told v1.0.0 because the shipped sample", shown)
        self.assertIn("but a client on the server's machine is told v1.0.1", shown)


class MislabelledTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        for version in ("v1", "v2"):
            self.put_image(version, version.encode() * 100)
        self.set_target("v2")

    def why(self, reported: str, attempts: int) -> str:
        now_ms = time.time_ns() // 1_000_000
        download = Download("v2", sha256(b"v2" * 100).hexdigest(), 200, now_ms, attempts, now_ms)
        device = Device(now_ms, reported, now_ms, None, "v2", "192.0.2.7", False, download)
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.write_bytes(format_record("check", MAC, device))
        command = [sys.executable, "-m", "ota_server", "why", MAC, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return " ".join(bare(done.stdout).split())

    def test_a_device_that_calls_a_release_otherwise_is_told_apart_from_one_that_goes_back(self):
        hint = "`release publish FILE --version v2 --reports-as TEXT`"
        for reported, attempts, is_hinted in (
            ("2.0", 3, True),
            ("`hold`", 10, True),
            ("v1", 3, False),
            ("1", 10, False),
        ):
            with self.subTest(reported):
                shown = self.why(reported, attempts)
                self.assertIn("to end that", shown)
                self.assertEqual(hint in shown, is_hinted, shown)
                self.assertNotIn("ota_server hold", shown)


class WhyTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        for version in ("v1.0.0", "v1.0.1", "v1.2"):
            self.put_image(version, version.encode() * 100)
        self.set_target("v1.0.1")
        plan = RolloutPlan("id1", "v1.2", "", (100.0,), format_time(0), "v1.0.1")
        progress = RolloutProgress("id1", "running", 0, format_time(0))
        replace((self.data_dir / "version" / "rollout.json"), format_plan(plan))
        replace((self.data_dir / "version" / "progress.json"), format_plan(progress))

    def why(self) -> tuple[str, str, bool]:
        command = [sys.executable, "-m", "ota_server", "why", MAC, "--version", "v1.0.0"]
        command += ["--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        fields = json.loads(done.stdout)
        return fields["target_version"], fields["rule"], fields["server_runs"]

    def test_it_names_no_release_while_the_controller_cannot_start(self) -> None:
        (self.data_dir / "log" / LOCK_NAME).mkdir()
        self.assertEqual(self.why(), ("v1.2", "rollout", False))
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        self.assertTrue(until(lambda: self.why() == ("v1.0.1", "controller_away", True)))
        with Client(server.port) as client:
            client.request("/version.txt", DEVICE)
            self.assertEqual(client.answer().body, b"v1.0.1")
        server.kill()
        self.assertEqual(self.why(), ("v1.2", "rollout", False))
