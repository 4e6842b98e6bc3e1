"""What rollouts say of devices reaches the index, by a thread that nobody waits for."""

from ota_server.model.timestamp import format_time
from ota_server.operations.index_judged import JudgedDevices
from ota_server.policy.device_state import Condition
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.rollouts.history import note_end
from ota_server.rollouts.outcome_list import ListedDevice
from tests.support import until
from tests.support.index import MINUTE_MS, NEW, OLD, IndexCase, had, key_of


class JudgedTest(IndexCase):
    def end_rollout(self, seen_ms: int) -> None:
        """Put a rollout on record that ended without a word of device 1."""
        start = format_time(self.now_ms - 20 * MINUTE_MS)
        plan = RolloutPlan("id", NEW, "", (100.0,), start, OLD)
        progress = RolloutProgress("id", "done", 0, start)
        listed = ListedDevice(key_of(1), "silent", "why", OLD, format_time(seen_ms), "192.0.2.7")
        note_end(self.data_dir, plan, progress, [listed], self.now_ms)

    def test_a_device_that_a_rollout_counts_as_silent_is_silent_in_the_index(self):
        seen_ms = self.now_ms - 10 * MINUTE_MS
        for number in (1, 2):
            self.know(number, OLD, last_seen_ms=seen_ms, download=had(NEW, seen_ms + 1000))
        self.end_rollout(seen_ms)

        def condition() -> Condition:
            self.catch_up()
            return self.index.device(key_of(1)).condition

        self.assertTrue(until(lambda: condition() is Condition.SILENT))
        self.assertEqual(self.index.device(key_of(2)).condition, Condition.BEHIND)
        self.assertEqual(self.index.summary().conditions[Condition.SILENT], 1)
        with self.subTest("until it is heard from"):
            self.know(1, NEW, last_seen_ms=self.now_ms, update_ms=self.now_ms)
            self.assertEqual(condition(), Condition.UP_TO_DATE)

    def test_who_looks_does_not_wait_and_learns_whom_it_concerns(self):
        self.end_rollout(self.now_ms)
        judged = JudgedDevices(self.data_dir)
        self.assertEqual(judged.look(self.now_ms), frozenset())
        found: set[str] = set()
        self.assertTrue(until(lambda: bool(found.update(judged.look(self.now_ms)) or found)))
        self.assertEqual((found, {*judged.found}), ({key_of(1)}, {key_of(1)}))
        self.assertEqual(judged.look(self.now_ms), frozenset())

    def test_files_that_cannot_be_used_say_nothing(self):
        (self.data_dir / "log" / "rollouts.jsonl").write_bytes(b"\xff\n[]\n{}\n")
        judged = JudgedDevices(self.data_dir)
        judged.look(self.now_ms)
        self.assertTrue(until(lambda: judged._thread is None or not judged._thread.is_alive()))
        judged.look(self.now_ms)
        self.assertEqual(judged.found, {})
