"""The rollouts that one device was in, and what it counted as in each."""

from ota_server.journal.record import format_record
from ota_server.model.device import Device
from ota_server.model.timestamp import format_time
from ota_server.operations.device_rollouts import rollouts_of
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.history import note_end
from ota_server.rollouts.outcome_list import ListedDevice
from ota_server.system import clock
from tests.support.fleet import NEW, OLD, RolloutCase, mac_of

MINUTE_MS = 60_000


class DeviceRolloutsTest(RolloutCase):
    def setUp(self) -> None:
        super().setUp()
        self.now_ms = clock.now_ms()

    def report(self, number: int, version: str, minutes_ago: int, **details: str) -> None:
        """Put a check into the journal."""
        time_ms = self.now_ms - minutes_ago * MINUTE_MS
        device = Device(time_ms, version, time_ms, None, version, "192.0.2.7", False, None)
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as journal:
            journal.write(format_record("check", mac_of(number), device, details))

    def end(self, version: str, start: int, end: int, *failed: int) -> None:
        """Put the end of a rollout on record, that began and ended so many minutes ago."""
        plan = RolloutPlan(
            f"id-{start}", version, "", (100.0,), format_time(self.now_ms - start * MINUTE_MS), OLD
        )
        listed = [
            ListedDevice(mac_of(number), "failed", "it went back", OLD, "", "") for number in failed
        ]
        note_end(self.data_dir, plan, None, listed, self.now_ms - end * MINUTE_MS)

    def test_one_that_failed_and_one_that_updated(self):
        self.end(NEW, 500, 400, 1)
        self.report(2, NEW, 450, previous_version=OLD)
        self.end("v3.0.0", 300, 200, 2)
        found = rollouts_of(self.data_dir, mac_of(2), self.now_ms)
        self.assertEqual([each.counts_as for each in found], ["failed", "updated"])
        self.assertEqual([each.id for each in found], ["id-300", "id-500"])
        (one,) = rollouts_of(self.data_dir, mac_of(1), self.now_ms)
        self.assertEqual(
            (one.counts_as, one.reason, one.state), ("failed", "it went back", "aborted")
        )
        self.assertEqual(rollouts_of(self.data_dir, mac_of(3), self.now_ms), [])

    def test_one_that_is_on_and_has_not_come_to_it(self):
        self.report(1, OLD, 5)
        self.roll_out()
        (one,) = rollouts_of(self.data_dir, mac_of(1), self.now_ms)
        self.assertEqual((one.counts_as, one.end_time), ("waiting", None))
        self.assertIn(NEW, one.title)

    def test_no_more_than_were_asked_for(self):
        for number in range(5):
            self.end(NEW, 500 - number, 400 - number, 1)
        found = rollouts_of(self.data_dir, mac_of(1), self.now_ms, limit=2)
        self.assertEqual([each.id for each in found], ["id-496", "id-497"])
