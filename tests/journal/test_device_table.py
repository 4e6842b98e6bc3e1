"""The device table and its journal: in step with each other, also after any crash."""

import json
import logging
import os
import random
import shutil
import tempfile
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ota_server.journal.device_table import DeviceTable
from ota_server.journal.files import journal_files
from ota_server.journal.record import format_marker, format_record, format_seal
from ota_server.journal.replay import replay
from ota_server.journal.writer import Journal
from ota_server.model.device import Device, Download
from ota_server.model.identity import expand
from tests.journal.test_writer import file_size_limit, keep_quiet
from tests.support import TIMEOUT_SECONDS

NOW_MS = 1_795_435_200_123
DOWNLOAD = Download("v2", "ab" * 32, 76_800, NOW_MS)
LOGGER = "ota_server"


def mac(number: int) -> str:
    return expand(number + 1)


def named(number: int) -> list[str]:
    """Return the keys of a MAC in two products, and of names in two others."""
    return [mac(number), f"plug/{mac(number)}", f"/gw-{number}", f'a-b/"\\{number}/ "']


def device(version: str, **changes: Any) -> Device:
    known = Device(NOW_MS, version, NOW_MS, None, "v2", "192.0.2.7", False, None)
    return known._replace(**changes)


def table_of(log_dir: Path) -> dict[str, Device]:
    """Return the device table that a start on this folder would find."""
    found = replay(log_dir)
    try:
        return dict(found.devices())
    finally:
        found.close()


class FleetCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.log_dir = self.root / "log"
        self.path = self.log_dir / "devices.jsonl"
        self._fleets: list[DeviceTable] = []
        self.now_ms = NOW_MS
        keep_quiet(self)
        self.addCleanup(self.close)

    def open(self, max_devices: int = 1000, **options: Any) -> DeviceTable:
        journal = Journal(self.log_dir, **options)
        fleet = DeviceTable(journal, self.log_dir, lambda: self.now_ms, max_devices)
        self._fleets.append(fleet)
        return fleet

    def close(self) -> None:
        """Close what is open, so that the folder can be opened again."""
        while self._fleets:
            self._fleets.pop().close()

    def reopen(self, **options: Any) -> DeviceTable:
        self.close()
        return self.open(**options)

    def record(self, fleet: DeviceTable, number: int, version: str, event: str = "check") -> None:
        with fleet.lock:
            fleet.record(event, mac(number), device(version))
        fleet.journal.flush()

    def get(self, fleet: DeviceTable, number: int) -> Device | None:
        with fleet.lock:
            return fleet.get(mac(number))

    def table(self, fleet: DeviceTable, count: int) -> dict[str, Device]:
        """Return what a fleet says of the first `count` devices."""
        found = {mac(number): self.get(fleet, number) for number in range(count)}
        return {name: known for name, known in found.items() if known is not None}

    def lines(self, path: Path | None = None) -> list[tuple[str, str]]:
        """Return event and MAC of each line of a file."""
        found = map(json.loads, (path or self.path).read_bytes().splitlines())
        return [(line["event"], line.get("mac", "")) for line in found]


