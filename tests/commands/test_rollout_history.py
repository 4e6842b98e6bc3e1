"""`rollout history`, and how long `rollout status` shows a rollout that is over."""

import json
import os
import time
from typing import Any

from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan, progress_name
from ota_server.rollouts.files import ENDED_NAME
from ota_server.rollouts.history import ended_rollouts, note_end, note_replaced
from ota_server.rollouts.outcome_list import ListedDevice
from ota_server.system.files import replace
from tests.support.fleet import NEW, OLD, RolloutCase, mac_of, run_rollout

NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
DEVICE = ListedDevice(mac_of(7), "failed", "it failed", OLD, format_time(NOW_MS), "192.0.2.7")


class HistoryCase(RolloutCase):
    def over(
        self, state: str, hours_ago: float = 0.0, group: str = "", **more: Any
    ) -> RolloutProgress:
        """Have a rollout that is over, so many hours ago, that began three hours before that."""
        begun = format_time(NOW_MS - round((hours_ago + 3) * HOUR_MS))
        plan = self.roll_out(group=group, time=begun, id=f"{state}-{group}", **more)
        counts = {"active": 10, "updated": 7, "failed": 3, "reach": 10}
        progress = RolloutProgress(plan.id, state, 1, begun, "3 of 10 failed", counts)
        path = self.data_dir / "version" / progress_name(group)
        replace(path, format_plan(progress))
        when = time.time() - hours_ago * 3600
        for name in (path.name, path.name.replace("progress", "rollout")):
            os.utime(self.data_dir / "version" / name, (when, when))
        return progress

    def run_it(self, *arguments: str) -> tuple[int, str, str]:
        return run_rollout(self.data_dir, *arguments)


class FutureTest(HistoryCase):
    def test_times_from_the_future_are_shown_as_now(self):
        self.over("done", group="beta")
        entry = {"time": "2040-01-01T00:00:00.000Z", "id": "7", "version": NEW, "group": ""}
        entry |= {"start_time": entry["time"], "end_time": entry["time"], "state": "done"}
        (self.data_dir / "log" / ENDED_NAME).write_text(json.dumps(entry) + "\n")
        for more in ((), ("--json",)):
            with self.subTest(more):
                self.assertNotIn("2040", self.run_it("history", *more)[1])
        found = ended_rollouts(self.data_dir, NOW_MS)[-1]
        self.assertEqual((found.start_time, found.end_time), (format_time(NOW_MS),) * 2)


class SizeTest(HistoryCase):
    def test_the_oldest_rollouts_lose_their_devices_where_all_take_too_much_room(self):
        path = self.data_dir / "log" / ENDED_NAME
        plan = RolloutPlan("0", NEW, "", (100.0,), format_time(NOW_MS), OLD)
        note_end(self.data_dir, plan, None, [DEVICE] * 5000, NOW_MS)
        line = path.read_text()
        path.write_text("".join(line.replace('"id": "0"', f'"id": "{n}"') for n in range(40)))
        note_end(self.data_dir, plan._replace(id="new"), None, [DEVICE], NOW_MS)
        self.assertLess(path.stat().st_size, 16 << 20)
        found = {each.id: each for each in ended_rollouts(self.data_dir, NOW_MS)}
        self.assertEqual({*found}, {*map(str, range(40)), "new"})
        self.assertEqual((found["0"].devices, found["0"].more), (None, 0))
        self.assertEqual(len(found["39"].devices or ()), 5000)
        self.assertEqual(found["new"].devices, (DEVICE,))

    def test_a_line_that_was_edited_stays_as_it_is(self):
        path = self.data_dir / "log" / ENDED_NAME
        path.write_bytes(b"by hand\n" + b"x" * (17 << 20) + b"\n[]\n")
        plan = RolloutPlan("0", NEW, "", (100.0,), format_time(NOW_MS), OLD)
        note_end(self.data_dir, plan, None, [DEVICE], NOW_MS)
        self.assertTrue(path.read_bytes().startswith(b"by hand\nxx"))


