"""The devices of a rollout that is on: by what a process has in memory, and by the checkpoint."""

import shutil
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from threading import Event, Thread
from typing import Any

from ota_server.model.identity import number_of
from ota_server.model.timestamp import format_time
from ota_server.operations.rollout_devices import devices_of, groups_of
from ota_server.operations.rollout_listing import LiveRollouts, grouped
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.rollouts.files import read_plan, read_progress, write_progress
from ota_server.rollouts.find_rollout import RolloutOnFile
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.mover import RolloutMover
from ota_server.rollouts.outcome_list import ListedDevice, devices_by_checkpoint
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system.clock import now_ms
from ota_server.system.data_dir import product_dir
from tests.support import until
from tests.support.fleet import NEW as SECOND
from tests.support.fleet import OLD as FIRST
from tests.support.fleet import Fleet, mac_of
from tests.support.index import MINUTE_MS, NEW, OLD, IndexCase, a_device, key_of
from tests.support.operators import OperatorsCase

COUNT = 30
LATER_MS = 2 * MINUTE_MS


def states(devices: list[ListedDevice]) -> set[str]:
    """Return the states of some devices."""
    return {each.state for each in devices}


class RolloutListingTest(IndexCase):
    """A rollout that is moved by this test: of 30 devices one runs the release all the time."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.data_dir
        self.set_target(OLD)
        self.begin([*map(key_of, range(COUNT))])

    def begin(self, keys: list[str], accepted: tuple[str, ...] = ()) -> None:
        """Begin the rollout to some devices, of which the last one runs the release already.

        Args:
            accepted: names of devices that a person goes on without.
        """
        for key in keys:
            seen = a_device(self.now_ms - MINUTE_MS, NEW if key == keys[-1] else OLD)
            self.note(key, seen)
        start = format_time(self.now_ms)
        plan = RolloutPlan("id", NEW, "", (100.0,), start, OLD, count_new=True)
        (self.folder / "version" / "rollout.json").write_bytes(format_plan(plan))
        progress = RolloutProgress("id", RolloutState.RUNNING, 0, start, accepted=accepted)
        write_progress(self.folder, "", progress)
        self.memory = RolloutMemory(self.folder)
        self.mover = RolloutMover(
            *(self.folder, plan, PolicyFiles(self.folder), ServerFacts(0)),
            *(self.now_ms, self.memory),
        )
        self.addCleanup(self.mover.close, self.now_ms)
        self.step()
        self.now_ms += MINUTE_MS
        for number, key in enumerate(keys[:10]):
            told = NEW if number < 6 else OLD
            self.note(key, a_device(self.now_ms, OLD, target_version=told))
        self.note(keys[10], a_device(self.now_ms, NEW, update_ms=self.now_ms))
        self.catch_up()
        self.live = LiveRollouts(self.memory, self.index)

    def step(self) -> None:
        while self.mover.step(self.now_ms, self.now_ms / 1000):
            pass

    def expected(self) -> list[Any]:
        plan = read_plan(self.folder, "")
        assert plan is not None
        rollout = RolloutOnFile(plan, read_progress(self.folder, plan))
        return devices_by_checkpoint(self.folder, rollout, self.now_ms)

    def found(self, live: LiveRollouts, most: int = 5) -> tuple[Any, Any]:
        """Return all devices, and the groups, as an answering thread finds them."""
        answers: list[Any] = []

        def ask() -> None:
            answers.append(devices_of(self.folder, "id", self.now_ms + LATER_MS, live).devices)
            answers.append(groups_of(self.folder, "id", self.now_ms + LATER_MS, most, live))

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

    def test_where_the_mover_does_not_count_the_checkpoint_and_the_index_are_read(self):
        memory = RolloutMemory(self.data_dir, wait_seconds=0.0)
        listed, shown = self.found(self.live._replace(memory=memory))
        self.assertEqual(listed, self.expected())
        self.assertEqual(shown.as_of_ms, self.now_ms + LATER_MS)

    def test_devices_that_a_person_goes_on_without_are_listed_too(self):
        self.mover.close(self.now_ms)
        (self.data_dir / "log" / "rollout.checkpoint").unlink()
        self.journal.unlink()
        self.begin([*map(key_of, range(COUNT))], accepted=(key_of(3), key_of(20)))
        self.assertEqual(self.mover._progress.accepted, (key_of(3), key_of(20)))
        listed, _ = self.found(self.live)
        self.assertEqual(listed, self.expected())
        self.assertLess({key_of(3), key_of(20)}, {each.mac for each in listed})

    def test_devices_of_a_product_are_listed_by_their_names_in_the_order_of_their_keys(self):
        self.folder = product_dir(self.data_dir, "plug")
        shutil.copytree(self.data_dir / "firmware", self.folder / "firmware")
        for name in ("version", "log"):
            (self.folder / name).mkdir()
        (self.folder / "version" / "version.txt").write_text(OLD)
        names = [*map(key_of, range(20, 28)), *(f"gw {number}" for number in range(8))]
        self.begin([f"plug/{name}" for name in names])
        for live in (self.live, self.live._replace(memory=None)):
            listed, shown = self.found(live, COUNT)
            self.assertEqual(listed, self.expected())
            self.assertEqual(shown.groups, grouped(listed, COUNT))
        self.assertIn("id:gw 0", {each.mac for each in listed})

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
            before = self.fleet.told[SECOND]
            self.ask(*range(10, 13), fetches=False)
            return self.fleet.told[SECOND] == before + 3

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
            listed = [each._asdict() for each in expected]
            differ.update(enumerate(zip(listed, said["devices"], strict=False)))
            return states(expected) == {*self.STATES} and said["devices"] == listed

        differ: dict[int, Any] = {}
        is_so = until(is_same)
        self.assertTrue(is_so, [pair for pair in differ.values() if pair[0] != pair[1]])
        page = self.operators.page(url)
        self.assertIn("not heard from: 14", page.text)
        self.assertIn("3 devices: it ran the release, and went back to v1.0.0", page.text)


class EndWhileAskedTest(OperatorsCase):
    """Somebody has pages of a rollout open while the server is ended."""

    def test_the_controller_ends_in_order_while_lists_are_asked_for(self):
        fleet = Fleet(COUNT)
        fleet.ask(self.server.port)
        self.await_devices(COUNT)
        form = {"version": SECOND, "waves": "50,100", "count_new": "on", "soak_seconds": "1h"}
        url = self.operators.post("/rollouts/new", form).fields["location"]
        self.assertTrue(until(lambda: "not heard from: " in self.operators.page(url).text))
        is_over, answers = Event(), Counter[int]()

        def look(path: str) -> None:
            while not is_over.is_set():
                with suppress(OSError, AssertionError):  # the port closes at any moment
                    answers[self.operators.get(path).status] += 1

        paths = (url, f"/api/v1{url}/devices") * 3
        looking = [Thread(target=look, args=(each,)) for each in paths]
        self.addCleanup(is_over.set)
        for each in looking:
            each.start()
        self.assertTrue(until(lambda: answers[200] > 10), answers)
        self.server.end()
        is_over.set()
        for each in looking:
            each.join()
        self.assertNotIn("is killed", self.server.log)
        self.assertTrue((self.data_dir / "log" / "index.sqlite-closed").exists())