class TableTest(FleetCase):
    def test_a_device_is_known_as_it_was_recorded_before_and_after_a_restart(self):
        devices = [
            device(
                "v1", update_ms=update, target_version=target, image_only=only, download=download
            )
            for update in (None, 0, NOW_MS)
            for target in (None, "v2", 'v"\\2')
            for only in (False, True)
            for download in (None, DOWNLOAD)
        ]
        fleet = self.open()
        for number, known in enumerate(devices):
            with fleet.lock:
                fleet.record("check", mac(number), known)
        expected = {mac(number): known for number, known in enumerate(devices)}
        self.assertEqual(self.table(fleet, len(devices)), expected)
        for _ in range(2):
            fleet = self.reopen()
            self.assertEqual(len(fleet), len(devices))
            self.assertEqual(self.table(fleet, len(devices)), expected)
            fleet.look_after()
            self.assertEqual(self.table(fleet, len(devices)), expected)

    def test_devices_of_all_products_and_identities_are_known_after_a_restart(self):
        keys = [name for number in range(1500) for name in named(number)]
        fleet = self.open(10_000)
        for name in keys:
            with fleet.lock:
                fleet.record("check", name, device("v1"))
        fleet.journal.flush()
        fleet.journal.seal(format_seal(NOW_MS))  # a start reads what is sealed by another pattern
        for _ in range(2):
            fleet = self.reopen(max_devices=10_000)
            self.assertEqual((len(fleet), fleet.bad_lines), (len(keys), 0))
            fleet.look_after()
            self.assertEqual(set(table_of(self.log_dir)), set(keys))
            with fleet.lock:
                self.assertTrue(all(fleet.get(name) == device("v1") for name in keys))

    def test_one_that_was_forgotten_is_so_whatever_it_is_called(self):
        fleet = self.open()
        for name in named(0):
            with fleet.lock:
                fleet.record("check", name, device("v1"))
            fleet.forget(name, NOW_MS)
        fleet.journal.flush()
        self.assertEqual((len(fleet), fleet.names.hashed), (0, {}))
        self.assertEqual((len(self.reopen()), self.reopen().bad_lines), (0, 0))

    def test_a_device_that_never_asked_is_not_known(self):
        self.assertIsNone(self.get(self.open(), 0))

    def test_bad_lines_are_counted_at_the_start(self):
        self.log_dir.mkdir()
        self.path.write_bytes(b"bad\n" + format_record("check", mac(0), device("v1")) + b'{"torn')
        fleet = self.open()
        self.assertEqual((len(fleet), fleet.bad_lines), (1, 2))

    def test_a_device_beyond_the_limit_is_counted_and_neither_kept_nor_on_record(self):
        fleet = self.open(max_devices=2)
        for number in range(5):
            self.record(fleet, number, "v1")
        self.record(fleet, 0, "v2")
        self.assertEqual((len(fleet), fleet.turned_away), (2, 3))
        self.assertEqual(self.get(fleet, 0), device("v2"))
        self.assertIsNone(self.get(fleet, 4))
        self.assertEqual(set(table_of(self.log_dir)), {mac(0), mac(1)})

    def test_a_device_that_is_forgotten_stays_forgotten_until_it_asks_again(self):
        fleet = self.open()
        for number in range(3):
            self.record(fleet, number, "v1")
        fleet = self.reopen()
        for number in (0, 1):
            fleet.forget(mac(number), NOW_MS)
        fleet.journal.flush()
        self.assertEqual(len(fleet), 1)
        for _ in range(2):
            self.record(fleet, 1, "v2")
            self.assertEqual(self.table(fleet, 3), table_of(self.log_dir))
            fleet.look_after()
            self.assertEqual(set(table_of(self.log_dir)), {mac(1), mac(2)})
            self.assertEqual(len(fleet), 2)
            fleet = self.reopen()

    def test_a_device_that_was_heard_from_since_is_not_forgotten(self):
        fleet = self.open()
        self.record(fleet, 0, "v1")
        fleet.forget(mac(0), NOW_MS - 1)
        self.assertEqual(self.get(fleet, 0), device("v1"))

    def test_a_device_that_is_forgotten_is_in_no_later_snapshot(self):
        fleet = self.open(rotate_bytes=1, keep_files=0)
        for number in range(3):
            self.record(fleet, number, "v1")
        fleet.look_after()
        fleet.forget(mac(0), NOW_MS)
        fleet.journal.flush()
        for _ in range(10):
            self.record(fleet, 1, "v1")
            self.record(fleet, 2, "v1")
            fleet.look_after()
        self.assertEqual(set(table_of(self.log_dir)), {mac(1), mac(2)})
        self.assertNotIn(mac(0), self.path.read_text())

    def test_times_by_a_clock_that_was_ahead_count_as_the_start(self):
        year_ms = NOW_MS + 365 * 86_400_000
        ahead = DOWNLOAD._replace(request_ms=year_ms, attempts=3, attempt_ms=year_ms)
        times = {"time_ms": year_ms, "last_seen_ms": year_ms, "update_ms": year_ms}
        fleet = self.open()
        with fleet.lock:
            known = device("v1", download=ahead, first_seen_ms=year_ms, **times)
            fleet.record("check", mac(0), known)
        fleet = self.reopen()
        after = self.get(fleet, 0)
        self.assertEqual(after[:4], (NOW_MS, "v1", NOW_MS, NOW_MS))
        self.assertEqual(after.download, ahead._replace(request_ms=NOW_MS, attempt_ms=NOW_MS))
        self.assertLess(after.first_seen_ms - NOW_MS, 3_600_000)
        for _ in range(2):  # before its row is loaded, and after
            self.now_ms = NOW_MS + 5000
            self.assertEqual(self.get(fleet, 0), after)
            fleet.look_after()
        self.assertEqual(table_of(self.log_dir)[mac(0)], after)

    def test_a_clock_that_is_set_back_brings_back_what_the_loop_breaker_compares_at_once(self):
        self.now_ms = NOW_MS + 365 * 86_400_000
        fleet = self.open()
        repeating = DOWNLOAD._replace(attempts=3, attempt_ms=self.now_ms)
        with fleet.lock:
            fleet.record("download", mac(0), device("v1", download=repeating))
        fleet.look_after()
        self.now_ms = NOW_MS
        fleet.look_after()
        self.now_ms = NOW_MS + 60_000
        self.assertEqual(self.get(fleet, 0).download.attempt_ms, NOW_MS)

    def test_a_device_that_a_clock_which_was_ahead_has_seen_can_be_forgotten(self):
        self.now_ms = NOW_MS + 365 * 86_400_000
        fleet = self.open()
        with fleet.lock:
            fleet.record("check", mac(0), device("v1", time_ms=self.now_ms))
        self.now_ms = NOW_MS
        fleet.forget(mac(0), NOW_MS - 100)
        self.assertEqual(len(fleet), 0)

    def test_the_devices_that_have_long_been_silent_are_forgotten_together(self):
        fleet = self.open()
        for number in range(200):
            time_ms = NOW_MS - number * 86_400_000
            with fleet.lock:
                known = device("v1", time_ms=time_ms, last_seen_ms=time_ms)
                fleet.record("check", mac(number), known)
        fleet = self.reopen()
        fleet.forget_unseen(NOW_MS - 90 * 86_400_000)
        fleet.look_after()
        self.assertEqual(set(table_of(self.log_dir)), set(map(mac, range(91))))
        self.assertEqual(len(fleet), 91)

    def test_other_chores_are_done_while_a_snapshot_is_written(self):
        fleet = self.open()
        for number in range(500):
            self.record(fleet, number, "v1")
        with mock.patch("ota_server.journal.device_table._SNAPSHOT_SECONDS", 0.0):
            fleet.look_after()
            self.assertTrue(fleet.journal.needs_snapshot)
            self.record(fleet, 3, "v3")
            for _ in range(1000):
                fleet.look_after()
        self.assertFalse(fleet.journal.needs_snapshot)
        self.assertEqual(table_of(self.log_dir), self.table(fleet, 500))

    def test_other_chores_are_done_while_silent_devices_are_forgotten(self):
        fleet = self.open()
        for number in range(500):
            self.record(fleet, number, "v1")
        self.now_ms = NOW_MS + 86_400_000
        with mock.patch("ota_server.journal.device_table._SNAPSHOT_SECONDS", 0.0):
            fleet.forget_unseen(self.now_ms - 1000)
            fleet.look_after()
            self.assertGreater(len(fleet), 0)
            with fleet.lock:  # one that is heard from before its turn comes is kept
                heard = {"time_ms": self.now_ms, "last_seen_ms": self.now_ms}
                fleet.record("check", mac(499), device("v3", **heard))
            for _ in range(1000):
                fleet.look_after()
        self.assertEqual(set(table_of(self.log_dir)), {mac(499)})

    def test_known_devices_stay_known_where_a_restart_lowers_the_limit(self):
        fleet = self.open()
        for number in range(5):
            self.record(fleet, number, "v1")
        fleet = self.reopen(max_devices=1)
        self.record(fleet, 4, "v2")
        self.record(fleet, 5, "v1")
        self.assertEqual((len(fleet), fleet.turned_away), (5, 1))
        self.assertEqual(self.get(fleet, 4), device("v2"))

    def test_transfers_under_way_are_counted_up_and_down(self):
        fleet = self.open()
        with fleet.lock:
            fleet.transfers.begin("a", "1")
            fleet.transfers.begin("a", "1")
            fleet.transfers.end("a", "1")
            self.assertTrue(fleet.transfers.has("a", "1"))
            fleet.transfers.end("a", "1")
        self.assertEqual(fleet.transfers.counts, Counter())
        self.assertFalse(fleet.transfers.has("a", "1"))


