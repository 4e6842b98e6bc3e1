"""What a device counts as under a rollout, by its own lines in the journal."""

import json
from typing import Any

from ota_server.evaluation.counting import Tally
from ota_server.evaluation.outcomes import WORDS
from ota_server.journal.record import format_marker
from ota_server.model.timestamp import format_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.rollouts.device_outcome import outcome_of
from ota_server.rollouts.files import Checkpoint, read_checkpoint, read_plan, write_checkpoint
from ota_server.system.files import replace
from tests.support import DataDirCase

MAC = "00:11:22:33:44:55"
OLD, NEW = "v1.0.0", "v2.0.0"
SHA256 = "ab" * 32
DAY_MS = 24 * 3600 * 1000
START_MS = 1_800_000_000_000
MINUTE_MS = 60_000


class CaseTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        for version in (OLD, NEW):
            (self.data_dir / "firmware" / f"firmware_{version}.bin").write_bytes(b"image")
        time = format_time(START_MS)
        plan = RolloutPlan(
            "id1", NEW, "", (100.0,), time, OLD, grace_seconds=60.0, soak_seconds=60.0
        )
        progress = RolloutProgress("id1", "running", 0, time)
        replace((self.data_dir / "version" / "rollout.json"), format_plan(plan))
        replace((self.data_dir / "version" / "progress.json"), format_plan(progress))
        self.lines: list[bytes] = []
        self.now_ms = START_MS - 2 * DAY_MS
        self.check(OLD, told=OLD)
        self.now_ms = START_MS

    def add(self, event: str, version: str, address: str = "192.0.2.1", **more: Any) -> None:
        self.now_ms += MINUTE_MS // 10
        time = format_time(self.now_ms)
        line = {
            "time": time,
            "event": event,
            "product": "",
            "mac": MAC,
            "firmware_version": version,
            "last_seen_time": time,
            "update_time": None,
            "target_version": NEW,
            "address": address,
            **more,
        }
        self.lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def check(self, version: str, address: str = "192.0.2.1", told: str = NEW) -> None:
        self.add("check", version, address, target_version=told)

    def fetch(self, complete: bool = True, has_ended: bool = True) -> None:
        image = {"download_version": NEW, "download_sha256": SHA256, "download_size": 1000}
        self.add("begin", OLD, **image)
        release = {"release_version": NEW, "release_sha256": SHA256}
        if has_ended:
            sent = 1000 if complete else 500
            self.add("download", OLD, **image, **release, bytes_sent=sent, complete=complete)

    def case(self) -> tuple[str, str] | None:
        (self.data_dir / "log" / "devices.jsonl").write_bytes(b"".join(self.lines))
        policy = PolicyFiles(self.data_dir).current()
        return outcome_of(self.data_dir, MAC, "", policy, self.now_ms)

    def test_before_it_was_told_of_the_release_it_counts_as_nothing(self):
        self.check(OLD, told=OLD)
        self.assertIsNone(self.case())

    def test_it_is_said_how_far_it_is(self):
        self.check(OLD)
        self.assertEqual(self.case(), ("offered", WORDS["offered"]))
        self.fetch(has_ended=False)
        self.assertEqual(self.case(), ("downloading", WORDS["downloading"]))
        self.add("download", OLD, release_version=NEW, release_sha256=SHA256, bytes_sent=500)
        self.assertEqual(self.case(), ("cut", WORDS["cut"]))
        self.fetch()
        self.assertEqual(self.case(), ("undecided", WORDS["undecided"]))
        self.check(NEW)
        self.assertEqual(self.case(), ("updated", WORDS["updated"]))
        self.check(OLD)
        self.assertEqual(self.case(), ("failed", "it ran the release, and went back to v1.0.0"))

    def test_who_reports_its_old_version_still_has_failed(self):
        for _ in range(20):
            self.check(OLD)  # so that it is known to poll every six seconds
        self.fetch()
        self.now_ms += 10 * MINUTE_MS
        self.check(OLD)
        words = "it had the whole image, and reports v1.0.0 still"
        self.assertEqual(self.case(), ("failed", words))

    def test_who_reports_no_release_is_mislabelled(self):
        self.check(OLD)
        self.fetch()
        self.check("2.0-rc")
        case = self.case()
        assert case is not None
        self.assertEqual(case[0], "mislabelled")
        self.assertIn("reports 2.0-rc, which is not a release", case[1])

    def test_what_another_address_says_of_a_device_does_not_count_after_its_own_word(self):
        for _ in range(4):
            self.check("v1.5.0", "192.0.2.2")
            self.check(OLD, "192.0.2.1")
        self.assertEqual(self.case(), ("offered", WORDS["offered"]))

    def test_who_was_not_known_for_a_day_is_too_new_whatever_a_snapshot_repeats(self):
        self.lines.clear()
        self.check(OLD)
        self.assertEqual(self.case(), ("too_new", WORDS["too_new"]))
        self.lines.insert(0, format_marker(START_MS, 1))
        self.add("device", OLD)
        self.assertEqual(self.case(), ("too_new", WORDS["too_new"]))

    def test_a_rollout_that_has_not_begun_says_nothing(self):
        self.check(OLD)
        (self.data_dir / "version" / "progress.json").unlink()
        self.assertIsNone(self.case())

    def test_a_wave_that_the_rollout_has_not_is_no_progress(self):
        self.fetch()
        path = self.data_dir / "version" / "progress.json"
        path.write_bytes(path.read_bytes().replace(b'"wave": 0', b'"wave": 999'))
        self.assertIn(b"999", path.read_bytes())
        self.assertIsNone(self.case())

    def test_a_checkpoint_in_a_wave_that_the_rollout_has_not_is_not_used(self):
        plan = read_plan(self.data_dir, "")
        assert plan is not None
        logs = self.data_dir / "log"
        for wave, is_used in ((0, True), (1, False)):
            progress = RolloutProgress("id1", "running", wave, plan.time)
            write_checkpoint(logs, "", Checkpoint("id1", progress, None, 0, None, b""))
            self.assertEqual(read_checkpoint(logs, plan) is not None, is_used)

    def test_all_words_are_of_counts(self):
        self.assertLessEqual(WORDS.keys(), set(Tally._fields))
