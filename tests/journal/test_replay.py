"""Reading the journal back: the newest line of each device, whatever else the files hold."""

import os
import tempfile
import threading
import unittest
from pathlib import Path

from ota_server.journal.record import format_marker, format_record
from ota_server.journal.replay import Replay, history, replay, replay_in_pieces
from ota_server.model.device import Device
from ota_server.model.identity import expand, number_of

NOW_MS = 1_795_435_200_123
A, B, C = "00:11:22:33:44:0a", "00:11:22:33:44:0b", "ff:11:22:33:44:0c"
MARKER = format_marker(NOW_MS, 1)


def device(version: str, time_ms: int = NOW_MS) -> Device:
    return Device(time_ms, version, time_ms, None, "v2", "192.0.2.7", False, None)


def record(mac: str, version: str, time_ms: int = NOW_MS) -> bytes:
    return format_record("check", mac, device(version, time_ms))


class ReplayCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_dir = Path(folder.name)

    def put(self, *parts: bytes, number: int | None = None) -> Path:
        """Write a file of the journal: the current one, or a rotated one."""
        name = "devices.jsonl" if number is None else f"devices.{number:06d}.jsonl"
        path = self.log_dir / name
        path.write_bytes(b"".join(parts))
        return path

    def replay(self) -> Replay:
        result = replay(self.log_dir)
        self.addCleanup(result.close)
        return result

    def versions(self) -> dict[str, str]:
        """Return the version of each device after a start."""
        return {mac: found.firmware_version for mac, found in self.replay().devices()}


class NewestTest(ReplayCase):
    def test_the_newest_line_of_a_device_is_the_last_one_and_not_the_latest(self):
        self.put(record(A, "new", NOW_MS), record(B, "b"), record(A, "old", NOW_MS - 1000))
        self.assertEqual(self.versions(), {A: "old", B: "b"})

    def test_a_whole_record_is_read_back(self):
        self.put(record(A, "v1"))
        self.assertEqual(list(self.replay().devices()), [(A, device("v1"))])

    def test_nothing_is_known_where_there_is_no_journal(self):
        self.assertEqual(self.versions(), {})
        self.put(b"")
        self.assertEqual(self.versions(), {})

    def test_lines_across_the_blocks_of_a_large_file_are_all_read(self):
        macs = [expand(number) for number in range(1, 25_001)]
        self.put(*(record(mac, f"v{at}") for at, mac in enumerate(macs)), record(macs[0], "last"))
        self.assertGreater((self.log_dir / "devices.jsonl").stat().st_size, 5 * 1024 * 1024)
        expected = {mac: f"v{at}" for at, mac in enumerate(macs)}
        self.assertEqual(self.versions(), {**expected, macs[0]: "last"})

    def test_a_mac_is_one_number_and_back(self):
        for mac in (A, B, C, "00:00:00:00:00:01"):
            with self.subTest(mac):
                self.assertEqual(expand(number_of(mac)), mac)


class BadLineTest(ReplayCase):
    def test_bad_lines_are_skipped_and_counted(self):
        for name, bad in {
            "torn": record(B, "x")[:-20],
            "NUL block": b"\0" * 100_000,
            "invalid UTF-8": record(B, "x")[:-1].replace(b"192", b"\xff\xfe"),
            "nested": b"[" * 200_000,
            "nested objects": b'{"a":' * 200_000,
            "number": b"17",
            "text": b"hello",
            "empty": b"",
            "marker cut": MARKER[:-5],
            "no record": b'{"event":"check","mac":"x"}',
            "no event": b'{"a":1}',
            "hex without colons": record(B, "x")[:-1].replace(B.encode(), b"a" * 17),
            "colons without hex": record(B, "x")[:-1].replace(B.encode(), b":" * 17),
            "no time": record(B, "x")[:-1].replace(b"2026-11-23T", b"2026-11-31T"),
            "number without end": record(B, "x")[:-2] + b',"a":' + b"1" * 5_000 + b"}",
            "two records in a line": record(B, "x")[:-1] + record(B, "x")[:-1],
        }.items():
            with self.subTest(name):
                self.put(record(A, "a"), bad, b"\n", record(C, "c"))
                found = self.replay()
                self.assertEqual((len(found.locations), found.bad_lines), (2, 1))
                self.assertEqual(dict(found.devices()), {A: device("a"), C: device("c")})

    def test_a_bad_line_does_not_take_the_place_of_an_older_good_one(self):
        for name, old, new in (
            ("time", b"2026-11-23T", b"2026-02-30T"),
            ("hour", b"T12:", b"T25:"),
            ("version", b'"x"', b"null"),
        ):
            with self.subTest(name):
                self.put(record(A, "good"), record(A, "x").replace(old, new))
                self.assertEqual(self.versions(), {A: "good"})

    def test_a_file_that_ends_in_a_nul_block_is_read_up_to_it(self):
        path = self.put(record(A, "a"))
        os.truncate(path, path.stat().st_size + 20 * 1024 * 1024)
        found = self.replay()
        self.assertEqual((len(found.locations), found.bad_lines), (1, 1))

    def test_a_nul_block_of_any_length_hides_no_line_after_it(self):
        path = self.put(record(A, "a"))
        os.truncate(path, path.stat().st_size + 20 * 1024 * 1024)
        with path.open("ab") as file:
            file.write(b"\n" + record(B, "b"))
        found = self.replay()
        self.assertEqual(dict(found.devices()), {A: device("a"), B: device("b")})
        self.assertEqual(found.bad_lines, 1)

    def test_events_of_later_versions_are_not_bad(self):
        self.put(b'{"time":"x","event":"wave","devices":[1,2]}\n', record(A, "a"))
        found = self.replay()
        self.assertEqual((len(found.locations), found.bad_lines), (1, 0))

    def test_a_last_line_that_an_editor_left_without_its_end_is_read(self):
        self.put(record(A, "a"), record(B, "b")[:-1])
        self.assertEqual(self.versions(), {A: "a", B: "b"})

    def test_lines_with_the_ends_of_another_system_are_read(self):
        self.put(record(A, "a").replace(b"\n", b"\r\n"), record(B, "b"))
        self.assertEqual(self.versions(), {A: "a", B: "b"})

    def test_a_line_that_goes_bad_after_the_start_answers_nothing(self):
        path = self.put(record(A, "a"))
        found = self.replay()
        (location,) = found.locations.values()
        os.truncate(path, 10)
        self.assertIsNone(found.read(location))