class SnapshotTest(FleetCase):
    def test_a_new_journal_is_closed_by_a_marker_after_one_line_for_each_device(self):
        fleet = self.open()
        for number in range(3):
            self.record(fleet, number, "v1")
        fleet.look_after()
        events = Counter(event for event, _ in self.lines())
        self.assertEqual(events, {"check": 3, "device": 3, "snapshot": 1})
        self.assertEqual(self.lines()[-1][0], "snapshot")
        fleet.look_after()
        self.assertEqual(len(self.lines()), 7)

    def test_a_restart_on_a_closed_file_writes_no_second_snapshot(self):
        fleet = self.open()
        self.record(fleet, 0, "v1")
        fleet.look_after()
        content = self.path.read_bytes()
        self.reopen().look_after()
        self.assertEqual(self.path.read_bytes(), content)

    def test_old_files_are_not_needed_once_the_new_one_is_closed(self):
        fleet = self.open(rotate_bytes=1, keep_files=0)
        for number in range(5):
            self.record(fleet, number, "v1")
        fleet.look_after()
        for number in range(20):
            self.record(fleet, number % 2, f"v{number}")
        fleet.look_after()
        self.assertEqual(journal_files(self.log_dir), [self.path])
        self.assertEqual(self.lines()[-1][0], "snapshot")
        expected = self.table(fleet, 5)
        self.assertEqual((len(expected), table_of(self.log_dir)), (5, expected))

    def test_pruning_never_deletes_what_a_start_needs(self):
        fleet = self.open(rotate_bytes=1, keep_files=0, keep_bytes=0)
        chosen = random.Random(1)
        for step in range(300):
            self.record(fleet, chosen.randrange(20), f"v{step}")
            if step % 3 == 0:
                fleet.look_after()
            if step % 50 == 25:
                fleet = self.reopen(rotate_bytes=1, keep_files=0, keep_bytes=0)
            self.assertEqual(table_of(self.log_dir), self.table(fleet, 20))

    def test_a_server_that_is_ended_does_not_wait_for_its_snapshot(self):
        fleet = self.open()
        self.record(fleet, 0, "v1")
        fleet.end()
        fleet.look_after()
        self.assertEqual(self.lines(), [("check", mac(0))])


