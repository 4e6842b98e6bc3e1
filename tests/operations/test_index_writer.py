"""The writer of the device index: killed, with a damaged file, and as what decides changes."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

from ota_server.journal.record import format_record
from ota_server.model.timestamp import format_time
from ota_server.operations import index_schema
from ota_server.operations.device_filter import ALL_DEVICES, DeviceFilter, Stage
from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.operations.index_writer import IndexWriter
from ota_server.policy import edits
from ota_server.policy.device_state import Condition
from ota_server.policy.labels import set_label
from ota_server.policy.policy import RolloutState
from ota_server.policy.reason import Reason
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.policy.text import Who
from ota_server.rollouts.controller_loop import Controller
from ota_server.rollouts.journal_fold import ServerFacts
from tests.support import ROOT, until
from tests.support.fleet import NEW as NEW_RELEASE
from tests.support.fleet import OLD as OLD_RELEASE
from tests.support.fleet import RolloutCase
from tests.support.index import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    NEW,
    OLD,
    IndexCase,
    a_device,
    any_device,
    had,
    key_of,
)

# Steps without a pause, as long as somebody wants it to.
_WRITER = """
import sys, time
from pathlib import Path
from ota_server.operations.index_writer import IndexWriter
writer = IndexWriter(Path(sys.argv[1]), look_seconds=0.0)
print("begun", flush=True)
while True:
    writer.step(time.time_ns() // 1_000_000)
"""


class StartOfMachineTest(IndexCase):
    def setUp(self) -> None:
        super().setUp()
        for minutes in (30, 20, 10):
            self.know(1, last_seen_ms=self.now_ms - minutes * MINUTE_MS)
            self.catch_up()
        self.know(2)
        self.catch_up()
        self.rhythm = self.index.device(key_of(1)).interval_ms
        self.assertGreater(self.rhythm, 0)
        self.mark = self.file.with_name("index.sqlite-closed")

    def start_machine(self) -> None:
        """Have all that names this boot of the machine name the one before."""
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("UPDATE meta SET value = 'before' WHERE name = 'boot'")
            connection.commit()
        if self.mark.exists():
            self.mark.write_text("before")

    def go_on(self) -> None:
        self.writer = self.new_writer()
        self.catch_up()

    def test_one_that_was_closed_in_order_goes_on_and_knows_how_often_devices_ask(self):
        self.writer.close()
        for _ in range(2):
            self.start_machine()
            self.go_on()
            self.assertFalse(self.mark.exists())
            self.assertEqual(self.index.device(key_of(1)).interval_ms, self.rhythm)
            self.writer.close()

    def test_one_that_was_not_is_made_again(self):
        self.start_machine()  # a power cut: nobody has closed it
        self.go_on()
        self.assertEqual(self.index.device(key_of(1)).interval_ms, 0)

    def test_a_mark_of_another_start_is_worth_nothing(self):
        self.writer.close()
        self.start_machine()
        self.mark.write_text("long before")
        self.go_on()
        self.assertEqual(self.index.device(key_of(1)).interval_ms, 0)
        self.assertFalse(self.mark.exists())

    def test_one_that_is_not_whole_yet_gets_no_mark(self):
        self.file.unlink()
        self.writer.close()
        self.mark.unlink(missing_ok=True)
        self.writer = self.new_writer()
        self.writer.step(self.now_ms)
        self.writer.close()
        self.assertFalse(self.mark.exists())


class FollowTest(IndexCase):
    def test_what_a_device_does_is_in_the_index_after_the_next_step(self):
        self.know(1, OLD)
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).version, OLD)
        self.know(1, NEW, update_ms=self.now_ms)
        self.know(2, OLD)
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).version, NEW)
        self.assertEqual(self.index.summary().versions, {NEW: 1, OLD: 1})
        self.assert_whole()

    def test_a_forgotten_device_is_gone(self):
        for number in range(3):
            self.know(number)
        self.catch_up()
        self.note(key_of(1), a_device(self.now_ms), "forget")
        self.catch_up()
        self.assertIsNone(self.index.device(key_of(1)))
        self.assertEqual(self.index.summary().total, 2)
        self.assert_whole()
        with self.subTest("and comes back when it asks again"):
            self.know(1, OLD)
            self.catch_up()
            self.assertEqual(self.index.device(key_of(1)).version, OLD)
            self.assert_whole()

    def test_rotation_loses_nothing(self):
        self.know(1)
        self.catch_up()
        self.know(2)  # not read yet when its file is rotated
        device = a_device(self.now_ms - MINUTE_MS)
        first = self.rotate(1, {key_of(number): device for number in (1, 2)})
        self.know(3)
        self.catch_up()
        self.assert_whole()
        self.rotate(2, {key_of(number): device for number in (1, 2, 3)})
        first.unlink()
        self.know(4)
        self.catch_up()
        self.assertEqual(self.index.summary().total, 4)
        self.assert_whole()

    def test_lines_that_are_no_records_are_skipped_and_counted(self):
        self.know(1)
        with self.journal.open("ab") as file:
            file.write(b'{"event":"check","mac":"no"}\n')
        self.catch_up()
        with self.journal.open("ab") as file:
            file.write(b'\x00\xff\n{"event":"check","mac":"' + key_of(2).encode() + b'"}\n[]\n')
            file.write(b'{"time":"2026-11-24T00:00:00.000Z","event":"seal"}\n')
        self.know(3)
        self.catch_up()
        self.assertEqual({*self.index.keys()}, {key_of(1), key_of(3)})
        with closing(sqlite3.connect(self.file)) as database:
            (count,) = database.execute(
                "SELECT value FROM meta WHERE name = 'bad_lines'"
            ).fetchone()
        self.assertEqual(int(count), 4)

    def test_an_empty_journal_is_an_empty_index(self):
        self.catch_up()
        self.assertEqual(self.index.summary().total, 0)
        self.know(1)
        self.catch_up()
        self.assertEqual(self.index.summary().total, 1)

    def test_it_says_when_all_of_it_was_up_to_date(self):
        self.catch_up()
        self.assertEqual(self.index.summary().as_of_ms, self.now_ms)
        self.now_ms += MINUTE_MS
        self.catch_up()
        self.assertEqual(self.index.summary().as_of_ms, self.now_ms)


class KilledTest(IndexCase):
    def test_a_writer_that_is_killed_at_any_moment_leaves_an_index_that_goes_on(self):
        chance = random.Random(5)
        for number in range(3000):
            self.know(number, last_seen_ms=self.now_ms - HOUR_MS)
        for turn in range(8):
            process = subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(self.data_dir)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
            )
            self.assertEqual(process.stdout.readline(), b"begun\n")
            end = self.journal.stat().st_size + chance.randrange(400_000)
            while self.journal.stat().st_size < end:
                key = key_of(chance.randrange(3100))
                event = "forget" if chance.random() < 0.05 else "check"
                self.note(key, any_device(chance, self.now_ms), event)
            process.kill()
            self.assertEqual(process.wait(), -signal.SIGKILL)
            process.stdout.close()
            if turn in (3, 7):
                self.writer = self.new_writer()
                self.catch_up()
                self.assert_whole()
                self.writer.close()

    def test_a_writer_that_is_killed_while_it_makes_the_index_begins_again(self):
        for number in range(5000):
            self.know(number)
        self.assertTrue(self.writer.step(self.now_ms))
        self.assertLess(self.index.summary().progress, 1)
        self.writer.close()
        with self.subTest("in its last part, by a thread"):
            self.writer = self.new_writer()
            while self.writer.step(self.now_ms):
                pass
            self.assertTrue(self.writer.is_making)
            self.writer.close()
            self.assertLess(self.index.summary().progress, 1)
        self.writer = self.new_writer()
        self.catch_up()
        self.assertEqual(self.index.summary().progress, 1)
        self.assert_whole()

    def test_meanwhile_what_is_there_can_be_read(self):
        for number in range(5000):
            self.know(number)
        seen = set()
        while self.writer.step(self.now_ms) or self.writer.is_making:
            summary = self.index.summary()
            seen.add(summary.progress)
            self.assertEqual(self.index.page(sort="seen").total, (summary.total, True))
            self.assertEqual(self.index.lately(3), [])
        self.assertGreater(len(seen), 2)
        self.assertLess(max(seen), 1)
        self.assertEqual(self.index.summary().progress, 1)


class LostTest(IndexCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(500):
            self.know(number)
        self.catch_up()

    def is_begun(self) -> bool:
        """Have the writer work; return whether it makes the index."""
        self.writer.step(self.now_ms)
        return self.writer.is_making

    def assert_made_again(self) -> None:
        """Check that the next steps make an index that is right."""
        with self.assertLogs("ota_server.operations", "INFO") as logged:
            self.assertTrue(until(self.is_begun, pause_seconds=0.0))
            self.catch_up()
        self.assertRegex("\n".join(logged.output), "index of devices is made")
        self.assert_whole()

    def test_one_that_is_deleted_while_it_is_open_is_made_again(self):
        self.file.unlink()
        self.assert_made_again()

    def test_one_that_is_deleted_with_its_log_is_made_again(self):
        for path in self.file.parent.glob("index.sqlite*"):
            path.unlink()
        self.assert_made_again()

    def test_one_that_was_damaged_meanwhile_is_made_again(self):
        whole = self.file.read_bytes()
        for name, content in (
            ("cut short", whole[: len(whole) // 3]),
            ("empty", b""),
            ("garbage", b"garbage" * 1000),
            ("another database", self.another_database()),
            ("a page of zeros", whole[:4096] + b"\0" * 8192 + whole[12288:]),
        ):
            with self.subTest(name):
                self.close()
                self.file.write_bytes(content)
                self.writer = self.new_writer()
                self.assert_made_again()

    def close(self) -> None:
        """Close the file everywhere: then it has no log that would still hold what it held."""
        self.index.close()
        self.writer.close()

    def another_database(self) -> bytes:
        path = self.data_dir / "another"
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE devices (number)")
            database.commit()
        return path.read_bytes()

    def test_one_that_a_reader_finds_damaged_is_deleted_and_made_again(self):
        self.close()
        content = bytearray(self.file.read_bytes())
        # All pages after that with the table of tables: rows cannot be read.
        content[4096:] = b"\x55" * (len(content) - 4096)
        self.file.write_bytes(content)
        with self.assertRaisesRegex(IndexAway, "damaged"):
            self.index.page()
        self.assertFalse(self.file.exists())
        self.writer = self.new_writer()
        self.assert_made_again()

    def test_one_of_another_version_is_made_again(self):
        self.writer.close()
        with closing(sqlite3.connect(self.file)) as database:
            database.execute(f"PRAGMA user_version = {index_schema.SCHEMA_VERSION + 1}")
        with self.assertRaises(IndexAway):
            self.index.page()
        self.writer = self.new_writer()
        self.assert_made_again()

    def test_one_from_before_the_machine_started_is_made_again(self):
        self.writer.close()
        with closing(sqlite3.connect(self.file)) as database:
            database.execute("UPDATE meta SET value = 'another boot' WHERE name = 'boot'")
            database.commit()
        self.writer = self.new_writer()
        self.assert_made_again()

    def test_one_that_does_not_say_how_far_it_is_is_made_again(self):
        for name, value in (("position", '["x"]'), ("position", "7"), ("away", "null")):
            with self.subTest(name=name, value=value):
                self.writer.close()
                with closing(sqlite3.connect(self.file)) as database:
                    sql = "UPDATE meta SET value = ? WHERE name = ?"
                    database.execute(sql, (value, name))
                    database.commit()
                self.writer = self.new_writer()
                self.assert_made_again()

    def test_one_of_another_journal_is_made_again(self):
        self.writer.close()
        self.journal.unlink()
        self.know(7, OLD)
        self.writer = self.new_writer()
        self.assert_made_again()
        self.assertEqual([*self.index.keys()], [key_of(7)])

    def test_one_whose_journal_was_cut_is_made_again(self):
        content = self.journal.read_bytes()
        os.truncate(self.journal, content.index(b"\n", len(content) // 2) + 1)
        self.know(7, OLD)
        self.assert_made_again()

    def test_a_link_in_its_place_is_not_followed(self):
        elsewhere = self.data_dir / "elsewhere"
        elsewhere.write_bytes(b"precious")
        self.writer.close()
        self.file.unlink()
        self.file.symlink_to(elsewhere)
        self.writer = self.new_writer()
        self.assert_made_again()
        self.assertEqual(elsewhere.read_bytes(), b"precious")
        self.assertFalse(self.file.is_symlink())

    def test_where_it_cannot_be_made_the_step_says_so_and_raises_nothing(self):
        self.file.unlink()
        self.file.mkdir()
        with self.assertLogs("ota_server.operations", "WARNING") as logged:
            for _ in range(3):
                self.assertFalse(self.writer.step(self.now_ms))
        self.assertEqual(len(logged.output), 1)
        self.assertIn("stands still", logged.output[0])
        with self.assertRaisesRegex(IndexAway, "index.sqlite is a folder: move it away"):
            self.index.summary()

    def test_a_reader_says_why_a_missing_one_cannot_be_made(self):
        self.writer.problem = "Read-only file system"
        self.file.unlink()
        index = DeviceIndex(self.data_dir, lambda: self.writer.problem)
        self.addCleanup(index.close)
        with self.assertRaisesRegex(IndexAway, "not there, and cannot be made: Read-only file sys"):
            index.summary()
        self.catch_up()
        self.assertEqual(self.writer.problem, "")
        index.summary()


class NoRoomTest(IndexCase):
    def test_where_the_disk_is_full_the_journal_comes_first_and_the_index_goes(self):
        self.know(1)
        self.catch_up()
        (pages,) = self.writer._connection.execute("PRAGMA page_count").fetchone()
        self.writer._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        for number in range(2000):
            self.know(number)
        with self.assertLogs("ota_server.operations", "WARNING") as logged:
            while self.file.exists():
                self.writer.step(self.now_ms)
        self.assertIn("full", logged.output[0])
        self.assertFalse(self.writer.step(self.now_ms))
        self.assertFalse(self.file.exists())
        self.assertEqual([*self.file.parent.glob("index*")], [])


class DecidedTest(IndexCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(4):
            self.know(number, OLD)
        self.catch_up()

    def conditions(self) -> list[Condition]:
        return [row.condition for row in self.index.page().rows]

    def test_another_target_concerns_all(self):
        self.assertEqual(self.conditions(), [Condition.BEHIND] * 4)
        self.set_target(OLD)
        self.catch_up()
        self.assertEqual(self.conditions(), [Condition.UP_TO_DATE] * 4)
        self.assertEqual(self.index.device(key_of(1)).release, OLD)
        self.assert_whole()

    def test_a_pin_and_its_end_concern_its_device(self):
        edits.pin(self.data_dir, Who("devices", key_of(1)), OLD, self.now_ms + HOUR_MS)
        self.catch_up()
        row = self.index.device(key_of(1))
        self.assertEqual((row.is_pinned, row.condition), (True, Condition.UP_TO_DATE))
        self.assertEqual(row.reason, Reason.PIN)
        self.pass_time(HOUR_MS + 5000)
        row = self.index.device(key_of(1))
        self.assertEqual((row.is_pinned, row.condition), (False, Condition.BEHIND))
        self.assert_whole()

    def test_groups_and_labels_are_in_the_rows_of_their_devices(self):
        edits.add_members(self.data_dir, "beta", [key_of(1), key_of(2)])
        set_label(self.data_dir, key_of(2), "Pump <b>1</b>")
        self.catch_up()
        row = self.index.device(key_of(2))
        self.assertEqual((row.groups, row.label), (("beta",), "Pump <b>1</b>"))
        self.assertEqual(self.index.count(DeviceFilter(group="beta")), 2)
        set_label(self.data_dir, key_of(2), "")
        edits.remove_members(self.data_dir, "beta", [key_of(2)])
        self.catch_up()
        row = self.index.device(key_of(2))
        self.assertEqual((row.groups, row.label), ((), ""))

    def test_the_hold_and_its_end_concern_all(self):
        self.decide("hold.json", "{}")
        self.catch_up()
        self.assertEqual(self.conditions(), [Condition.HELD_BACK] * 4)
        (self.data_dir / "version" / "hold.json").unlink()
        self.catch_up()
        self.assertEqual(self.conditions(), [Condition.BEHIND] * 4)

    def test_a_wave_concerns_all_and_counts_of_a_rollout_nobody(self):
        self.set_target(OLD)
        self.catch_up()
        now = format_time(self.now_ms)
        plan = RolloutPlan("id", NEW, "", (100.0,), now, OLD, count_new=True)
        self.decide("rollout.json", format_plan(plan).decode())
        progress = RolloutProgress("id", str(RolloutState.RUNNING), 0, now)
        self.decide("progress.json", format_plan(progress).decode())
        self.catch_up()
        rows = self.index.page().rows
        self.assertEqual([row.reason for row in rows], [Reason.ROLLOUT] * 4)
        self.assertEqual([row.release for row in rows], [NEW] * 4)
        # With what would show a sweep: a row that says something else stays so.
        with closing(sqlite3.connect(self.file)) as database:
            database.execute("UPDATE devices SET release = 'mark'")
            database.commit()
        progress = progress._replace(counts={"offered": 3})
        self.decide("progress.json", format_plan(progress).decode())
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).release, "mark")
        progress = progress._replace(state=str(RolloutState.PAUSED))
        self.decide("progress.json", format_plan(progress).decode())
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).release, OLD)
        self.assertEqual(self.index.device(key_of(1)).reason, Reason.PAUSED)

    def test_what_was_decided_while_nobody_looked_is_taken_up(self):
        self.writer.close()
        self.set_target(OLD)
        self.writer = self.new_writer()
        self.catch_up()
        self.assertEqual(self.conditions(), [Condition.UP_TO_DATE] * 4)

    def test_a_file_that_cannot_be_used_ends_nothing(self):
        self.decide("pins.json", "{")
        with self.assertLogs("ota_server", "ERROR"):
            self.catch_up()
        self.know(5, OLD)
        self.catch_up()
        self.assertEqual(len(self.conditions()), 5)


class TimeTest(IndexCase):
    def test_a_device_with_the_image_is_silent_after_an_hour_by_time_alone(self):
        attempt_ms = self.now_ms - 30 * MINUTE_MS
        self.know(1, OLD, last_seen_ms=attempt_ms - 1000, download=had(NEW, attempt_ms))
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).condition, Condition.BEHIND)
        self.pass_time(29 * MINUTE_MS)
        self.assertEqual(self.index.device(key_of(1)).condition, Condition.BEHIND)
        self.pass_time(2 * MINUTE_MS)
        row = self.index.device(key_of(1))
        self.assertEqual(row.condition, Condition.SILENT)
        self.assertLess(abs(row.since_ms - attempt_ms - HOUR_MS), 2 * MINUTE_MS)
        self.assertEqual([each.key for each in self.index.lately(5)], [key_of(1)])

    def test_a_device_is_away_after_a_day_by_time_alone(self):
        for number in range(250):
            self.know(number, last_seen_ms=self.now_ms - DAY_MS + 10 * MINUTE_MS)
        self.know(251)
        self.catch_up()
        self.assertEqual(self.index.summary().conditions[Condition.AWAY], 0)
        self.pass_time(11 * MINUTE_MS)
        self.assertEqual(self.index.summary().conditions[Condition.AWAY], 250)
        self.assert_whole()
        with self.subTest("until it is heard from"):
            self.know(1, last_seen_ms=self.now_ms)
            self.catch_up()
            self.assertEqual(self.index.summary().conditions[Condition.AWAY], 249)

    def test_a_device_that_may_try_again_is_no_longer_held_back(self):
        attempt_ms = self.now_ms - 50 * MINUTE_MS
        self.know(1, OLD, last_seen_ms=self.now_ms, download=had(NEW, attempt_ms, 3))
        self.catch_up()
        self.assertEqual(self.index.device(key_of(1)).reason, Reason.REPEATED)
        self.pass_time(11 * MINUTE_MS)
        self.assertEqual(self.index.device(key_of(1)).reason, Reason.TARGET)

    def test_a_clock_that_jumps_ahead_and_back_leaves_no_device_away(self):
        self.know(1)
        self.catch_up()
        self.now_ms += 3 * DAY_MS
        self.catch_up()
        self.assertEqual(self.index.summary().conditions[Condition.AWAY], 1)
        self.now_ms -= 3 * DAY_MS
        self.catch_up()
        self.assertEqual(self.index.summary().conditions[Condition.AWAY], 0)
        self.pass_time(4 * MINUTE_MS)
        self.assertEqual(self.index.count(ALL_DEVICES), 1)


class FootprintTest(IndexCase):
    def test_a_device_that_reports_another_version_each_time_fills_no_disk(self):
        with self.journal.open("ab") as file:
            for number in range(3000):
                device = a_device(self.now_ms - MINUTE_MS, f"build {number}")
                file.write(format_record("check", key_of(1), device))
        self.know(2)
        self.catch_up()
        with self.journal.open("ab") as file:
            for number in range(3000):
                device = a_device(self.now_ms - MINUTE_MS, f"other {number}")
                file.write(format_record("check", key_of(1), device))
        self.catch_up()
        with closing(sqlite3.connect(self.file)) as database:
            (changes,) = database.execute("SELECT count(*) FROM version_changes").fetchone()
            (versions,) = database.execute("SELECT count(*) FROM version_tally").fetchone()
        self.assertLessEqual(changes, 500)
        self.assertEqual(versions, 2)
        self.assert_whole()

    def test_a_check_moves_one_index_alone(self):
        self.know(1)
        self.catch_up()
        statements: list[str] = []
        self.writer._connection.set_trace_callback(statements.append)
        self.know(1, last_seen_ms=self.now_ms)
        self.catch_up()
        updates = [each for each in statements if each.startswith("UPDATE devices")]
        self.assertEqual(len(updates), 1)
        self.assertIn("SET seen_ms = ", updates[0])
        self.assertNotIn("version", updates[0])

    def test_the_file_belongs_to_whom_the_folder_belongs_to(self):
        self.catch_up()
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o644)
        self.assertEqual(self.file.stat().st_uid, self.file.parent.stat().st_uid)

    def test_any_program_can_read_it(self):
        self.know(1)
        self.catch_up()
        code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(self.file), "SELECT name, version FROM devices"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(done.stdout, f"('{key_of(1)}', '{NEW}')\n")


class InControllerTest(IndexCase):
    def test_a_controller_keeps_it_between_its_looks_and_does_not_end(self):
        for number in range(5000):
            self.know(number)
        controller = Controller(self.data_dir, 0.2, ServerFacts(0), side_work=self.writer)
        waits = [controller.look()]
        while waits[-1] == 0.0 or self.writer.is_making:
            waits.append(controller.look())
        self.assertIn(0.0, waits)
        self.assertEqual(waits[-1], 0.2)
        self.assertEqual(self.index.summary().total, 5000)
        self.assertEqual(controller.look(), 0.2)
        self.assertIsNone(Controller(self.data_dir, 0.2, ServerFacts(0)).look())

    def test_it_is_closed_when_the_controller_ends(self):
        controller = Controller(self.data_dir, 0.0, ServerFacts(0), side_work=self.writer)
        controller.look()
        ours, theirs = os.pipe()
        os.close(theirs)
        self.addCleanup(os.close, ours)
        controller.run(ours)
        self.assertIsNone(self.writer._connection)


class RealServerTest(RolloutCase):
    def test_the_journal_of_a_real_server_is_followed_through_an_update_and_a_restart(self):
        server = self.serve()
        writer = IndexWriter(self.data_dir, look_seconds=0.0)
        self.addCleanup(writer.close)
        index = DeviceIndex(self.data_dir)
        self.addCleanup(index.close)

        def has_all(version: str) -> bool:
            while writer.step(time.time_ns() // 1_000_000) or writer.is_making:
                pass
            return index.summary().versions == {version: len(self.devices.versions)}

        self.devices.ask(server.port)
        self.assertTrue(until(lambda: has_all(OLD_RELEASE)))
        self.assertEqual(index.summary().conditions, {Condition.UP_TO_DATE: 60})
        self.set_target(NEW_RELEASE)
        self.devices.ask(server.port)
        self.assertTrue(until(lambda: has_all(OLD_RELEASE)))
        stages = {row.stage for row in index.page(limit=100).rows}
        self.assertEqual(stages, {Stage.HAS_IT})
        self.devices.ask(server.port)
        self.assertEqual(server.end()[0], 0)
        self.serve()  # it writes a snapshot
        self.assertTrue(until(lambda: has_all(NEW_RELEASE)))
        self.assertEqual(index.summary().conditions, {Condition.UP_TO_DATE: 60})
        self.assertEqual({row.stage for row in index.page(limit=100).rows}, {Stage.REPORTS_IT})
        now_ms = time.time_ns() // 1_000_000
        counts = index.versions_over_time("", now_ms - HOUR_MS, now_ms, 1).counts
        self.assertEqual(counts[NEW_RELEASE], (60,))
