"""A server and `why` as processes of their own: what the one alone knows the other says."""

import json
import subprocess
import sys

from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.rollouts.keeper import LOCK_NAME
from tests.support import DEVICE, MAC, ROOT, Client, DataDirCase, Process, until


class WhyTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        for version in ("v1.0.0", "v1.0.1", "v1.2"):
            self.put_image(version, version.encode() * 100)
        self.set_target("v1.0.1")
        plan = RolloutPlan("id1", "v1.2", "", (100.0,), format_time(0), "v1.0.1")
        progress = RolloutProgress("id1", "running", 0, format_time(0))
        (self.data_dir / "version" / "rollout.json").write_bytes(format_plan(plan))
        (self.data_dir / "version" / "progress.json").write_bytes(format_plan(progress))

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