class TakenAwayTest(FleetCase):
    def setUp(self) -> None:
        super().setUp()
        self.fleet = self.open()
        for number in range(5):
            self.record(self.fleet, number, "v1")
        self.fleet.look_after()
        self.expected = self.table(self.fleet, 5)

    def assert_whole_again(self) -> None:
        self.fleet.look_after()
        self.assertEqual(table_of(self.log_dir), self.expected)
        self.record(self.fleet, 5, "v1")
        self.assertEqual(len(table_of(self.log_dir)), 6)

    def test_a_journal_that_was_taken_away_is_written_anew_with_all_known_devices(self):
        for name, take_away in {
            "moved": lambda: self.path.rename(self.root / "moved"),
            "deleted": self.path.unlink,
            "cut": lambda: os.truncate(self.path, 0),
            "cut in a line": lambda: os.truncate(self.path, 30),
            "folder deleted": lambda: shutil.rmtree(self.log_dir),
            "folder moved": lambda: self.log_dir.rename(self.root / "log.old"),
        }.items():
            with self.subTest(name), self.assertLogs(LOGGER, logging.WARNING):
                take_away()
                self.assert_whole_again()
                self.expected = self.table(self.fleet, 6)

    def test_what_comes_between_a_move_and_its_notice_is_in_both_files(self):
        moved = self.path.rename(self.root / "moved")
        self.record(self.fleet, 0, "v9")
        with self.assertLogs(LOGGER, logging.WARNING):
            self.fleet.look_after()
        self.assertEqual(self.lines(moved)[-1], ("check", mac(0)))
        self.assertEqual(table_of(self.log_dir)[mac(0)], device("v9"))

    def test_a_journal_that_is_taken_away_in_the_middle_of_a_snapshot_is_written_anew(self):
        self.path.unlink()
        written = os.write
        taken = iter([self.path])

        def write(descriptor: int, content: bytes) -> int:
            count = written(descriptor, content)
            for path in taken:
                path.unlink()
            return count

        with self.assertLogs(LOGGER, logging.WARNING), mock.patch("os.write", write):
            self.fleet.look_after()
            self.fleet.look_after()
        self.assertEqual(table_of(self.log_dir), self.expected)
        self.assertEqual(self.lines()[-1], ("snapshot", ""))

    def test_a_hangup_signal_has_the_journal_opened_by_its_name_again(self):
        moved = self.path.rename(self.root / "moved")
        self.fleet.reopen_journal()
        self.fleet.look_after()
        self.assertTrue(moved.exists())
        self.assertEqual(table_of(self.log_dir), self.expected)

    def test_a_journal_that_is_moved_before_its_old_records_were_read_loses_none(self):
        self.fleet = self.reopen()
        self.path.rename(self.root / "moved")
        with self.assertLogs(LOGGER, logging.WARNING):
            self.assert_whole_again()

    def test_a_journal_that_is_cut_before_its_records_were_read_is_no_flood_in_the_log(self):
        self.fleet = self.reopen()
        os.truncate(self.path, 0)
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            self.fleet.look_after()
        self.assertLessEqual(len(logged.records), 2)


