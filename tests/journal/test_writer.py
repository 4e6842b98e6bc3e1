"""The journal: whole lines in their order, through rotation, moved files and full disks."""

import json
import logging
import os
import resource
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ota_server.journal.files import journal_files
from ota_server.journal.record import Seal, sealed
from ota_server.journal.writer import Journal
from ota_server.system.locks import InUse

MARKER = b'{"event":"snapshot"}\n'
LOGGER = "ota_server.journal.writer"


def line_of(text: str) -> bytes:
    return json.dumps({"event": "check", "text": text}).encode() + b"\n"


def device_lines(macs: list[str]) -> bytes:
    """Return what the device table would say of marked devices."""
    return b"".join(line_of(f"device {mac}") for mac in sorted(macs))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`: a full disk for those who write more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def keep_quiet(case: unittest.TestCase) -> None:
    """Keep what the journal logs out of the runner's output, where no test looks at it."""
    log, handler = logging.getLogger("ota_server"), logging.NullHandler()
    log.addHandler(handler)
    case.addCleanup(log.removeHandler, handler)


class JournalCase(unittest.TestCase):
    def setUp(self) -> None:
        keep_quiet(self)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_dir = Path(folder.name) / "log"
        self.log_dir.mkdir()
        self.path = self.log_dir / "devices.jsonl"

    def open(self, log_dir: Path | None = None, **options: Any) -> Journal:
        journal = Journal(log_dir or self.log_dir, **options)
        self.addCleanup(journal.close)
        return journal

    def write(self, journal: Journal, *texts: str) -> None:
        for text in texts:
            journal.append(text, line_of(text))
        journal.flush()

    def texts(self, path: Path | None = None) -> list[str]:
        """Return what the lines of a file hold; fails where one is not JSON."""
        content = (path or self.path).read_bytes()
        self.assertIn(content[-1:], (b"", b"\n"))
        return [json.loads(line).get("text", "marker") for line in content.splitlines()]


class WriteTest(JournalCase):
    def test_lines_are_in_the_file_in_their_order_once_flush_returns(self):
        journal = self.open()
        journal.append("a", line_of("1"))
        self.assertEqual(self.path.read_bytes(), b"")
        journal.append("b", line_of("2"))
        journal.flush()
        self.assertEqual(self.texts(), ["1", "2"])
        journal.flush()
        self.assertEqual(self.texts(), ["1", "2"])

    def test_an_existing_file_is_appended_to(self):
        self.path.write_bytes(line_of("old"))
        self.write(self.open(), "new")
        self.assertEqual(self.texts(), ["old", "new"])

    def test_a_record_after_a_torn_line_begins_a_line_of_its_own(self):
        self.path.write_bytes(line_of("old") + b'{"event":"che')
        self.write(self.open(), "new")
        self.assertEqual(
            self.path.read_bytes().splitlines()[1:], [b'{"event":"che', line_of("new")[:-1]]
        )

    def test_what_is_queued_when_the_journal_closes_is_written(self):
        journal = Journal(self.log_dir)
        journal.append("a", line_of("last"))
        journal.close()
        self.assertEqual(self.texts(), ["last"])

    def test_a_missing_folder_is_made(self):
        log_dir = self.log_dir / "deeper" / "log"
        self.write(self.open(log_dir), "a")
        self.assertEqual(self.texts(log_dir / "devices.jsonl"), ["a"])

    def test_reopening_uses_up_no_descriptors(self):
        journal = self.open()
        before = len(os.listdir("/dev/fd"))
        for _ in range(20):
            self.path.unlink()
            journal.reopen()
            journal.sync()
        self.assertEqual(len(os.listdir("/dev/fd")), before)


class LockTest(JournalCase):
    def test_a_second_server_on_the_same_folder_is_refused(self):
        self.open()
        with self.assertRaises(InUse) as raised:
            Journal(self.log_dir)
        self.assertIn(str(self.log_dir.parent), str(raised.exception))

    def test_the_folder_is_free_again_once_the_first_server_has_closed(self):
        Journal(self.log_dir).close()
        self.open()
        self.assertTrue((self.log_dir / ".lock").exists())

    def test_a_journal_that_cannot_be_opened_gives_the_lock_back(self):
        self.path.mkdir()
        with self.assertRaises(IsADirectoryError):
            Journal(self.log_dir)
        self.path.rmdir()
        self.open()


class TakenAwayTest(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        self.journal = self.open()
        self.write(self.journal, "first")
        self.journal.close_snapshot(MARKER, self.journal.generation)

    def assert_written_anew(self) -> None:
        with self.assertLogs(LOGGER, logging.WARNING):
            self.journal.look_after()
        self.assertTrue(self.journal.needs_snapshot)
        self.write(self.journal, "next")
        self.assertEqual(self.texts()[-1], "next")
        with self.assertNoLogs(LOGGER, logging.WARNING):
            self.journal.look_after()

    def test_a_file_that_was_moved_is_written_anew(self):
        moved = self.path.rename(self.log_dir / "taken")
        self.assert_written_anew()
        self.assertEqual(self.texts(moved), ["first", "marker"])

    def test_a_file_that_was_deleted_is_written_anew(self):
        self.path.unlink()
        self.assert_written_anew()

    def test_a_file_that_was_cut_is_written_anew(self):
        for size in (0, 5):
            with self.subTest(size):
                os.truncate(self.path, size)
                with self.assertLogs(LOGGER, logging.WARNING):
                    self.journal.look_after()
                self.assertTrue(self.journal.needs_snapshot)
                self.write(self.journal, "next", "more")
                self.assertTrue(self.path.read_bytes().endswith(line_of("next") + line_of("more")))
                self.journal.close_snapshot(MARKER, self.journal.generation)

    def test_a_file_that_another_took_the_place_of_is_written_there(self):
        other = self.log_dir / "other"
        other.write_bytes(line_of("other"))
        other.rename(self.path)
        self.assert_written_anew()
        self.assertEqual(self.texts(), ["other", "next"])

    def test_a_folder_that_was_deleted_is_made_again(self):
        shutil.rmtree(self.log_dir)
        self.assert_written_anew()

    def test_a_file_that_stays_is_left_alone(self):
        with self.assertNoLogs(LOGGER, logging.WARNING):
            self.journal.look_after()
        self.assertFalse(self.journal.needs_snapshot)


class ReopenTest(JournalCase):
    def test_reopening_after_a_move_goes_on_in_a_new_file(self):
        journal = self.open()
        journal.append("a", line_of("before"))
        moved = self.path.rename(self.log_dir / "moved")
        journal.reopen()
        self.write(journal, "after")
        self.assertEqual((self.texts(moved), self.texts()), (["before"], ["after"]))
        self.assertTrue(journal.needs_snapshot)

    def test_reopening_the_same_file_asks_for_no_second_snapshot(self):
        journal = self.open()
        journal.close_snapshot(MARKER, journal.generation)
        for _ in range(3):
            journal.reopen()
        self.assertFalse(journal.needs_snapshot)


class RotationTest(JournalCase):
    def close_snapshot(self, journal: Journal) -> None:
        self.assertTrue(journal.close_snapshot(MARKER, journal.generation))

    def numbers(self) -> list[str]:
        return [path.name for path in journal_files(self.log_dir)]

    def test_a_file_is_rotated_when_what_came_after_the_marker_is_long_enough(self):
        journal = self.open(rotate_bytes=3 * len(line_of("x")))
        self.close_snapshot(journal)
        for count, expected in (
            (3, ["devices.jsonl"]),
            (1, ["devices.000001.jsonl", "devices.jsonl"]),
        ):
            self.write(journal, *["x"] * count)
            journal.look_after()
            self.assertEqual(self.numbers(), expected)
        self.assertEqual(self.texts(self.log_dir / "devices.000001.jsonl"), ["marker", *"xxxx"])
        self.assertEqual(self.texts(), [])

    def test_a_file_is_not_rotated_before_it_has_grown_by_its_snapshot(self):
        journal = self.open(rotate_bytes=1)
        self.write(journal, *"xxxxx")
        self.close_snapshot(journal)
        self.write(journal, *"yyyyy")
        journal.look_after()
        self.assertEqual(self.numbers(), ["devices.jsonl"])
        self.write(journal, *"zz")
        journal.look_after()
        self.assertEqual(len(self.numbers()), 2)

    def test_a_file_without_its_snapshot_is_not_rotated(self):
        journal = self.open(rotate_bytes=1)
        self.write(journal, *"xxxxx")
        journal.look_after()
        self.assertEqual(self.numbers(), ["devices.jsonl"])

    def test_a_line_that_is_queued_while_the_file_rotates_is_not_lost(self):
        journal = self.open(rotate_bytes=1)
        self.close_snapshot(journal)
        self.write(journal, "a", "b")
        journal.append("c", line_of("c"))
        journal.look_after()
        journal.flush()
        self.assertEqual(self.texts(), ["c"])

    def rotate(self, journal: Journal, times: int, lines: int = 3) -> None:
        for _ in range(times):
            self.close_snapshot(journal)
            self.write(journal, *["x"] * lines)
            journal.look_after()

    def test_old_files_are_kept_to_a_number_once_a_snapshot_is_whole(self):
        journal = self.open(rotate_bytes=1, keep_files=2)
        self.rotate(journal, 4)
        names = [f"devices.{number:06d}.jsonl" for number in (2, 3, 4)]
        self.assertEqual(self.numbers(), [*names, "devices.jsonl"])
        self.close_snapshot(journal)
        self.assertEqual(self.numbers(), [*names[1:], "devices.jsonl"])

    def test_old_files_are_kept_to_a_disk_budget(self):
        length = len(sealed(MARKER, Seal(0, 0))) + 3 * len(line_of("x"))
        journal = self.open(rotate_bytes=1, keep_bytes=2 * length)
        self.rotate(journal, 5)
        self.close_snapshot(journal)
        self.assertEqual(
            self.numbers(), ["devices.000004.jsonl", "devices.000005.jsonl", "devices.jsonl"]
        )

    def test_a_snapshot_is_on_the_disk_before_the_file_that_it_stands_for_is_deleted(self):
        journal = self.open(rotate_bytes=1, keep_files=0)
        self.rotate(journal, 1)
        steps: list[str] = []
        fsync, unlink = os.fsync, os.unlink

        def noting(name: str, call: Callable[..., None]) -> Callable[..., None]:
            def wrapper(*arguments: Any) -> None:
                steps.append(name)
                call(*arguments)

            return wrapper

        with (
            mock.patch("os.fsync", noting("fsync", fsync)),
            mock.patch("os.unlink", noting("unlink", unlink)),
        ):
            self.close_snapshot(journal)
        self.assertEqual(steps[-1], "unlink")
        self.assertIn("fsync", steps)

    def test_no_old_file_need_be_kept(self):
        journal = self.open(rotate_bytes=1, keep_files=0)
        self.rotate(journal, 2)
        self.close_snapshot(journal)
        self.assertEqual(self.numbers(), ["devices.jsonl"])

    def test_numbers_go_on_after_a_restart_and_beyond_six_digits(self):
        (self.log_dir / "devices.999999.jsonl").write_bytes(b"")
        (self.log_dir / "devices.000002.jsonl").write_bytes(b"")
        self.rotate(self.open(rotate_bytes=1), 1)
        self.assertEqual(
            self.numbers(),
            [
                *("devices.000002.jsonl", "devices.999999.jsonl", "devices.1000000.jsonl"),
                "devices.jsonl",
            ],
        )

    def test_other_files_beside_the_journal_are_left_alone(self):
        others = ["devices.jsonl.1", "devices.backup.jsonl", "devices.1.jsonl", "rejected.jsonl"]
        for name in others:
            (self.log_dir / name).write_bytes(b"x")
        journal = self.open(rotate_bytes=1, keep_files=0)
        self.rotate(journal, 2)
        self.close_snapshot(journal)
        for name in others:
            self.assertTrue((self.log_dir / name).exists(), name)

    def test_a_snapshot_that_went_into_another_file_is_not_closed(self):
        journal = self.open()
        generation = journal.generation
        self.path.unlink()
        journal.reopen()
        self.assertFalse(journal.close_snapshot(MARKER, generation))
        self.assertTrue(journal.needs_snapshot)


class FailureTest(JournalCase):
    """Disk full, seen from the journal: `device_lines` stands for the device table."""

    def fill(self) -> tuple[Journal, Any]:
        """Return a journal that has just failed with the devices b and c, and its log."""
        journal = self.open()
        self.write(journal, "a")
        with self.assertLogs(LOGGER, logging.WARNING) as logged, self.full():
            self.write(journal, "b", "c")
            self.write(journal, "c")
            self.assertFalse(journal.resume(device_lines))
            self.assertFalse(journal.resume(device_lines))
        return journal, logged

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave room for a part of one more line."""
        with file_size_limit(self.path.stat().st_size + 10):
            yield

    def test_what_cannot_be_written_leaves_its_devices_marked_and_no_torn_line(self):
        journal, _ = self.fill()
        self.assertEqual(self.texts(), ["a"])
        self.assertEqual(journal.unrecorded, {"b", "c"})
        self.assertTrue(journal.failing)
        self.assertEqual(journal.lost_writes, 3)

    def test_a_failure_is_logged_once_and_so_is_its_end(self):
        journal, logged = self.fill()
        self.assertEqual([record.levelname for record in logged.records], ["ERROR"])
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            self.assertTrue(journal.resume(device_lines))
            self.write(journal, "d")
        self.assertEqual([record.levelname for record in logged.records], ["WARNING"])

    def test_on_recovery_each_marked_device_is_written_first_and_once(self):
        journal, _ = self.fill()
        journal.append("d", line_of("d"))
        journal.resume(device_lines)
        self.assertEqual(self.texts(), ["a", "device b", "device c", "d"])
        self.assertEqual((journal.unrecorded, journal.failing), (set(), False))

    def test_many_marked_devices_are_written_in_slices(self):
        journal, _ = self.fill()
        sizes: list[int] = []

        def lines(macs: list[str]) -> bytes:
            sizes.append(len(macs))
            return device_lines(macs)

        journal.unrecorded.update(f"{number:03d}" for number in range(23))
        self.assertTrue(journal.resume(lines, slice_size=10))
        self.assertEqual(sizes, [10, 10, 5])
        self.assertEqual(len(set(self.texts())), 1 + 25)

    def test_a_disk_that_fills_again_while_recovering_keeps_the_rest_marked(self):
        journal, _ = self.fill()
        room = self.path.stat().st_size + len(device_lines(["b"])) + 5
        with file_size_limit(room):
            self.assertFalse(journal.resume(device_lines, slice_size=1))
        self.assertEqual(len(journal.unrecorded), 1)
        self.assertTrue(journal.resume(device_lines))
        self.assertEqual(sorted(self.texts()), ["a", "device b", "device c"])

    def test_a_torn_line_that_could_not_be_cut_back_stands_alone(self):
        journal, _ = self.fill()
        with self.path.open("ab") as file:
            file.write(b'{"torn')
        journal.resume(device_lines)
        lines = self.path.read_bytes().splitlines()
        self.assertEqual(lines[1], b'{"torn')
        self.assertEqual([json.loads(line)["text"] for line in lines[2:]], ["device b", "device c"])

    def test_a_torn_line_is_ended_also_where_the_disk_is_full_at_start(self):
        self.path.write_bytes(b'{"torn')
        with self.assertLogs(LOGGER, logging.WARNING), file_size_limit(6):
            journal = self.open()
        journal.resume(device_lines)
        self.write(journal, "a")
        self.assertEqual(self.path.read_bytes(), b'{"torn\n' + line_of("a"))

    def test_a_snapshot_that_cannot_be_closed_is_no_flood_in_the_log(self):
        journal = self.open()
        with self.assertLogs(LOGGER, logging.WARNING) as logged, self.full():
            for _ in range(5):
                self.assertFalse(journal.close_snapshot(MARKER, journal.generation))
                journal.resume(device_lines)
        self.assertEqual(len(logged.records), 1)
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            self.assertTrue(journal.close_snapshot(MARKER, journal.generation))
        self.assertEqual(len(logged.records), 1)

    def test_a_second_failure_is_logged_again(self):
        journal, _ = self.fill()
        journal.resume(device_lines)
        with self.assertLogs(LOGGER, logging.ERROR) as logged, self.full():
            self.write(journal, "d")
        self.assertEqual(len(logged.records), 1)

    def test_no_file_is_pruned_for_a_snapshot_that_is_not_on_record(self):
        old = self.log_dir / "devices.000001.jsonl"
        old.write_bytes(line_of("old"))
        journal = self.open(keep_files=0)
        with self.full(), self.assertLogs(LOGGER):
            self.assertFalse(journal.close_snapshot(MARKER, journal.generation))
        self.assertTrue(old.exists())

    def test_a_failing_file_is_not_rotated(self):
        journal = self.open(rotate_bytes=1)
        journal.close_snapshot(MARKER, journal.generation)
        self.write(journal, *"xxx")
        with self.full(), self.assertLogs(LOGGER):
            self.write(journal, "y")
            journal.look_after()
        self.assertEqual(journal_files(self.log_dir), [self.path])


class DeviceFileTest(JournalCase):
    def link(self, journal: Journal, target: str) -> None:
        self.path.unlink()
        self.path.symlink_to(target)
        with self.assertLogs(LOGGER, logging.WARNING):
            journal.look_after()

    def test_a_link_to_a_full_device_marks_the_devices_until_a_file_takes_its_place(self):
        journal = self.open()
        self.link(journal, "/dev/full")
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            for _ in range(5):
                self.write(journal, "a")
                journal.look_after()
                self.assertFalse(journal.resume(device_lines))
        self.assertEqual(len(logged.records), 1)
        self.path.unlink()
        with self.assertLogs(LOGGER, logging.WARNING):
            journal.look_after()
            self.assertTrue(journal.resume(device_lines))
        self.assertEqual(self.texts(), ["device a"])

    def test_a_link_to_nowhere_takes_records_without_a_flood_in_the_log(self):
        journal = self.open()
        self.link(journal, "/dev/null")
        with self.assertLogs("ota_server.journal", logging.WARNING) as logged:
            for _ in range(5):
                self.write(journal, "a")
                journal.look_after()
                journal.sync()
        self.assertEqual(len(logged.records), 1)

    def test_what_is_no_regular_file_is_not_read_back(self):
        self.path.symlink_to("/dev/full")
        self.assertEqual(journal_files(self.log_dir), [])


@unittest.skipUnless(os.geteuid() == 0, "only root may mount a small disk")
class SmallDiskTest(JournalCase):
    def setUp(self) -> None:
        super().setUp()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", self.log_dir], check=True
        )
        self.addCleanup(subprocess.run, ["umount", "-l", self.log_dir], check=True)

    def test_recording_goes_on_when_a_full_disk_has_room_again(self):
        filler = self.log_dir / "filler"
        journal = self.open()
        self.write(journal, "a")
        with filler.open("wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(b"x" * 1024)
        macs = [f"{number:04d}" for number in range(500)]
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            for mac in macs:
                self.write(journal, mac)
            self.assertFalse(journal.resume(device_lines))
        self.assertEqual(len(logged.records), 1)
        written = self.texts()[1:]
        self.assertEqual(set(macs) - set(written), journal.unrecorded)
        self.assertTrue(journal.unrecorded)
        filler.unlink()
        self.assertTrue(journal.resume(device_lines))
        self.write(journal, "last")
        found = self.texts()
        self.assertEqual(found[-1], "last")
        expected = [f"device {mac}" for mac in macs if mac not in written]
        self.assertEqual(sorted(found[1 + len(written) : -1]), expected)
