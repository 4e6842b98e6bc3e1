"""Seals: what a server wrote is read by few steps at a start, and nothing else is."""

import tempfile
import unittest
from pathlib import Path
from zlib import crc32

from ota_server.journal.record import (
    Seal,
    format_marker,
    format_record,
    format_seal,
    parse_seal,
    sealed,
)
from ota_server.journal.replay import Replay, replay
from ota_server.journal.scan import FileScan, ScanResult
from ota_server.model.device import Device
from ota_server.model.identity import expand, number_of

NOW_MS = 1_795_435_200_123
A, B, C = "00:11:22:33:44:0a", "00:11:22:33:44:0b", "ff:11:22:33:44:0c"


def record(mac: str, version: str, event: str = "check") -> bytes:
    device = Device(NOW_MS, version, NOW_MS, None, "v2", "192.0.2.7", False, None)
    return format_record(event, mac, device)


def with_seal(before: bytes, start: int = 0, line: bytes = b"") -> bytes:
    """Return bytes of a file with the seal of those from `start` on after them."""
    return before + sealed(line or format_seal(NOW_MS), Seal(start, crc32(before[start:])))


class SealTest(unittest.TestCase):
    def test_a_seal_is_read_back_as_it_was(self):
        for seal in (Seal(0, 0), Seal(123_456_789_012, 0xFFFF_FFFF), Seal(7, 0xA)):
            for line in (format_seal(NOW_MS), format_marker(NOW_MS, 7)):
                with self.subTest(seal=seal, line=line):
                    self.assertIsNone(parse_seal(line[:-1]))
                    self.assertEqual(parse_seal(sealed(line, seal)[:-1]), seal)

    def test_a_version_that_looks_like_a_seal_is_none(self):
        text = ',"sealed_from":0,"crc32":"00000000"}'
        self.assertIsNone(parse_seal(record(A, text)[:-1]))


class SealedFileCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_dir = Path(folder.name)
        self.path = self.log_dir / "devices.jsonl"

    def replay(self, content: bytes) -> Replay:
        self.path.write_bytes(content)
        found = replay(self.log_dir)
        self.addCleanup(found.close)
        return found

    def versions(self, content: bytes) -> dict[str, str]:
        devices = self.replay(content).devices()
        return {mac: found.firmware_version for mac, found in devices}