class FullDiskTest(FleetCase):
    def test_after_a_full_disk_the_marked_devices_come_first_and_the_table_is_whole(self):
        fleet = self.open()
        for number in range(3):
            self.record(fleet, number, "v1")
        fleet.look_after()
        before = self.lines()
        with (
            self.assertLogs(LOGGER, logging.WARNING) as logged,
            file_size_limit(self.path.stat().st_size + 10),
        ):
            self.record(fleet, 1, "v2")
            self.record(fleet, 3, "v1")
            fleet.look_after()
            self.record(fleet, 1, "v3")
            fleet.look_after()
            self.assertEqual(self.get(fleet, 1), device("v3"))
        self.assertEqual(len(logged.records), 1)
        self.assertEqual(self.lines(), before)
        with self.assertLogs(LOGGER, logging.WARNING):
            fleet.look_after()
        self.record(fleet, 0, "v4")
        after = self.lines()[len(before) :]
        self.assertEqual(sorted(after[:2]), [("device", mac(1)), ("device", mac(3))])
        self.assertEqual(after[2:], [("check", mac(0))])
        self.assertEqual(table_of(self.log_dir), self.table(fleet, 4))

    def test_a_device_that_is_forgotten_while_the_disk_is_full_is_forgotten_for_good(self):
        fleet = self.open()
        for number in range(2):
            self.record(fleet, number, "v1")
        with file_size_limit(self.path.stat().st_size):
            fleet.forget(mac(0), NOW_MS)
            fleet.journal.flush()
            self.assertTrue(fleet.journal.failing)
        fleet.look_after()
        self.assertEqual(set(table_of(self.log_dir)), {mac(1)})

    def test_a_disk_that_is_full_from_the_start_is_said_once(self):
        fleet = self.open()
        with self.assertLogs(LOGGER, logging.WARNING) as logged, file_size_limit(0):
            for _ in range(5):
                fleet.look_after()
        self.assertEqual(len(logged.records), 1)
        with self.assertLogs(LOGGER, logging.WARNING):
            fleet.look_after()
        self.assertEqual(self.lines(), [("snapshot", "")])

    def test_a_disk_that_fills_in_the_middle_of_a_snapshot_loses_nothing(self):
        fleet = self.open(rotate_bytes=1, keep_files=0)
        for number in range(30):
            self.record(fleet, number, "v1")
        fleet.look_after()
        for step in range(70):
            self.record(fleet, step % 30, f"v{step}")
        expected = self.table(fleet, 30)
        with self.assertLogs(LOGGER, logging.WARNING), file_size_limit(2000):
            fleet.look_after()
            fleet.look_after()
            self.assertEqual(table_of(self.log_dir), expected)
        with self.assertLogs(LOGGER, logging.WARNING):
            fleet.look_after()
        self.assertEqual(table_of(self.log_dir), expected)
        self.assertEqual(journal_files(self.log_dir), [self.path])

    def test_what_could_not_be_written_is_tried_once_more_at_the_end(self):
        fleet = self.open()
        with self.assertLogs(LOGGER, logging.WARNING):
            with file_size_limit(0):
                self.record(fleet, 0, "v1")
            self.close()
        self.assertEqual(self.lines(), [("device", mac(0))])

    def test_a_file_that_becomes_writable_again_is_written(self):
        fleet = self.open()
        self.record(fleet, 0, "v1")
        self.path.unlink()
        self.path.mkdir()
        with self.assertLogs(LOGGER, logging.WARNING) as logged:
            for version in ("v2", "v3"):
                fleet.look_after()
                self.record(fleet, 0, version)
        self.assertEqual([one.levelname for one in logged.records], ["WARNING", "ERROR"])
        self.path.rmdir()
        with self.assertLogs(LOGGER, logging.WARNING):
            fleet.look_after()
        self.assertEqual(table_of(self.log_dir), {mac(0): device("v3")})


