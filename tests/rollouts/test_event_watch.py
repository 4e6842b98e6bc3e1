"""`serve --on-event`: a real server runs a command when something happens."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutState,
    format_plan,
    plan_name,
    progress_name,
)
from ota_server.rollouts.event_watch import EventWatch
from ota_server.rollouts.history import note_end, note_replaced
from ota_server.system.data_dir import product_dir
from ota_server.system.files import replace
from tests.support import DataDirCase, Process, until
from tests.support.fleet import NEW, OLD, RolloutCase, run_rollout

TIME = "2026-11-28T20:00:00.000Z"


class ServerTest(RolloutCase):
    def told(self) -> list[dict[str, Any]]:
        """Return the events that the command has got."""
        try:
            lines = (self.data_dir / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def names(self) -> list[str]:
        return [each["event"] for each in self.told()]

    def serve_and_tell(self, command: str = "cat") -> Process:
        return self.serve("--on-event", f"{command} >> {self.data_dir}/events; echo heard")

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
        self.assertIn("--on-event (rollout_moved): heard", server.end()[1])

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
        hung = self.serve("--on-event", f"touch {self.data_dir}/begun; exec sleep 3")
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
        self.assertNotIn("not told of", server.end()[1])

    def record(self) -> bytes:
        return (self.data_dir / "log" / "told.json").read_bytes()

    def test_a_stop_says_how_many_events_were_not_told(self):
        server = self.serve("--on-event", f"touch {self.data_dir}/begun; exec sleep 600")
        self.roll_out()
        self.ask_until(server, (self.data_dir / "begun").exists)
        self.assertRegex(server.end()[1], r"--on-event was not told of: \d; what became of")

    def test_a_command_that_is_empty_is_refused(self):
        for text in ("", "  "):
            server = self.serve("--on-event", text)
            self.assertEqual(server.end()[0], 2)
            self.assertIn("--on-event: is empty", server.log)


class WatchTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.is_failing = False
        self.has_room = True
        self.is_heard: bool | None = True  # None: the command has not ended
        self.told: list[Mapping[str, Any]] = []
        self.alarms: list[str] = []

    def tell(
        self, event: Mapping[str, Any], is_alarm: bool, when_ended: Callable[[bool], None] | None
    ) -> bool:
        """Take an event, as the command does."""
        if self.has_room:
            self.told.append(event)
            self.alarms += [event["event"]] * is_alarm
            if self.is_heard is not None and when_ended is not None:
                when_ended(self.is_heard)
        return self.has_room

    def names(self) -> list[str]:
        """Return what was told since the last call."""
        names = [each["event"] for each in self.told]
        self.told.clear()
        return names

    def watch(self, product: str = "") -> EventWatch:
        folder = product_dir(self.data_dir, product)
        return EventWatch(folder, lambda: self.is_failing, self.tell)

    def roll_out(
        self, state: RolloutState, number: str = "1", group: str = "", product: str = ""
    ) -> RolloutPlan:
        plan = RolloutPlan(number, NEW, group, (100.0,), TIME, OLD)
        progress = RolloutProgress(number, state, 0, TIME, reason="see `devices MAC`")
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
        of_all, of_one = self.told
        self.assertEqual(of_all["event"], "journal_failing")
        self.assertNotIn("product", of_all)
        self.assertEqual((of_one["event"], of_one["product"]), ("rollout_halted", "plug"))
        self.assertTrue(of_one["text"].startswith("product plug: rollout of v2.0.0 is halted"))
        self.assertIn(" devices MAC --product plug", of_one["reason"])

    def test_what_is_there_when_it_is_used_first_is_no_event(self):
        self.roll_out(RolloutState.HALTED)
        self.watch().look_after()
        self.watch().look_after()
        self.assertEqual(self.told, [])

    def test_commands_in_what_is_told_can_be_pasted(self):
        watch = self.watch()
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        (event,) = self.told
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
        self.assertEqual(self.told, [])

    def test_what_the_command_has_not_heard_is_told_again_at_the_next_start(self):
        watch = self.watch()
        self.is_heard = None
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
                    first = self.told[0]
                    self.assertEqual(first["state"], state or "aborted")
                    self.assertEqual((first["version"], first["waves"]), (NEW, 1))
                    self.assertEqual(self.names()[1:], ["rollout_moved"])

    def test_what_could_not_be_told_yet_is_told_later_as_it_is_then(self):
        watch = self.watch()
        self.has_room = False
        self.is_failing = True
        for number in range(100):
            self.roll_out(RolloutState.RUNNING, group=f"g{number}")
        self.assertEqual(watch.look_again(), 101)
        for number in range(100):
            self.roll_out(RolloutState.HALTED, group=f"g{number}")
        self.has_room = True
        self.assertEqual(watch.look_again(), 0)
        self.assertEqual(self.names(), ["journal_failing", *["rollout_halted"] * 100])
        self.assertEqual(len(self.alarms), 101)

    def test_what_the_command_failed_over_is_told_again_as_it_is_then_after_a_pause(self):
        pause = 0.05
        watch = EventWatch(self.data_dir, lambda: self.is_failing, self.tell, pause)
        self.is_heard, self.is_failing = False, True
        self.roll_out(RolloutState.RUNNING)
        watch.look_again()
        watch.look_again()
        self.assertEqual(self.names(), ["journal_failing", "rollout_moved"])
        self.roll_out(RolloutState.HALTED)
        watch.look_again()
        self.assertEqual(self.names(), ["rollout_halted"])
        pauses = []
        for self.is_heard in (False, False, True):
            began = time.monotonic()
            self.assertTrue(until(lambda: watch.look_again() or len(self.told) == 2))
            pauses.append(time.monotonic() - began)
            self.assertEqual(self.names(), ["journal_failing", "rollout_halted"])
        self.assertGreater(pauses[-1], 3 * pause)
        self.assertEqual(watch._failed, set())

    def test_a_journal_that_fails_from_the_start_is_told(self):
        self.is_failing = True
        self.watch().look_again()
        self.assertEqual(self.names(), ["journal_failing"])

    def test_an_earlier_step_that_is_heard_after_a_halt_is_not_the_last_one(self):
        watch = self.watch()
        heard: list[Callable[[bool], None]] = []
        self.tell = lambda event, is_alarm, when_ended: heard.append(when_ended) or True
        watch = self.watch()
        for state in (RolloutState.RUNNING, RolloutState.HALTED):
            self.roll_out(state)
            watch.look_again()
        for when_ended in reversed(heard):
            when_ended(True)
        del self.tell
        self.watch().look_again()
        self.assertEqual(self.told, [])

    def test_a_record_that_is_damaged_is_said_and_all_is_told_again(self):
        record = self.data_dir / "log" / "told.json"
        self.roll_out(RolloutState.HALTED)
        for content in (b"", b"{", b"[]", b'{"": 1}', b'{"": {"id": "1", "state": "?"}}', b"\xff"):
            with self.subTest(content):
                record.write_bytes(content)
                with self.assertLogs("ota_server.rollouts.event_watch") as logs:
                    self.watch().look_again()
                self.assertIn("told.json", logs.output[0])
                self.assertEqual(self.names(), ["rollout_halted"])

    def test_a_record_that_cannot_be_written_holds_up_nothing(self):
        (self.data_dir / "log" / "told.json").mkdir()
        with self.assertLogs("ota_server.rollouts.event_watch") as logs:
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
        self.assertEqual(self.told, [])

    def test_a_journal_that_fails_and_works_again_is_told_also_without_version(self):
        watch = self.watch()
        (self.data_dir / "version").rmdir()
        for self.is_failing in (True, True, False):
            watch.look_again()
        self.assertEqual(
            [each["event"] for each in self.told], ["journal_failing", "journal_works"]
        )
