"""The devices of a rollout that is on: by what a process has in memory, and by the checkpoint."""

import sqlite3
from contextlib import closing
from threading import Thread
from typing import Any

from ota_server.model.identity import number_of
from ota_server.model.timestamp import format_time
from ota_server.operations.rollout_devices import devices_of, groups_of
from ota_server.operations.rollout_listing import LiveRollouts, grouped
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan, format_plan
from ota_server.rollouts.files import read_plan, read_progress
from ota_server.rollouts.find_rollout import RolloutOnFile
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.mover import RolloutMover
from ota_server.rollouts.outcome_list import devices_by_checkpoint
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system.clock import now_ms
from tests.support import until
from tests.support.fleet import NEW as SECOND
from tests.support.fleet import OLD as FIRST
from tests.support.fleet import Fleet, mac_of
from tests.support.index import MINUTE_MS, NEW, OLD, IndexCase, a_device, key_of
from tests.support.operators import OperatorsCase

COUNT = 30
LATER_MS = 2 * MINUTE_MS


class RolloutListingTest(IndexCase):
    """A rollout that is moved by this test: of 30 devices one runs the release all the time."""

    def setUp(self) -> None:
        super().setUp()
        self.set_target(OLD)
        for number in range(COUNT):
            self.know(number, NEW if number == COUNT - 1 else OLD)
        plan = RolloutPlan("id", NEW, "", (100.0,), format_time(self.now_ms), OLD, count_new=True)
        self.decide("rollout.json", format_plan(plan).decode())
        self.memory = RolloutMemory(self.data_dir)
        self.mover = RolloutMover(
            *(self.data_dir, plan, PolicyFiles(self.data_dir), ServerFacts(0)),
            *(self.now_ms, self.memory),
        )
        self.addCleanup(lambda: self.mover.close(self.now_ms))
        self.step()
        self.now_ms += MINUTE_MS
        for number in range(10):
            told = NEW if number < 6 else OLD
            self.note(key_of(number), a_device(self.now_ms, OLD, target_version=told))
        self.note(key_of(10), a_device(self.now_ms, NEW, update_ms=self.now_ms))
        self.catch_up()
        self.live = LiveRollouts(self.memory, self.index)

    def step(self) -> None:
        while self.mover.step(self.now_ms, self.now_ms / 1000):
            pass

    def expected(self) -> list[Any]:
        plan = read_plan(self.data_dir, "")
        assert plan is not None
        rollout = RolloutOnFile(plan, read_progress(self.data_dir, plan))
        return devices_by_checkpoint(self.data_dir, rollout, self.now_ms)

    def found(self, live: LiveRollouts, most: int = 5) -> tuple[Any, Any]:
        """Return all devices, and the groups, as an answering thread finds them."""
        answers: list[Any] = []

        def ask() -> None:
            answers.append(devices_of(self.data_dir, "id", self.now_ms + LATER_MS, live).devices)
            answers.append(groups_of(self.data_dir, "id", self.now_ms + LATER_MS, most, live))

        asking = Thread(target=ask)
        asking.start()
        is_there = until(lambda: self.memory.is_awaited("id") or not asking.is_alive())
        self.assertTrue(is_there)
        self.step()
        asking.join()
        return answers[0], answers[1]

    def test_what_the_mover_has_in_memory_is_what_the_checkpoint_says(self):
        expected = self.expected()
        self.assertEqual(
            {each.state for each in expected}, {"not_heard_from", "offered", "waiting"}
        )
        listed, shown = self.found(self.live)
        self.assertEqual(listed, expected)
        self.assertEqual(shown.groups, grouped(expected, 5))
        self.assertEqual(sum(each.total for each in shown.groups), COUNT - 2)
        # When the mover counted; what is folded from the checkpoint is of the time it is asked for.
        self.assertEqual(shown.as_of_ms, self.now_ms)

    def test_of_a_rollout_that_another_process_moves_the_checkpoint_and_the_index_are_read(self):
        listed, shown = self.found(self.live._replace(memory=None))
        self.assertEqual(listed, self.expected())
        self.assertEqual(shown.as_of_ms, self.now_ms + LATER_MS)
        self.assertFalse(self.memory.is_asked_for("id"))

    def test_without_an_index_the_journal_is_read(self):
        self.writer.close()
        self.file.unlink()
        listed, shown = self.found(self.live)
        self.assertEqual(listed, self.expected())
        self.assertEqual(shown.groups, grouped(listed, 5))
        self.assertFalse(self.memory.is_asked_for("id"))

    def test_a_device_that_is_no_longer_on_record_is_listed_without_what_it_reports(self):
        self.writer.close()
        with closing(sqlite3.connect(self.file)) as database, database:
            for number in (1, COUNT - 1):
                database.execute(
                    "DELETE FROM devices WHERE number = ?", (number_of(key_of(number)),)
                )
        listed, shown = self.found(self.live)
        told = {each.mac: (each.firmware_version, bool(each.last_seen_time)) for each in listed}
        self.assertEqual((told[key_of(0)], told[key_of(1)]), ((OLD, True), ("", False)))
        # Nobody knows any longer that it runs the release.
        self.assertEqual(told[key_of(COUNT - 1)], ("", False))
        self.assertEqual(sum(each.total for each in shown.groups), len(listed))