class SealedSegmentTest(SealedFileCase):
    def test_lines_under_a_seal_are_not_matched_in_full_but_when_they_are_asked_for(self):
        found = self.replay(with_seal(record(A, "a") + record(A, "x").replace(b'"x"', b"null")))
        self.assertEqual((set(found.locations), found.bad_lines), ({number_of(A)}, 0))
        self.assertIsNone(found.read(found.locations[number_of(A)]))

    def test_the_newest_line_counts_with_and_without_seals(self):
        content = with_seal(record(A, "1") + record(B, "1"))
        content += record(A, "2")
        self.assertEqual(self.versions(content), {A: "2", B: "1"})
        content = with_seal(content + record(A, "3"), len(content))
        self.assertEqual(self.versions(content), {A: "3", B: "1"})

    def test_a_file_in_pieces_of_any_size_holds_the_same(self):
        content = record(A, "1")
        for turn in range(5):
            start = len(content)
            content = with_seal(content + record(A, f"{turn}") + record(B, f"{turn}"), start)
            content += record(C, f"{turn}") + b"bad\n"
        whole = self.replay(content)
        for size in (1, 7, 100, 333, 1000):
            with self.subTest(size):
                found = ScanResult()
                file = FileScan(found, 0)
                for at in range(0, len(content), size):
                    file.feed(content[at : at + size])
                file.end()
                self.assertEqual(
                    (found.locations, found.bad_lines), (whole.locations, whole.bad_lines)
                )

    def test_a_line_that_was_edited_under_a_seal_replaces_nothing_and_is_counted(self):
        good = with_seal(record(A, "good") + record(A, "edit"))
        for old, new in ((b'"edit"', b"nulled"), (b'"edit"', b"null"), (b"edit", b'e"it')):
            with self.subTest(new):
                found = self.replay(good.replace(old, new))
                self.assertEqual(found.bad_lines, 1)
                (device,) = [device for _, device in found.devices()]
                self.assertEqual(device.firmware_version, "good")

    def test_a_line_that_was_edited_well_is_read_as_it_is_now(self):
        self.assertEqual(
            self.versions(with_seal(record(A, "v1")).replace(b'"v1"', b'"v1.0.7"')), {A: "v1.0.7"}
        )

    def test_a_seal_that_lies_is_not_believed(self):
        before = record(A, "a") + record(A, "x").replace(b'"x"', b"null") + record(B, "b")
        line = format_seal(NOW_MS)
        for name, seal in {
            "of other bytes": Seal(0, crc32(before) ^ 1),
            "from within a line": Seal(5, crc32(before[5:])),
            "from another line": Seal(len(record(A, "a")), crc32(before)),
            "from the future": Seal(len(before) + 10, 0),
            "from its own line": Seal(len(before), 0),
            "from nowhere": Seal(10**17, 0),
        }.items():
            with self.subTest(name):
                found = self.replay(before + sealed(line, seal) + record(C, "c"))
                self.assertEqual(found.bad_lines, 1)
                versions = {mac: device.firmware_version for mac, device in found.devices()}
                self.assertEqual(versions, {A: "a", B: "b", C: "c"})

    def test_a_forged_seal_over_no_records_hides_none_after_it_and_notes_none(self):
        bad = record(A, "x").replace(b'"mac":"00:', b'"mac":"0g:')
        for before in (
            record(B, "b") + bad,
            bad + record(B, "b"),
            b"\n" + record(B, "b") + record(B, "b").replace(b"\n", b"") + record(B, "b"),
        ):
            found = self.replay(with_seal(before) + record(C, "c"))
            self.assertEqual({mac for mac, _ in found.devices()}, {B, C})
            self.assertGreaterEqual(found.bad_lines, 1)

    def test_files_that_were_put_together_are_read_in_full(self):
        first = with_seal(record(A, "1") + record(B, "1"))
        second = with_seal(record(A, "2") + record(C, "2").replace(b'"2"', b"null"))
        found = self.replay(first + second)
        versions = {mac: device.firmware_version for mac, device in found.devices()}
        self.assertEqual((versions, found.bad_lines), ({A: "2", B: "1"}, 1))
        found = self.replay(second + first)
        self.assertEqual({mac for mac, _ in found.devices()}, {A, B})

    def test_a_file_whose_head_was_cut_off_is_read_in_full(self):
        content = with_seal(record(A, "1") + record(B, "1") + record(C, "1"))
        self.assertEqual(self.versions(content[len(record(A, "1")) :]), {B: "1", C: "1"})
        self.assertEqual(self.versions(content[20:]), {B: "1", C: "1"})

    def test_events_without_a_device_and_records_by_hand_may_stand_under_a_seal(self):
        other = b'{"time":"x","event":"wave","devices":[1,2]}\n'
        by_hand = record(B, "b").replace(b'","', b'", "')
        found = self.replay(with_seal(record(A, "a") + other + by_hand + format_marker(NOW_MS, 2)))
        self.assertEqual(found.bad_lines, 0)
        self.assertEqual({mac for mac, _ in found.devices()}, {A, B})

    def test_a_marker_is_found_with_a_seal_and_under_one(self):
        before = record(A, "a")
        marked = with_seal(before, line=format_marker(NOW_MS, 1))
        self.assertEqual(self.replay(marked).marker_end, len(marked))
        plain = before + format_marker(NOW_MS, 1)
        self.assertEqual(self.replay(with_seal(plain + record(B, "b"))).marker_end, len(plain))

    def test_a_line_under_a_seal_that_goes_bad_after_the_start_answers_nothing(self):
        found = self.replay(with_seal(record(A, "a")))
        (location,) = found.locations.values()
        self.path.write_bytes(with_seal(record(A, "a")).replace(b'"a"', b"nil"))
        self.assertIsNone(found.read(location))

    def test_a_seal_over_more_than_is_held_in_memory_is_none(self):
        lines = b"".join(record(expand(1 + number), "v1") for number in range(2000))
        bad = record(A, "x").replace(b'"x"', b"null")
        found = self.replay(with_seal(record(A, "a") + bad + lines * 50))
        self.assertGreater(self.path.stat().st_size, 20 * 1024 * 1024)
        self.assertEqual((len(found.locations), found.bad_lines), (2001, 1))


class UnsealedTest(SealedFileCase):
    def assert_unsealed(self, content: bytes, start: int) -> None:
        expected = Seal(start, crc32(content[start:]))
        self.assertEqual(self.replay(content).unsealed, expected)

    def test_good_lines_after_the_last_seal_can_be_sealed(self):
        content = with_seal(record(A, "a"))
        self.assert_unsealed(content, len(content))
        self.assert_unsealed(content + record(B, "b"), len(content))
        self.assert_unsealed(record(B, "b"), 0)
        self.assert_unsealed(b"", 0)

    def test_a_bad_line_and_what_stands_before_it_cannot_be_sealed(self):
        before = with_seal(record(A, "a")) + record(B, "b")
        for bad in (b"bad\n", b"\0" * 70_000 + b"\n", record(A, "x").replace(b'"x"', b"null")):
            self.assert_unsealed(before + bad, len(before + bad))
            self.assert_unsealed(before + bad + record(C, "c"), len(before + bad))

    def test_a_torn_line_at_the_end_cannot_be_sealed(self):
        self.assertIsNone(self.replay(record(A, "a") + b'{"torn').unsealed)

    def test_what_stands_in_a_rotated_file_cannot_be_sealed(self):
        self.replay(record(A, "a"))
        self.path.rename(self.log_dir / "devices.000001.jsonl")
        found = replay(self.log_dir)
        self.addCleanup(found.close)
        self.assertIsNone(found.unsealed)
