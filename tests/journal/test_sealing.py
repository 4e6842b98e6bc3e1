"""The journal seals what it has written, and nothing that it has not."""

import logging
import os
import shutil
from zlib import crc32

from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import format_marker, format_record, format_seal, parse_seal
from ota_server.journal.writer import SEAL_BYTES, Journal
from ota_server.model.identity import expand
from tests.journal.test_device_table import NOW_MS, FleetCase, device, mac, table_of
from tests.journal.test_writer import LOGGER, JournalCase, device_lines, file_size_limit

SEAL = format_seal(NOW_MS)
DEVICES = 6000


def record(number: int, version: str) -> bytes:
    return format_record("check", mac(number), device(version))


# Enough to be sealed.
MUCH = b"".join(record(number, "v1") for number in range(DEVICES))
SOME = MUCH[: len(record(0, "v1")) * (DEVICES // 2)]
assert len(SOME) < SEAL_BYTES < len(MUCH)


def sealed_parts(content: bytes) -> list[bytes]:
    """Return what stands under each seal; fails where one does not hold."""
    parts = []
    stop = 0
    for line in content.splitlines(keepends=True):
        seal = parse_seal(line[:-1])
        if seal is not None:
            part = content[seal.start : stop]
            assert crc32(part) == seal.crc, line
            parts.append(part)
        stop += len(line)
    return parts


class SealCase(JournalCase):
    def put(self, journal: Journal, *lines: bytes) -> None:
        """Write lines, and seal them if they are enough."""
        for line in lines:
            journal.append("a", line)
            journal.flush()
        journal.seal(SEAL)

    def assert_sealed(self, *parts: bytes) -> None:
        self.assertEqual(sealed_parts(self.path.read_bytes()), list(parts))


class SealTest(SealCase):
    def test_what_is_not_much_is_not_sealed(self):
        journal = self.open()
        self.put(journal, record(0, "v1"), record(1, "v1"))
        self.assertEqual(self.path.read_bytes(), record(0, "v1") + record(1, "v1"))

    def test_much_is_sealed_each_byte_once(self):
        journal = self.open()
        self.put(journal, record(0, "v1"), MUCH)
        self.put(journal, MUCH)
        self.put(journal, record(1, "v1"))
        self.assert_sealed(record(0, "v1") + MUCH, MUCH)

    def test_the_marker_of_a_snapshot_is_a_seal(self):
        journal = self.open()
        self.put(journal, record(0, "v1"))
        journal.close_snapshot(format_marker(NOW_MS, 1), journal.generation)
        self.put(journal, MUCH)
        self.assert_sealed(record(0, "v1"), MUCH)

    def test_what_stood_in_the_file_before_is_not_sealed(self):
        for content in (b"bad\n", b'{"torn'):
            with self.subTest(content):
                self.path.write_bytes(content)
                journal = Journal(self.log_dir)
                self.put(journal, MUCH)
                journal.close()
                self.assert_sealed(MUCH)

    def test_a_new_file_is_sealed_from_its_first_byte(self):
        journal = self.open()
        self.put(journal, record(0, "v1"))
        self.path.rename(self.log_dir / "moved")
        journal.look_after()
        self.put(journal, MUCH)
        self.assert_sealed(MUCH)


class DoubtTest(SealCase):
    def test_what_another_has_written_into_the_file_is_not_sealed(self):
        journal = self.open()
        self.put(journal, record(0, "v1"))
        with self.path.open("ab") as file:
            file.write(b"by an operator\n")
        self.put(journal, MUCH)
        self.assert_sealed()
        self.put(journal, MUCH)
        self.assert_sealed(MUCH)

    def test_a_write_that_failed_and_was_cut_back_is_not_under_the_seal(self):
        journal = self.open()
        self.put(journal, SOME)
        with self.assertLogs(LOGGER, logging.WARNING):
            with file_size_limit(self.path.stat().st_size + 10):
                self.put(journal, record(0, "v2"))
            journal.resume(device_lines)
        self.put(journal, MUCH)
        self.assert_sealed(SOME + device_lines(["a"]) + MUCH)

    def test_a_torn_line_that_could_not_be_cut_back_is_not_under_the_seal(self):
        journal = self.open()
        self.put(journal, record(0, "v1"))
        with self.assertLogs(LOGGER, logging.WARNING):
            with file_size_limit(self.path.stat().st_size + 10):
                self.put(journal, record(0, "v2"))
            with self.path.open("ab") as file:
                file.write(b'{"torn')
            journal.resume(device_lines)
        self.put(journal, MUCH)
        self.assert_sealed(device_lines(["a"]) + MUCH)

    def test_a_seal_that_could_not_be_written_is_left_out(self):
        journal = self.open()
        self.put(journal, record(0, "v1"))
        journal.append("a", MUCH)
        journal.flush()
        with self.assertLogs(LOGGER, logging.WARNING):
            with file_size_limit(self.path.stat().st_size + 10):
                journal.seal(SEAL)
            self.assertEqual(self.path.read_bytes(), record(0, "v1") + MUCH)
            journal.resume(device_lines)
            self.put(journal, MUCH)
        self.assert_sealed(MUCH)

    def test_nothing_is_sealed_while_the_file_cannot_be_written(self):
        journal = self.open()
        self.put(journal, SOME)
        with self.assertLogs(LOGGER, logging.WARNING), file_size_limit(len(MUCH)):
            self.put(journal, MUCH)
        self.assertEqual(self.path.read_bytes(), SOME)


class RestartTest(FleetCase):
    def fill(self, fleet: DeviceTable, count: int = DEVICES) -> None:
        for number in range(count):
            with fleet.lock:
                fleet.record("check", mac(number), device("v1"))
        fleet.journal.flush()

    def kill(self) -> None:
        """Leave what a kill -9 would: the files as they are, and no end of the server."""
        copy = self.root / "copy"
        shutil.copytree(self.log_dir, copy)
        self.close()
        shutil.rmtree(self.log_dir)
        copy.rename(self.log_dir)

    def open_many(self) -> DeviceTable:
        return self.open(max_devices=10 * DEVICES)

    def test_a_server_seals_by_itself(self):
        fleet = self.open_many()
        self.fill(fleet)
        fleet.look_after()
        self.fill(fleet)
        fleet.look_after()
        content = self.path.read_bytes()
        parts = sealed_parts(content)
        self.assertGreater(sum(map(len, parts)), 3 * SEAL_BYTES)
        self.assertLess(len(content) - sum(map(len, parts)), 1000)
        self.assertEqual(len(table_of(self.log_dir)), DEVICES)

    def test_a_server_that_starts_after_a_kill_goes_on_in_the_segment(self):
        fleet = self.open_many()
        fleet.look_after()
        marked = self.path.stat().st_size
        self.fill(fleet, DEVICES // 2)
        self.kill()
        fleet = self.open_many()
        self.fill(fleet)
        fleet.look_after()
        content = self.path.read_bytes()
        (*_, part) = sealed_parts(content)
        self.assertTrue(content[marked:].startswith(part))
        self.assertGreater(len(part), len(MUCH))

    def test_a_server_that_starts_after_a_kill_in_a_write_seals_no_torn_line(self):
        fleet = self.open_many()
        fleet.look_after()
        self.fill(fleet, 10)
        self.kill()
        os.truncate(self.path, self.path.stat().st_size - 20)
        torn = self.path.stat().st_size + len(b"\n")
        fleet = self.open_many()
        self.assertEqual(fleet.bad_lines, 1)
        self.fill(fleet)
        fleet.look_after()
        content = self.path.read_bytes()
        (*_, part) = sealed_parts(content)
        self.assertTrue(content[torn:].startswith(part))

    def test_a_bad_line_is_counted_at_each_start_however_much_is_sealed_after_it(self):
        self.log_dir.mkdir()
        self.path.write_bytes(record(0, "good") + record(0, "x").replace(b'"x"', b"null"))
        for _ in range(3):
            fleet = self.open_many()
            self.assertEqual(fleet.bad_lines, 1)
            self.assertEqual(self.get(fleet, 0).firmware_version, "good")
            for number in range(1, DEVICES):
                with fleet.lock:
                    fleet.record("check", expand(number + 1), device("v1"))
            fleet.journal.flush()
            fleet.journal.seal(SEAL)
            self.close()
        self.assertEqual(len(sealed_parts(self.path.read_bytes())), 3)

    def test_an_older_journal_without_seals_gets_them_from_a_start_on(self):
        self.log_dir.mkdir()
        self.path.write_bytes(MUCH + format_marker(NOW_MS, DEVICES))
        expected = table_of(self.log_dir)
        fleet = self.open_many()
        fleet.look_after()
        self.assertEqual(self.table(fleet, DEVICES), expected)
        self.close()
        (part,) = sealed_parts(self.path.read_bytes())
        self.assertTrue(part.startswith(MUCH))
        self.assertEqual(table_of(self.log_dir), expected)
        fleet = self.open_many()
        fleet.look_after()
        self.assertFalse(fleet.journal.needs_snapshot)