class TwoStoppedTest(HistoryCase):
    def test_what_lists_the_devices_of_one_lists_those_of_no_other(self):
        self.over("halted", version="v2.0.0")
        self.assertIn("`rollout devices` lists", self.run_it("status")[1])
        self.over("halted", group="beta", version="v3.0.0")
        for more in ((), ("--group", ""), ("--group", "beta")):
            out = self.run_it("status", *more)[1]
            for group, typed in (("", "''"), ("beta", "beta")):
                if group in (more[1:] or ("", "beta")):
                    with self.subTest(more=more, group=group):
                        self.assertIn(f"`rollout devices --group {typed}` lists", out)

    def test_a_revert_names_the_group_of_the_rollout_before_it(self):
        for group in ("", "beta"):
            self.over("done", group=group, reverts="v3.0.0", version=OLD)
        for group, typed in (("", "''"), ("beta", "beta")):
            with self.subTest(group):
                said = self.run_it("devices", "--group", group)[2]
                self.assertIn(f"; `rollout devices v3.0.0 --group {typed}` has those", said)


class GroupTest(HistoryCase):
    def test_a_group_that_is_not_there_and_was_not_is_refused(self):
        code, out, said = self.run_it("history", "--group", "nope")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("there is no group nope", said)

    def test_the_history_of_a_deleted_group_can_be_read(self):
        self.over("done", group="beta")
        self.assertIn("to the group beta", self.run_it("history", "--group", "beta")[1])

    def test_a_group_without_rollouts_and_the_fleet_have_an_empty_history(self):
        (self.data_dir / "version" / "groups").mkdir()
        (self.data_dir / "version" / "groups" / "beta.txt").write_text(mac_of(7))
        for group in ("beta", ""):
            with self.subTest(group):
                code, out, _ = self.run_it("history", "--group", group)
                self.assertEqual((code, out.splitlines()[-1]), (0, "0 rollouts"))


class StatusTest(HistoryCase):
    def test_one_that_is_over_leaves_status_after_a_day_and_stays_in_the_history(self):
        self.over("done", hours_ago=23)
        self.assertIn(f"rollout of {NEW} to the fleet", self.run_it("status")[1])
        self.over("done", hours_ago=25)
        for more in ((), ("--json",), ("--watch",)):
            with self.subTest(more):
                code, out, said = self.run_it("status", *more)
                self.assertEqual((code, said), (0, ""))
                self.assertNotIn(NEW, out)
        self.assertIn("`rollout history` has older ones", self.run_it("status")[1])
        self.assertRegex(self.run_it("history")[1], f"done    {NEW}\n    to the fleet, ")

    def test_one_whose_files_are_from_the_future_ended_just_now(self):
        self.over("done", hours_ago=-1000)
        self.assertIn(f"rollout of {NEW} to the fleet", self.run_it("status")[1])
        (entry,) = ended_rollouts(self.data_dir, NOW_MS)
        self.assertEqual(entry.end_time, format_time(NOW_MS))

    def test_one_that_waits_for_a_person_says_what_to_do_and_exits_with_1(self):
        (self.data_dir / "version" / "groups").mkdir()
        (self.data_dir / "version" / "groups" / "beta.txt").write_text(mac_of(7))
        missing = f"1 is missing: {mac_of(7)} (not heard from)"
        for group, out in (("", f"`device forget {mac_of(7)}`"), ("beta", "`group remove beta ")):
            for state, more in (("running", {"waiting": missing}), ("paused", {"reason": missing})):
                with self.subTest(group=group, state=state):
                    plan = self.roll_out(group=group, id="1", time=format_time(NOW_MS))
                    progress = RolloutProgress("1", state, 0, plan.time, asks=(mac_of(7),), **more)
                    path = self.data_dir / "version" / progress_name(group)
                    replace(path, format_plan(progress))
                    code, text, _ = self.run_it("status", "--group", group)
                    self.assertEqual(code, 1)
                    option = f" --group {group}" if group else ""
                    self.assertIn(f"it waits for you: `rollout promote{option}` goes on", text)
                    self.assertIn(out, text)
                    self.assertIn(f"`rollout abort{option}` ends the rollout", text)
                    _, line, _ = self.run_it("status", "--group", group, "--json")
                    self.assertIs(json.loads(line)["waits_for_person"], True)

    def test_one_that_goes_on_or_that_an_operator_paused_waits_for_nobody(self):
        for changes, progress in (
            ({}, {"state": "running"}),
            ({"wanted": "pause"}, {"state": "paused", "reason": "paused by an operator"}),
            ({"resumed": 1}, {"state": "paused", "reason": "the image is missing"}),
            ({"promoted": 1}, {"state": "running", "asks": (mac_of(7),)}),
        ):
            with self.subTest(changes=changes, progress=progress):
                plan = self.roll_out(id="1", time=format_time(NOW_MS), **changes)
                more = RolloutProgress(id="1", wave=0, wave_time=plan.time, **progress)
                replace((self.data_dir / "version" / "progress.json"), format_plan(more))
                self.assertEqual(self.run_it("status")[0], 0)

    def test_a_line_that_is_too_long_goes_on_between_words(self):
        self.over("halted")
        lines = self.on_terminal(80, "rollout", "status", code=1)
        self.assertLessEqual(max(map(len, lines)), 80)


