"""The server and `why` ask one function: what one answers is what the other says."""

import json
import os
import subprocess
import sys

from ota_server.device_port.admission_status import (
    FILE_NAME,
    AdmissionFile,
    read_server_state,
    read_standing,
)
from ota_server.device_port.window import Standing
from ota_server.model.timestamp import format_time
from ota_server.model.version import Target
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.policy.situation import ServerState
from ota_server.system.clock import now_ms
from ota_server.system.files import replace
from ota_server.system.locks import take_lock
from tests.journal.test_writer import file_size_limit
from tests.support import DEVICE, MAC, ROOT, DataDirCase, ServerCase, until

STANDING = Standing(4, "01:00-05:00", False, 2)


class ServerOnlyTest(ServerCase):
    """What no file but that of the running server says."""

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.2", b"third " * 1000)
        plan = RolloutPlan("id1", "v1.2", "", (100.0,), format_time(0), "v1.0.1")
        progress = RolloutProgress("id1", "running", 0, format_time(0))
        replace((self.data_dir / "version" / "rollout.json"), format_plan(plan))
        replace((self.data_dir / "version" / "progress.json"), format_plan(progress))

    def publish(self) -> None:
        """Have the server say what it knows, as it does once a second."""
        offers = self.server.service.offers
        AdmissionFile(self.data_dir / "log", lambda: offers.standing(now_ms())).write()

    def told(self) -> str:
        return self.get("/version.txt").body.decode()

    def why(self) -> tuple[str, str]:
        """Return which version `why` says that the device is told, and because of what."""
        command = [sys.executable, "-m", "ota_server", "why", MAC, "--version", "v1.0.0"]
        command += ["--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        fields = json.loads(done.stdout)
        return fields["target_version"], fields["reason"]

    def assert_paused(self, pause: str) -> None:
        """Expect of `why` that the device is told the target, and what pauses the rollout."""
        self.publish()
        because = (
            f"held back by a rollout, which offers nothing new {pause}: the target of the fleet"
        )
        self.assertEqual(self.why(), ("v1.0.1", because))

    def test_nobody_looks_after_the_rollout(self) -> None:
        self.start().service.offers.attended.groups = frozenset()
        self.assertEqual(self.told(), "v1.0.1")
        self.assert_paused("while the controller does not look after it")

    def test_the_table_is_full(self) -> None:
        self.start(service={"max_devices": 1})
        self.get("/version.txt", {**DEVICE, "_br_mac_": "00:11:22:33:44:66"})
        self.assertEqual(self.told(), "v1.0.1")
        self.assert_paused("to a device that is beyond --max-devices")

    def test_the_journal_cannot_be_written(self) -> None:
        journal = self.start().service.fleet.journal
        self.assertTrue(until(lambda: not journal.needs_snapshot))
        path = self.data_dir / "log" / "devices.jsonl"
        while path.stat().st_size < 8192:  # no limit to smaller files
            self.get("/version.txt")
        with file_size_limit(path.stat().st_size):
            self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.2"})
            self.assertEqual(self.told(), "v1.0.1")
            self.assert_paused("while the journal cannot be written")


class AdmissionFileTest(DataDirCase):
    def test_what_was_written_is_read(self) -> None:
        log_dir, state = (
            self.data_dir / "log",
            ServerState(
                True, frozenset(("", "beta")), True, True, "01:00-05:00", 7, frozenset((MAC,))
            ),
        )
        for each in (state, ServerState(True, last_good=Target("v1", "\n", "name", 5))):
            with self.subTest(each):
                AdmissionFile(log_dir, lambda each=each: (STANDING, each)).write()
                lock = take_lock(log_dir / ".lock")
                try:
                    self.assertEqual(read_server_state(log_dir), each)
                finally:
                    os.close(lock)
                self.assertEqual(read_standing(log_dir), STANDING)
                self.assertEqual(read_server_state(log_dir), ServerState())  # nobody serves

    def test_a_full_disk_does_not_keep_the_news_from_operators(self) -> None:
        log_dir = self.data_dir / "log"
        states = [ServerState(True), ServerState(True, is_journal_failing=True), ServerState(True)]
        file = AdmissionFile(log_dir, lambda: (STANDING, states[0]))
        file.write()
        # Nothing can be put in the place of a folder, which is what a full disk does to others too.
        (log_dir / f".{FILE_NAME}.new" / "in the way").mkdir(parents=True)
        lock = take_lock(log_dir / ".lock")
        self.addCleanup(os.close, lock)
        while len(states) > 1:
            states.pop(0)
            file.write()
            self.assertEqual(read_server_state(log_dir), states[0])