class FilesTest(ReplayCase):
    def test_a_start_reads_from_the_newest_file_with_a_marker(self):
        self.put(record(A, "older than the snapshot"), MARKER, number=1)
        self.put(record(B, "b"), MARKER, record(C, "c"), number=2)
        self.put(record(C, "newer"))
        self.assertEqual(self.versions(), {B: "b", C: "newer"})
        self.assertIsNone(self.replay().marker_end)

    def test_a_start_reads_all_files_where_none_has_a_marker(self):
        self.put(record(A, "a"), number=1)
        self.put(record(B, "b"), number=2)
        self.put(record(A, "newer"))
        self.assertEqual(self.versions(), {A: "newer", B: "b"})

    def test_files_are_read_in_the_order_of_their_numbers(self):
        self.put(record(A, "old"), number=999_999)
        self.put(record(A, "new"), number=1_000_000)
        self.assertEqual(self.versions(), {A: "new"})

    def test_a_marker_in_the_current_file_says_where_it_ends(self):
        snapshot = record(A, "a") + MARKER
        self.put(record(B, "b"), number=1)
        self.put(snapshot, record(A, "newer"))
        found = self.replay()
        self.assertEqual(found.marker_end, len(snapshot))
        self.assertEqual(set(found.locations), {number_of(A)})

    def test_a_marker_that_lies_across_two_blocks_is_found(self):
        self.put(record(A, "a"), number=1)
        for length in range(4 * 1024 * 1024 - len(MARKER) - 2, 4 * 1024 * 1024 + 2, 7):
            filler = b'{"event":"filler"}'.ljust(length - 1) + b"\n"
            self.put(filler, MARKER)
            self.assertEqual(self.replay().locations, {})

    def test_a_marker_that_was_cut_is_none(self):
        self.put(record(A, "a"), MARKER, number=1)
        self.put(record(B, "b"), MARKER[:-1])
        self.assertEqual(self.versions(), {A: "a", B: "b"})

    def test_a_device_whose_version_is_called_snapshot_is_no_marker(self):
        self.put(record(A, "a"), number=1)
        self.put(record(B, "snapshot"), record(C, '"event":"snapshot"'))
        self.assertEqual(set(self.versions()), {A, B, C})

    def test_a_pipe_in_place_of_the_journal_does_not_hang_a_start(self):
        os.mkfifo(self.log_dir / "devices.jsonl")
        self.put(record(A, "a"), number=1)
        starting = threading.Thread(target=self.versions, daemon=True)
        starting.start()
        starting.join(10.0)
        self.assertFalse(starting.is_alive())


class HistoryTest(ReplayCase):
    def test_a_history_has_all_records_of_one_device_from_all_files(self):
        self.put(record(A, "1"), record(B, "x"), MARKER, number=1)
        self.put(record(A, "2"), b'{"torn "' + A.encode() + b'"\n', MARKER, number=2)
        self.put(b'{"event":"x","about":"' + A.encode() + b'"}\n', record(A, "3"))
        found = [fields["firmware_version"] for fields in history(self.log_dir, A)]
        self.assertEqual(found, ["1", "2", "3"])
        self.assertEqual(list(history(self.log_dir, C)), [])


class PiecesTest(ReplayCase):
    def test_in_pieces_the_same_is_found(self):
        self.put(record(A, "v1"), record(B, "v1"), MARKER, number=1)
        self.put(record(A, "v2"), record(C, "v1"))
        pieces, parts = replay_in_pieces(self.log_dir), []
        while True:
            try:
                parts.append(next(pieces))
            except StopIteration as end:
                found = end.value
                break
        self.addCleanup(found.close)
        self.assertEqual(
            (parts, [*found.devices()]), ([*sorted(parts)], [*self.replay().devices()])
        )
        self.assertEqual(parts[-1], 1.0)

    def test_who_asks_for_no_more_pieces_leaves_no_file_open(self):
        self.put(record(A, "v1"))
        before = len(os.listdir("/dev/fd"))
        pieces = replay_in_pieces(self.log_dir)
        next(pieces)
        pieces.close()
        self.assertEqual(len(os.listdir("/dev/fd")), before)