class WhichIsMeantTest(HistoryCase):
    def test_a_revert_is_of_the_last_that_was_halted_and_not_of_older_or_finished_ones(self):
        (self.data_dir / "version" / "groups").mkdir()
        for group in ("alpha", "beta", "gamma"):
            (self.data_dir / "version" / "groups" / f"{group}.txt").write_text(mac_of(1))
        self.over("halted", hours_ago=1)
        self.over("done", hours_ago=0, group="alpha")
        self.over("halted", hours_ago=100, group="beta")
        self.over("aborted", hours_ago=200, group="gamma")
        code, said, _ = self.run_it("abort", "--revert")
        self.assertEqual(code, 0)
        self.assertIn(f"no device runs {NEW}", said)

    def test_one_that_is_on_hides_none_that_was_halted_today(self):
        (self.data_dir / "version" / "groups").mkdir()
        (self.data_dir / "version" / "groups" / "beta.txt").write_text(mac_of(1))
        self.over("halted", hours_ago=1)
        self.roll_out(group="beta", time=format_time(NOW_MS), id="on")
        self.assertIn("say which one: --group", self.run_it("abort", "--revert")[2])
        self.assertEqual(self.run_it("abort")[0], 0)


class HistoryTest(HistoryCase):
    def plan(self, number: int, **more: Any) -> RolloutPlan:
        begun = format_time(NOW_MS - (100 - number) * HOUR_MS)
        plan = RolloutPlan(f"id-{number}", NEW, "", (50.0, 100.0), begun, OLD)
        return plan._replace(**more)

    def note(self, number: int, state: str = "halted", **more: Any) -> None:
        """Put a rollout on record that took 90 minutes."""
        plan = self.plan(number, **more)
        counts = {"active": 10, "updated": 7, "failed": 3, "reach": 10}
        progress = RolloutProgress(plan.id, state, 1, plan.time, "3 of 10 failed", counts)
        end_ms = NOW_MS - (100 - number) * HOUR_MS + 90 * 60_000
        note_end(self.data_dir, plan, progress, [DEVICE], end_ms)

    def test_it_has_start_end_duration_result_and_counts_of_each(self):
        self.note(1)
        self.note(2, "aborted", reverts="v3.0.0", group="beta")
        _, out, _ = self.run_it("history")
        start = format_time(NOW_MS - 99 * HOUR_MS)[:19]
        lines = out.splitlines()
        self.assertEqual(lines[0].split(), ["START", "END", "TOOK", "RESULT", "RELEASE"])
        self.assertRegex(lines[1], rf"^{start}Z  \S+Z  1h 30m  halted   {NEW}$")
        said = "    to the fleet, wave 2 of 2, 7 of 10 updated, 3 failed: 3 of 10 failed"
        self.assertEqual(lines[2], said)
        self.assertIn("    a revert from v3.0.0 for the group beta, wave 2 of 2", lines[4])
        self.assertEqual(lines[-1], "2 rollouts")
        self.assertEqual(self.run_it("history", "--limit", "1")[1].count("Z  "), 2)
        self.assertIn("1 rollout\n", self.run_it("history", "--group", "beta")[1])

    def test_none_is_over_later_than_now_or_before_it_began_where_a_clock_was_ahead(self):
        self.note(1000)
        plan = self.roll_out(time=format_time(NOW_MS + 2000 * HOUR_MS), wanted="abort")
        entries = ended_rollouts(self.data_dir, NOW_MS)
        self.assertIn(plan.id, [entry.id for entry in entries])
        for entry in entries:
            self.assertLessEqual(entry.start_time, entry.end_time)
            self.assertLessEqual(entry.end_time, format_time(NOW_MS))
        self.assertEqual(len(entries), 2)

    def test_json_has_the_devices_of_each(self):
        self.note(1)
        fields = json.loads(self.run_it("history", "--json")[1])
        self.assertEqual(fields["devices"], [DEVICE._asdict()])
        self.assertEqual((fields["duration_seconds"], fields["state"]), (5400.0, "halted"))

    def test_it_fits_80_columns_and_local_times_have_their_offset(self):
        self.note(1)
        for more in ((), ("--local",)):
            lines = self.on_terminal(80, "rollout", "history", *more)
            self.assertLessEqual(max(map(len, lines)), 80, lines)
        self.assertRegex(self.run_it("history", "--local")[1], r"\d[+-]\d\d:\d\d  ")

    def test_of_two_lines_of_one_rollout_the_later_one_counts(self):
        self.note(1, "aborted")
        self.note(1, "halted")
        self.assertEqual([each.state for each in ended_rollouts(self.data_dir, NOW_MS)], ["halted"])

    def test_lines_that_were_edited_are_left_out(self):
        self.note(1)
        path = self.data_dir / "log" / ENDED_NAME
        fields = json.loads(path.read_bytes())
        changes = ({"id": 5}, {"start_time": "x"}, {"counts": []}, {"devices": [1]}, {"wave": ""})
        with path.open("ab") as file:
            for change in changes:
                line = json.dumps({**fields, "id": str(change), **change})
                file.write(line.encode() + b"\n")
            file.write(b"\xff{\n")
        self.assertEqual(len(ended_rollouts(self.data_dir, NOW_MS)), 1)

    def test_a_history_that_cannot_be_written_keeps_no_rollout_from_beginning(self):
        self.over("done", hours_ago=1)
        (self.data_dir / "log" / ENDED_NAME).mkdir()
        with self.assertLogs("ota_server.rollouts.history", "WARNING"):
            note_end(self.data_dir, self.plan(1), None, None, NOW_MS)
        with self.assertLogs("ota_server.rollouts.history", "WARNING"):
            note_replaced(self.data_dir, "", NOW_MS)

    def test_one_that_another_takes_the_place_of_before_a_controller_saw_its_end_is_on_record(self):
        self.over("running", hours_ago=1, wanted="abort")
        note_replaced(self.data_dir, "", NOW_MS)
        note_replaced(self.data_dir, "", NOW_MS)
        self.assertEqual(len((self.data_dir / "log" / ENDED_NAME).read_bytes().splitlines()), 1)
        (self.data_dir / "version" / "rollout.json").unlink()
        (entry,) = ended_rollouts(self.data_dir, NOW_MS)
        self.assertEqual((entry.state, entry.reason), ("aborted", "aborted by an operator"))
        self.assertEqual(entry.counts["failed"], 3)

    def test_no_history_is_no_failure(self):
        self.assertEqual(
            self.run_it("history")[:2], (0, "START  END  TOOK  RESULT  RELEASE\n0 rollouts\n")
        )