class LiveListTest(OperatorsCase):
    """A rollout on a real server, whose devices do all that devices can do."""

    TAKES_LONG = True
    STATES = ("failed", "mislabelled", "undecided", "not_heard_from", "offered")

    @classmethod
    def come(cls) -> None:
        cls.fleet = Fleet(COUNT)
        cls.fleet.versions[mac_of(0)] = SECOND
        cls.fleet.ask(cls.server.port)
        cls.await_devices(COUNT)

    def ask(self, *numbers: int, **more: Any) -> None:
        """Have some devices ask."""
        self.fleet.off = {*self.fleet.versions} - {*map(mac_of, numbers)}
        self.fleet.ask(self.server.port, **more)

    def test_the_list_of_a_rollout_under_way_is_what_the_checkpoint_says(self):
        form = {"version": SECOND, "waves": "100", "count_new": "on", "grace_seconds": "1s"}
        url = self.operators.post("/rollouts/new", {**form, "max_failures": "90%"}).fields[
            "location"
        ]
        plan = read_plan(self.data_dir, "")
        assert plan is not None
        self.assertTrue(until(lambda: read_progress(self.data_dir, plan) is not None))

        def is_offered() -> bool:
            self.ask(*range(10, 13), fetches=False)
            return self.fleet.told[SECOND] > 1  # one runs it already

        self.assertTrue(until(is_offered))
        self.ask(*range(13, 22))
        self.ask(*range(22, 25), boots=lambda _mac: False)
        for number in range(13, 16):
            self.fleet.versions[mac_of(number)] = "v9"
        self.ask(*range(13, 19), fetches=False)
        for number in range(16, 19):
            self.fleet.versions[mac_of(number)] = FIRST
        self.ask(*range(16, 19), fetches=False)
        self.ask(*range(22, 25), boots=lambda _mac: False)

        def is_same() -> bool:
            rollout = RolloutOnFile(plan, read_progress(self.data_dir, plan))
            expected = devices_by_checkpoint(self.data_dir, rollout, now_ms())
            _, said = self.operators.json("GET", f"/api/v1{url}/devices")
            labels = [each.pop("label") for each in said["devices"]]
            self.assertEqual([*filter(None, labels)], [])
            is_all = {each.state for each in expected} == {*self.STATES}
            return is_all and said["devices"] == [each._asdict() for each in expected]

        self.assertTrue(until(is_same), self.operators.json("GET", f"/api/v1{url}/devices"))
        page = self.operators.page(url)
        self.assertIn("not heard from: 14", page.text)
        self.assertIn("3 devices: it ran the release, and went back to v1.0.0", page.text)
