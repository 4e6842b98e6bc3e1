"""`--record-interval`: what says nothing new is on record once in an interval, and all else is."""

import json

from ota_server.journal.replay import newest
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, format_plan, plan_name
from ota_server.system.data_dir import product_dir
from ota_server.system.files import replace
from tests.support import DEVICE, MAC, ServerCase, until

UPDATED = {**DEVICE, "_br_fwv_": "v1.0.1"}


class IntervalTest(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.now_ms = 1_800_000_000_000
        self.begin()

    def begin(self) -> None:
        service = self.start(service={"record_interval": 60}).service
        service.clock_ms = service.checks._clock_ms = lambda: self.now_ms
        service.fleet.clock_ms = service.clock_ms
        # A snapshot that came after the checks would hold what they did not put on record.
        self.assertTrue(until(lambda: bool(self.records(event="snapshot"))))
        self.service = service

    def check(self, fields: dict[str, str] = UPDATED, after_ms: int = 1000) -> None:
        self.now_ms += after_ms
        self.assertEqual(self.get("/version.txt", fields).status, 200)

    def count(self) -> int:
        return len(self.records(event="check"))

    def test_a_device_that_says_nothing_new_is_on_record_once_in_the_interval(self):
        for _ in range(59):
            self.check()
        self.assertEqual(self.count(), 1)
        self.check(after_ms=2000)
        self.assertEqual(self.count(), 2)

    def test_memory_knows_when_it_was_last_seen(self):
        self.check()
        self.check()
        with self.service.fleet.lock:
            device = self.service.fleet.get(MAC)
        assert device is not None
        self.assertEqual((device.last_seen_ms, device.time_ms), (self.now_ms, self.now_ms - 1000))

    def test_each_offer_and_each_change_is_on_record(self):
        self.check()
        for fields in (
            DEVICE,
            DEVICE,
            UPDATED,
            {**UPDATED, "_br_fwv_": "1.0.1"},
            {**UPDATED, "_br_fwv_": "1.0.1", "X-Other": "general path"},
        ):
            self.check(fields)
        self.assertEqual(self.count(), 5)

    def test_an_answer_that_changes_is_on_record(self):
        self.check()
        self.set_target("v1.0.0")
        self.check()
        self.assertEqual(self.count(), 2)

    def test_each_check_is_on_record_while_a_rollout_is_on(self):
        self.check()
        plan = RolloutPlan("id", "v1.0.0", "", (100.0,), format_time(0), "v1.0.1")
        replace((self.data_dir / "version" / plan_name("")), format_plan(plan))
        self.service.policies.look_after()
        for _ in range(3):
            self.check()
        self.assertEqual(self.count(), 4)

    def test_each_check_is_on_record_while_a_rollout_of_another_product_is_on(self):
        folder = product_dir(self.data_dir, "plug")
        (folder / "version").mkdir(parents=True)
        self.service.products.look_for()
        self.check()
        plan = RolloutPlan("id", "p2", "", (100.0,), format_time(0), "p1")
        replace((folder / "version" / plan_name("")), format_plan(plan))
        self.service.products.ports[b"plug"].policies.look_after()
        for _ in range(3):
            self.check()
        self.assertEqual(self.count(), 4)

    def test_a_clock_that_was_set_back_keeps_nothing_off_the_record(self):
        self.check()
        self.check(after_ms=-3_600_000)
        self.assertEqual(self.count(), 2)

    def test_after_a_restart_the_journal_is_behind_by_less_than_the_interval(self):
        self.check()
        self.check(after_ms=59_000)
        self.stop()
        device = newest(self.data_dir / "log", MAC)
        assert device is not None
        self.assertEqual(self.now_ms - device.last_seen_ms, 59_000)
        self.begin()
        self.check(after_ms=2000)
        self.assertEqual(self.count(), 2)

    def test_a_device_that_asked_after_it_was_to_be_forgotten_is_kept(self):
        self.check()
        asked_ms = self.now_ms + 500
        self.check()
        self.service.fleet.forget(MAC, asked_ms)
        self.assertEqual(len(self.service.fleet), 1)

    def test_what_is_on_record_is_whole(self):
        self.check()
        self.check()
        self.stop()
        lines = (self.data_dir / "log" / "devices.jsonl").read_bytes().splitlines()
        self.assertTrue(all(json.loads(line) for line in lines))