class CrashTest(FleetCase):
    """A copy of the folder after each step of the kernel is what a kill -9 there leaves."""

    DEVICES = 8

    def copies_of(self, action: Callable[[], object]) -> list[Path]:
        """Run `action` and return the states of the folder on its way, torn writes among them."""
        copies: list[Path] = []

        def copy() -> Path:
            target = self.root / f"copy{len(copies)}"
            shutil.copytree(self.log_dir, target)
            copies.append(target)
            return target

        def copying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                result = call(*arguments, **options)
                copy()
                return result

            return wrapper

        real_write = os.write

        def write(descriptor: int, content: bytes) -> int:
            written = real_write(descriptor, content)
            torn = copy() / "devices.jsonl"
            if torn.exists():
                os.truncate(torn, max(0, torn.stat().st_size - written // 2))
            copy()
            return written

        with ExitStack() as stack:
            stack.enter_context(mock.patch("os.write", write))
            for name, real in (
                ("os.open", os.open),
                ("os.rename", os.rename),
                ("os.unlink", os.unlink),
            ):
                stack.enter_context(mock.patch(name, copying(real)))
            action()
        return copies

    def test_a_crash_at_any_step_of_a_rotation_loses_nothing(self):
        fleet = self.open(rotate_bytes=1, keep_files=1)
        fleet.look_after()
        for turn in range(3):
            for step in range(3 * self.DEVICES):
                self.record(fleet, step % self.DEVICES, f"v{turn}.{step}")
            expected = self.table(fleet, self.DEVICES)
            copies = self.copies_of(fleet.look_after)
            self.assertGreater(len(copies), self.DEVICES)
            for copy in copies:
                self.assertEqual(table_of(copy), expected, sorted(os.listdir(copy)))
                shutil.rmtree(copy)

    def test_a_server_that_starts_after_a_crash_in_a_rotation_goes_on_whole(self):
        fleet = self.open(rotate_bytes=1, keep_files=0)
        fleet.look_after()
        for step in range(3 * self.DEVICES):
            self.record(fleet, step % self.DEVICES, f"v{step}")
        expected = self.table(fleet, self.DEVICES)
        copies = self.copies_of(fleet.look_after)
        self.close()
        for copy in copies:
            self.log_dir = copy
            self.path = copy / "devices.jsonl"
            again = self.open(rotate_bytes=1, keep_files=0)
            self.assertEqual(self.table(again, self.DEVICES), expected)
            again.look_after()
            self.record(again, 0, "next")
            again.look_after()
            self.close()
            self.assertEqual(table_of(copy), {**expected, mac(0): device("next")})


class ThreadsTest(FleetCase):
    def test_many_threads_keep_table_and_journal_in_step_and_lose_no_line(self):
        threads, records, devices = 8, 150, 20
        fleet = self.open(rotate_bytes=1000, keep_files=1000)
        fleet.look_after()
        rotated, ended = threading.Event(), threading.Event()

        def run(seed: int) -> None:
            chosen = random.Random(seed)
            for step in range(records):
                number = chosen.randrange(devices)
                with fleet.lock:
                    known = fleet.get(mac(number)) or device("v0")
                    count = int(known.firmware_version[1:]) + 1
                    fleet.record(
                        "check", mac(number), device(f"v{count}"), {"by": seed * 1000 + step}
                    )
                fleet.journal.flush()
                if step == records // 2:
                    rotated.wait(TIMEOUT_SECONDS)

        def look_after() -> None:
            while not ended.is_set():
                fleet.look_after()
                if fleet.journal.generation > 1:
                    rotated.set()

        chores = threading.Thread(target=look_after)
        workers = [threading.Thread(target=run, args=(seed,)) for seed in range(threads)]
        for thread in (chores, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        ended.set()
        chores.join()
        expected = self.table(fleet, devices)
        self.close()
        self.assertEqual(table_of(self.log_dir), expected)
        files = journal_files(self.log_dir)
        self.assertGreater(len(files), 1)
        lines = (line for path in files for line in path.read_bytes().splitlines())
        found = [json.loads(line) for line in lines]
        checks = [line for line in found if line["event"] == "check"]
        self.assertEqual(len({line["by"] for line in checks}), threads * records)
        self.assertEqual(len(checks), threads * records)
        for name, known in expected.items():
            versions = [line["firmware_version"] for line in checks if line["mac"] == name]
            self.assertEqual(versions, [f"v{at + 1}" for at in range(len(versions))])
            self.assertEqual(known.firmware_version, versions[-1])


class BackgroundTest(FleetCase):
    """Work on all devices, while requests come in between."""

    def setUp(self) -> None:
        super().setUp()
        fleet = self.open()
        for number in range(5):
            self.record(fleet, number, "old")
        self.close()
        self.fleet = self.open()

    @contextmanager
    def at_each_read(self, action: Callable[[], object]) -> Iterator[None]:
        """Run `action` whenever a row is read from the journal."""
        read = os.pread

        def pread(*arguments: int) -> bytes:
            action()
            return read(*arguments)

        with mock.patch("os.pread", pread):
            yield

    def test_nobody_waits_for_the_table_while_rows_are_read_or_lines_made(self):
        held: list[bool] = []
        with self.at_each_read(lambda: held.append(self.fleet.lock.locked())):
            self.fleet.look_after()
        self.assertGreaterEqual(len(held), 5)
        self.assertNotIn(True, held)

    def test_a_device_that_asks_meanwhile_is_on_record_and_in_the_table_as_it_is_now(self):
        numbers = iter(range(5))

        def ask() -> None:
            for number in numbers:
                self.record(self.fleet, number, f"new {number}")

        expected = {mac(number): device(f"new {number}") for number in range(5)}
        with self.at_each_read(ask):
            self.fleet.look_after()
        self.assertEqual(self.table(self.fleet, 5), expected)
        self.assertEqual(table_of(self.log_dir), expected)
        self.assertEqual(self.lines()[-1][0], "snapshot")

    def test_those_who_answer_get_the_interpreter_again_and_again(self):
        fleet = self.reopen(max_devices=5000)
        with fleet.lock:
            for number in range(5000):
                fleet.record("check", mac(number), device("v1"))
        fleet.journal.flush()
        with mock.patch("time.sleep") as sleep:
            fleet.look_after()
        self.assertEqual(self.lines()[-1][0], "snapshot")
        self.assertGreater(sleep.call_count, 5)


class ReaderTest(FleetCase):
    def test_who_reads_while_the_journal_rotates_sees_all_devices(self):
        fleet = self.open(rotate_bytes=1, keep_files=0)
        fleet.look_after()
        for number in range(20):
            self.record(fleet, number % 5, f"v{number}")
        expected = self.table(fleet, 5)
        opened = os.open
        rotations = iter([fleet.look_after])

        def open_late(path: Any, *arguments: Any, **options: Any) -> int:
            if path == self.path:
                for rotate in rotations:
                    rotate()
            return opened(path, *arguments, **options)

        with mock.patch("os.open", open_late):
            self.assertEqual(table_of(self.log_dir), expected)
        self.assertEqual(fleet.journal.generation, 2)

    def test_a_file_that_cannot_be_opened_is_said_and_not_tried_for_ever(self):
        self.log_dir.mkdir()
        (self.log_dir / "devices.000001.jsonl").symlink_to("missing")
        with self.assertRaises(FileNotFoundError):
            table_of(self.log_dir)


class SnapshotOrderTest(FleetCase):
    def test_a_snapshot_never_takes_the_place_of_a_newer_record(self):
        self.log_dir.mkdir()
        old = [format_record("check", mac(number), device("old")) for number in range(3)]
        (self.log_dir / "devices.000001.jsonl").write_bytes(
            b"".join(old) + format_marker(NOW_MS, 3)
        )
        fleet = self.open()
        with fleet.lock:
            fleet.record("check", mac(1), device("new"))
        fleet.look_after()
        self.assertEqual(table_of(self.log_dir)[mac(1)], device("new"))
        self.assertEqual(self.lines()[0], ("check", mac(1)))
