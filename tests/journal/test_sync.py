"""When records are brought to the disk: what each value of `--fsync` promises."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from ota_server.journal.writer import FSYNC, Journal
from tests.journal.test_writer import LOGGER, MARKER, JournalCase, line_of
from tests.support import DEVICE, TIMEOUT_SECONDS, ServerCase

SYNC_LOGGER = "ota_server.journal.sync"


class SyncCase(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        self.steps: list[str] = []

    def note(self, name: str, call: Callable[..., Any]) -> Any:
        """Have calls of the system noted, with what they are about."""

        def wrapper(first: Any, *arguments: Any, **options: Any) -> Any:
            result = call(first, *arguments, **options)
            is_folder = isinstance(first, int) and os.path.isdir(f"/dev/fd/{first}")
            self.steps.append(f"{name} folder" if is_folder else name)
            return result

        return mock.patch(f"os.{name}", wrapper)

    def noting(self) -> Any:
        return self.note("fsync", os.fsync)


class PromiseTest(SyncCase):
    def test_always_brings_each_record_to_the_disk_before_flush_returns(self):
        journal = self.open(fsync="always")
        with self.note("write", os.write), self.noting():
            self.write(journal, "a")
            self.assertEqual(self.steps, ["write", "fsync", "fsync folder"])
            self.write(journal, "b")
            self.assertEqual(self.steps[3:], ["write", "fsync"])
            journal.sync()
            self.assertEqual(len(self.steps), 5)

    def test_always_marks_a_device_whose_record_cannot_be_brought_to_the_disk(self):
        journal = self.open(fsync="always")
        with (
            self.assertLogs(LOGGER, logging.ERROR),
            mock.patch("os.fsync", side_effect=OSError(5, "Input/output error")),
        ):
            self.write(journal, "a")
        self.assertEqual(journal.unrecorded, {"a"})
        self.assertEqual(self.path.read_bytes(), b"")

    def test_interval_brings_to_the_disk_what_was_written_when_it_is_told_to(self):
        journal = self.open(fsync="interval")
        with self.note("write", os.write), self.noting():
            self.write(journal, "a")
            self.assertEqual(self.steps, ["write"])
            journal.sync()
            self.assertEqual(self.steps[1:], ["fsync", "fsync folder"])
            journal.sync()
            self.assertEqual(len(self.steps), 3)

    def test_a_file_that_was_rotated_is_brought_to_the_disk_with_the_next_one(self):
        journal = self.open(fsync="interval", rotate_bytes=1)
        journal.close_snapshot(MARKER, journal.generation)
        self.write(journal, *"abc")
        with self.noting():
            journal.look_after()
            self.write(journal, "d")
            self.assertEqual(self.steps, [])
            journal.sync()
        self.assertEqual(self.steps, ["fsync", "fsync", "fsync folder"])

    def test_never_leaves_it_to_the_system(self):
        journal = Journal(self.log_dir, fsync="never")
        with self.noting():
            self.write(journal, "a")
            journal.sync()
            journal.close()
        self.assertEqual(self.steps, [])

    def test_a_folder_that_was_taken_away_holds_up_no_end(self):
        for setting in FSYNC:
            with self.subTest(setting):
                journal = Journal(self.log_dir, fsync=setting)
                self.log_dir.rename(self.log_dir.with_name(f"taken {setting}"))
                self.write(journal, "a")
                self.assertFalse(journal.failing)
                journal.close()

    def test_a_failure_is_said_once_and_tried_again(self):
        journal = self.open()
        with (
            self.assertLogs(SYNC_LOGGER, logging.ERROR) as logged,
            mock.patch("os.fsync", side_effect=OSError(5, "Input/output error")),
        ):
            for text in "abc":
                self.write(journal, text)
                journal.sync()
        self.assertEqual(len(logged.records), 1)
        with self.noting():
            journal.sync()
        self.assertEqual(self.steps, ["fsync"])


class PruneTest(SyncCase):
    def setUp(self) -> None:
        super().setUp()
        self.old = self.log_dir / "devices.000001.jsonl"
        self.old.write_bytes(line_of("old"))

    def test_a_snapshot_is_on_the_disk_before_older_files_go_whatever_the_setting(self):
        for setting in FSYNC:
            with self.subTest(setting):
                self.old.write_bytes(line_of("old"))
                self.steps.clear()
                journal = Journal(self.log_dir, fsync=setting, keep_files=0)
                with self.noting(), self.note("unlink", os.unlink):
                    journal.close_snapshot(MARKER, journal.generation)
                self.assertIn("fsync", self.steps[:-1])
                self.assertEqual(self.steps[-1], "unlink")
                journal.close()

    def test_a_snapshot_that_cannot_be_brought_to_the_disk_deletes_nothing(self):
        journal = self.open(keep_files=0)
        with (
            self.assertLogs(SYNC_LOGGER, logging.ERROR),
            mock.patch("os.fsync", side_effect=OSError(5, "Input/output error")),
        ):
            journal.close_snapshot(MARKER, journal.generation)
        self.assertTrue(self.old.exists())

    def test_a_snapshot_waits_for_who_is_bringing_it_to_the_disk_already(self):
        journal = self.open(keep_files=0)
        self.write(journal, "a")
        begun, go_on = threading.Event(), threading.Event()
        fsync = os.fsync

        def slow_fsync(descriptor: int) -> None:
            begun.set()
            go_on.wait(TIMEOUT_SECONDS)
            fsync(descriptor)
            self.steps.append("synced")

        closing = threading.Thread(target=journal.close_snapshot, args=(MARKER, journal.generation))
        with mock.patch("os.fsync", slow_fsync), self.note("unlink", os.unlink):
            syncing = threading.Thread(target=journal.sync)
            syncing.start()
            begun.wait(TIMEOUT_SECONDS)
            closing.start()
            closing.join(0.1)
            self.assertTrue(self.old.exists())
            go_on.set()
            syncing.join()
            closing.join()
        self.assertEqual(self.steps[-1], "unlink")
        self.assertFalse(self.old.exists())


class IntervalTest(ServerCase):
    def test_records_are_brought_to_the_disk_while_a_snapshot_is_written(self):
        fsync, sleep = os.fsync, time.sleep
        writes_snapshot, ends = threading.Event(), threading.Event()
        synced: list[int] = []
        has_synced = threading.Event()

        def noting_fsync(descriptor: int) -> None:
            fsync(descriptor)
            if writes_snapshot.is_set() and not ends.is_set():
                synced.append(os.fstat(descriptor).st_size)
                has_synced.set()

        def resting(seconds: float) -> None:
            if threading.current_thread().name == "chores":
                writes_snapshot.set()
                ends.wait(TIMEOUT_SECONDS)
            sleep(seconds)

        service = {"fsync": "interval"}
        journal = self.data_dir / "log" / "devices.jsonl"
        with mock.patch("time.sleep", resting):
            self.start(service=service)
            self.get("/version.txt")
            # Its record may have come after the first snapshot, which was of no device.
            journal.unlink()
            self.assertTrue(writes_snapshot.wait(TIMEOUT_SECONDS))
            with mock.patch("os.fsync", noting_fsync):
                self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})
                self.assertTrue(has_synced.wait(TIMEOUT_SECONDS))
            ends.set()
            self.stop()
        self.assertTrue(synced)
