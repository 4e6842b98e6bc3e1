"""Notices: a real server runs a command, and tells URLs, when something happens."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from ota_server.model.notice import Delivery
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutState,
    format_plan,
    plan_name,
    progress_name,
)
from ota_server.policy.text import hold_content
from ota_server.rollouts.history import note_end, note_replaced
from ota_server.rollouts.notice_watch import NoticeWatch
from ota_server.system.data_dir import product_dir
from ota_server.system.files import replace
from tests.support import DataDirCase, Process, until
from tests.support.fleet import NEW, OLD, RolloutCase, run_rollout

TIME = "2026-11-28T20:00:00.000Z"


class ServerTest(RolloutCase):
    def told(self) -> list[dict[str, Any]]:
        """Return the notices that the command has got."""
        try:
            lines = (self.data_dir / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def names(self) -> list[str]:
        return [each["event"] for each in self.told()]

    def serve_and_tell(self, command: str = "cat") -> Process:
        return self.serve("--notify-command", f"{command} >> {self.data_dir}/events; echo heard")

    def test_a_rollout_that_begins_and_ends_is_told_in_that_order_and_no_pause_by_an_operator(self):
        server = self.serve_and_tell()
        for _ in range(4):
            self.devices.ask(server.port)
        code, _, problem = run_rollout(self.data_dir, "start", NEW, "--count-new")
        self.assertEqual(code, 0, problem)
        self.ask_until(server, lambda: self.names() == ["rollout_moved"])
        for command, state in (("pause", "paused"), ("abort", "aborted")):
            run_rollout(self.data_dir, command)
            self.ask_until(server, lambda state=state: self.state() == state)
        self.ask_until(server, lambda: self.names() == ["rollout_moved", "rollout_ended"])
        self.assertIn("--notify-command (rollout_moved): heard", server.end()[1])

    def test_a_halt_is_told_with_the_devices_that_did_badly(self):
        server = self.serve_and_tell()
        self.roll_out()

        def boots(mac: str) -> bool:
            return mac[-1] < "3"

        self.ask_until(server, lambda: self.state() == "halted", boots=boots)
        self.assertTrue(until(lambda: self.names()[-1:] == ["rollout_halted"]))
        devices = self.told()[-1]["devices"]
        self.assertGreaterEqual(len(devices), 2)
        self.assertEqual([mac for mac in devices if boots(mac)], [])

    def test_what_was_told_to_a_command_when_the_server_was_killed_is_told_again(self):
        hung = self.serve("--notify-command", f"touch {self.data_dir}/begun; exec sleep 3")
        self.roll_out(waves=(50.0, 100.0), soak_seconds=600.0)
        self.ask_until(hung, (self.data_dir / "begun").exists)
        hung.kill()
        for _ in range(2):
            server = self.serve_and_tell()
            self.assertTrue(until(lambda: self.names() == ["rollout_moved"]))
            self.assertTrue(until(lambda: b"running" in self.record()))
            server.kill()
        # A rollout that ends while no server runs.
        run_rollout(self.data_dir, "abort")
        server = self.serve_and_tell()
        self.assertTrue(until(lambda: self.names() == ["rollout_moved", "rollout_ended"]))
        self.assertNotIn("not told", server.end()[1])

    def record(self) -> bytes:
        return (self.data_dir / "log" / "told.json").read_bytes()

    def test_a_stop_says_how_many_events_were_not_told(self):
        server = self.serve("--notify-command", f"touch {self.data_dir}/begun; exec sleep 600")
        self.roll_out()
        self.ask_until(server, (self.data_dir / "begun").exists)
        self.assertRegex(server.end()[1], r"notices that were not told: \d; what became of")

    def test_a_command_that_is_empty_is_refused(self):
        for text in ("", "  "):
            server = self.serve("--notify-command", text)
            self.assertEqual(server.end()[0], 2)
            self.assertIn("--notify-command: is empty", server.log)


class Ear:
    """A receiver in this process, which hears at once what it is told.

    Attributes:
        has_room: it takes what it is told.
        is_well: what it has taken counts as told; None: it has not ended.
    """

    def __init__(self, key: str = "") -> None:
        self.name, self.key = key or "--notify-command", key
        self.first_pause_seconds = 60.0
        self.has_room = True
        self.is_well: bool | None = True
        self.wait_seconds = 0.0
        self.told: list[Mapping[str, Any]] = []
        self.alarms: list[str] = []
        self.ends: list[Callable[[Delivery], None]] = []

    def tell(
        self,
        notice: Mapping[str, Any],
        is_alarm: bool = False,
        when_ended: Callable[[Delivery], None] | None = None,
    ) -> bool:
        """Take a notice."""
        if self.has_room:
            self.told.append(notice)
            self.alarms += [notice["event"]] * is_alarm
            if self.is_well is None:
                self.ends.append(when_ended)
            else:
                when_ended(Delivery(self.is_well, "", self.wait_seconds))
        return self.has_room

    def names(self) -> list[str]:
        """Return what was told since the last call."""
        names = [each["event"] for each in self.told]
        self.told.clear()
        return names


class WatchTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.is_failing = False
        self.ear = Ear()

    def names(self) -> list[str]:
        return self.ear.names()

    def watch(self, product: str = "", *ears: Ear) -> NoticeWatch:
        folder = product_dir(self.data_dir, product)
        return NoticeWatch(folder, lambda: self.is_failing, ears or (self.ear,))

    def hold(self, *products: str) -> None:
        for product in products:
            path = product_dir(self.data_dir, product) / "version" / "hold.json"
            replace(path, hold_content("smoke", "ann", 0))

    def unhold(self, *products: str) -> None:
        for product in products:
            (product_dir(self.data_dir, product) / "version" / "hold.json").unlink()

    def roll_out(
        self,
        state: RolloutState,
        number: str = "1",
        group: str = "",
        product: str = "",
        **more: Any,
    ) -> RolloutPlan:
        plan = RolloutPlan(number, NEW, group, (100.0,), TIME, OLD)
        progress = RolloutProgress(number, state, 0, TIME, reason="see `devices MAC`", **more)
        for name, content in ((plan_name(group), plan), (progress_name(group), progress)):
            folder = product_dir(self.data_dir, product) / "version"
            replace((folder / name), format_plan(content))
        return plan

    def test_what_is_told_names_the_product(self):
        for part in ("version", "log"):
            (product_dir(self.data_dir, "plug") / part).mkdir(parents=True)
        watches = self.watch(), self.watch("plug")
        self.is_failing = True
        self.roll_out(RolloutState.HALTED, product="plug")
        for watch in watches:
            watch.look_again()
        of_all, of_one = self.ear.told
        self.assertEqual(of_all["event"], "journal_failing")
        self.assertNotIn("product", of_all)
        self.assertEqual((of_one["event"], of_one["product"]), ("rollout_halted", "plug"))
        self.assertTrue(of_one["text"].startswith("product plug: rollout of v2.0.0 is halted"))
        self.assertIn(" devices MAC --product plug", of_one["reason"])

    def test_what_is_there_when_it_is_used_first_is_no_event(self):
        self.roll_out(RolloutState.HALTED)
        self.watch().look_after()
        self.watch().look_after()
        self.assertEqual(self.ear.told, [])

    def test_commands_in_what_is_told_can_be_pasted(self):
        watch = self.watch()
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        (event,) = self.ear.told
        for text in (event["reason"], event["text"]):
            self.assertRegex(text, r" -m ota_server devices MAC(?: --data-dir \S+)?`")

    def test_what_happened_while_no_server_ran_is_told_once_at_the_next_start(self):
        self.roll_out(RolloutState.RUNNING)
        self.watch()
        self.roll_out(RolloutState.HALTED)
        self.roll_out(RolloutState.RUNNING, group="beta")
        self.watch().look_again()
        self.assertEqual(self.names(), ["rollout_halted", "rollout_moved"])
        self.watch().look_again()
        self.assertEqual(self.ear.told, [])

    def test_what_the_command_has_not_heard_is_told_again_at_the_next_start(self):
        watch = self.watch()
        self.ear.is_well = None
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        watch.look_again()
        self.assertEqual(self.names(), ["rollout_halted"])
        self.watch().look_again()
        self.assertEqual(self.names(), ["rollout_halted"])

    def test_the_end_of_a_rollout_that_another_one_has_replaced_is_told(self):
        for state in (RolloutState.HALTED, RolloutState.DONE, None):
            with self.subTest(state):
                plan = self.roll_out(RolloutState.RUNNING, f"{state}")
                watch = self.watch()
                watch.look_again()
                self.names()
                if state is None:
                    note_replaced(self.data_dir, "", 0)
                else:
                    ended = RolloutProgress(plan.id, state, 0, TIME, "3 failed")
                    note_end(self.data_dir, plan, ended, None, 0)
                self.roll_out(RolloutState.RUNNING, f"after {state}")
                again = self.watch()
                for each in (watch, again):
                    each.look_again()
                    each.look_again()
                    first = self.ear.told[0]
                    self.assertEqual(first["state"], state or "aborted")
                    self.assertEqual((first["version"], first["waves"]), (NEW, 1))
                    self.assertEqual(self.names()[1:], ["rollout_moved"])

    def test_what_could_not_be_told_yet_is_told_later_as_it_is_then(self):
        watch = self.watch()
        self.ear.has_room = False
        self.is_failing = True
        for number in range(100):
            self.roll_out(RolloutState.RUNNING, group=f"g{number}")
        self.assertEqual(watch.look_again(), 101)
        for number in range(100):
            self.roll_out(RolloutState.HALTED, group=f"g{number}")
        self.ear.has_room = True
        self.assertEqual(watch.look_again(), 0)
        self.assertEqual(self.names(), ["journal_failing", *["rollout_halted"] * 100])
        self.assertEqual(len(self.ear.alarms), 101)

    def test_what_the_command_failed_over_is_told_again_as_it_is_then_after_a_pause(self):
        pause = self.ear.first_pause_seconds = 0.05
        watch = self.watch()
        self.ear.is_well, self.is_failing = False, True
        self.roll_out(RolloutState.RUNNING)
        watch.look_again()
        watch.look_again()
        self.assertEqual(self.names(), ["journal_failing", "rollout_moved"])
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        self.assertEqual(self.names(), ["rollout_halted"])
        pauses = []
        for self.ear.is_well in (False, False, True):
            began = time.monotonic()
            self.assertTrue(until(lambda: watch.look_again() or len(self.ear.told) == 2))
            pauses.append(time.monotonic() - began)
            self.assertEqual(self.names(), ["journal_failing", "rollout_halted"])
        self.assertGreater(pauses[-1], 3 * pause)
        self.assertEqual(watch.accounts[""].waiting, 0)

    def test_a_journal_that_fails_from_the_start_is_told(self):
        self.is_failing = True
        self.watch().look_again()
        self.assertEqual(self.names(), ["journal_failing"])

    def test_an_earlier_step_that_is_heard_after_a_halt_is_not_the_last_one(self):
        watch = self.watch()
        self.ear.is_well = None
        for state in (RolloutState.RUNNING, RolloutState.HALTED):
            self.roll_out(state)
            watch.look_again()
        for when_ended in reversed(self.ear.ends):
            when_ended(Delivery(True))
        again = Ear()
        self.watch("", again).look_again()
        self.assertEqual(again.told, [])

    def test_a_step_of_two_notices_is_told_again_if_one_of_them_was_not_heard(self):
        watch = self.watch()
        self.ear.is_well = None
        self.roll_out(RolloutState.RUNNING, asks=("a",), waiting="1")
        watch.look_again()
        first, second = self.ear.ends
        self.assertEqual(watch.accounts[""].waiting, 1)
        first(Delivery(False, "no"))
        second(Delivery(True))
        ids = [each["id"] for each in self.ear.told]
        self.assertEqual(self.names(), ["rollout_moved", "rollout_waits"])
        again = Ear()
        self.watch("", again).look_again()
        self.assertEqual([each["id"] for each in again.told], ids)

    def test_each_receiver_is_told_by_itself(self):
        well, dead = Ear("a"), Ear("b")
        dead.is_well = False
        watch = self.watch("", self.ear, well, dead)
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        watch.look_again()
        self.assertEqual(
            [len(each.told) for each in (self.ear, well, dead)],
            [1, 1, 1],
        )
        self.assertEqual([each.waiting for each in watch.accounts.values()], [0, 0, 1])
        well, dead = Ear("a"), Ear("b")
        self.watch("", self.ear, well, dead).look_again()
        self.assertEqual([len(each.told) for each in (self.ear, well, dead)], [1, 0, 1])

    def test_what_was_told_of_urls_that_are_no_longer_given_is_deleted(self):
        self.watch("", self.ear, Ear("a"), Ear("b"))
        self.watch("", Ear("a"))
        names = sorted(path.name for path in (self.data_dir / "log").glob("told*"))
        self.assertEqual(names, ["told.json", "told_a.json"])

    def test_a_notice_keeps_its_id_and_its_time_when_it_is_told_again(self):
        self.ear.first_pause_seconds = 0.01
        self.ear.is_well = False
        watch = self.watch()
        self.is_failing = True
        self.roll_out(RolloutState.HALTED)
        self.assertTrue(until(lambda: watch.look_again() or len(self.ear.told) >= 6))
        said = {(each["event"], each["id"], each["time"]) for each in self.ear.told}
        self.assertEqual(len(said), 2)

    def test_a_receiver_that_asks_for_a_longer_pause_gets_it(self):
        self.ear.first_pause_seconds, self.ear.wait_seconds = 0.0, 3600.0
        self.ear.is_well = False
        watch = self.watch()
        self.roll_out(RolloutState.HALTED)
        for _ in range(5):
            watch.look_again()
        self.assertEqual(self.names(), ["rollout_halted"])

    def test_a_notice_that_could_not_be_told_for_days_is_given_up(self):
        self.ear.first_pause_seconds = 0.0
        self.ear.is_well = False
        watch = self.watch()
        self.roll_out(RolloutState.HALTED)
        with (
            mock.patch("ota_server.rollouts.notice_account.GIVE_UP_SECONDS", 0.02),
            self.assertLogs("ota_server.rollouts.notice_account") as logs,
        ):
            until(lambda: watch.look_again() or not watch.accounts[""].waiting)
        self.assertIn("could not be told of rollout_halted for three days", logs.output[0])
        told = len(self.ear.told)
        watch.look_again()
        self.watch().look_again()
        self.assertEqual(len(self.ear.told), told)

    def test_a_hold_is_told_when_it_begins_and_when_it_ends_also_while_no_server_runs(self):
        self.watch()
        self.hold("")
        self.watch().look_again()
        (begun,) = self.ear.told
        self.assertEqual((begun["user"], begun["reason"]), ("ann", "smoke"))
        self.assertRegex(
            begun["text"], r"everything is on hold since \S+ by ann: smoke; `.* unhold"
        )
        watch = self.watch()
        self.unhold("")
        watch.look_again()
        watch.look_again()
        self.watch().look_again()
        self.assertEqual(self.names(), ["hold_begun", "hold_ended"])

    def test_a_hold_of_all_products_is_told_once_and_that_of_one_with_its_name(self):
        for part in ("version", "log"):
            (product_dir(self.data_dir, "plug") / part).mkdir(parents=True)
        watches = self.watch(), self.watch("plug")

        def look() -> list[str]:
            for _ in range(3):
                for watch in watches:
                    watch.look_again()
            texts = [each["text"] for each in self.ear.told]
            self.ear.told.clear()
            return texts

        self.hold("plug")
        for watch in watches:
            watch.look_again()  # in the middle of a hold of all
        self.hold("")
        (text,) = look()
        self.assertRegex(text, "^everything is on hold")
        self.unhold("plug", "")
        self.assertEqual(look(), ["the hold has ended: devices are offered what they should run"])
        self.hold("plug")
        (text,) = look()
        self.assertRegex(text, "^product plug: the product plug is on hold")
        self.unhold("plug")
        (text,) = look()
        self.assertRegex(text, "^product plug: the hold has ended")

    def test_a_record_that_is_damaged_is_said_and_all_is_told_again(self):
        record = self.data_dir / "log" / "told.json"
        self.roll_out(RolloutState.HALTED)
        for content in (b"", b"{", b"[]", b'{"": 1}', b'{"": {"id": "1", "state": "?"}}', b"\xff"):
            with self.subTest(content):
                record.write_bytes(content)
                with self.assertLogs("ota_server.rollouts.told_record") as logs:
                    self.watch().look_again()
                self.assertIn("told.json", logs.output[0])
                self.assertEqual(self.names(), ["rollout_halted"])

    def test_a_record_that_cannot_be_written_holds_up_nothing(self):
        (self.data_dir / "log" / "told.json").mkdir()
        with self.assertLogs("ota_server.rollouts.told_record") as logs:
            watch = self.watch()
            self.roll_out(RolloutState.HALTED)
            watch.look_again()
        self.assertEqual(self.names(), ["rollout_halted"])
        self.assertIn("may be told again", logs.output[-1])

    def test_a_plan_that_cannot_be_read_is_as_it_was(self):
        self.roll_out(RolloutState.RUNNING)
        watch = self.watch()
        plan = self.data_dir / "version" / "rollout.json"
        content = plan.read_bytes()
        for broken in (b"{", b""):
            plan.write_bytes(broken)
            watch.look_again()
        plan.write_bytes(content)
        watch.look_again()
        self.assertEqual(self.ear.told, [])

    def test_a_journal_that_fails_and_works_again_is_told_also_without_version(self):
        watch = self.watch()
        (self.data_dir / "version").rmdir()
        for self.is_failing in (True, True, False):
            watch.look_again()
        self.assertEqual(
            [each["event"] for each in self.ear.told], ["journal_failing", "journal_works"]
        )
