"""Rejected requests: who was answered 401, how often, and within bounds."""

import json
import logging
import tempfile
import unittest
from pathlib import Path

from ota_server.journal.rejected import MAX_ENTRIES, Rejected, read_rejected

NOW_MS = 1_795_435_200_123
MAC = "00:11:22:33:44:55"
ENTRY = {
    "address": "192.0.2.7",
    "reason": "_br_fwv_ empty",
    "mac": MAC,
    "first_time": "2026-11-23T12:00:00.123Z",
    "count": 2,
    "time": "2026-11-23T12:00:01.123Z",
}


class RejectedTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log_dir = Path(folder.name)
        self.path = self.log_dir / "rejected.jsonl"

    def test_rejections_are_counted_by_address_reason_and_mac(self):
        rejected = Rejected(self.log_dir)
        counts = [
            rejected.note("192.0.2.7", "_br_fwv_ empty", MAC, NOW_MS),
            rejected.note("192.0.2.7", "_br_fwv_ empty", MAC, NOW_MS + 1000),
            rejected.note("192.0.2.7", "_br_mac_ missing", None, NOW_MS),
            rejected.note("192.0.2.8", "_br_fwv_ empty", MAC, NOW_MS),
        ]
        self.assertEqual(counts, [1, 2, 1, 1])
        rejected.save(0.0)
        self.assertEqual(next(read_rejected(self.log_dir)), ENTRY)

    def test_counting_goes_on_after_a_restart(self):
        rejected = Rejected(self.log_dir)
        rejected.note("192.0.2.7", "_br_fwv_ empty", MAC, NOW_MS)
        rejected.save(0.0)
        self.assertEqual(Rejected(self.log_dir).note("192.0.2.7", "_br_fwv_ empty", MAC, NOW_MS), 2)

    def test_the_list_is_bounded_and_forgets_what_is_longest_ago(self):
        rejected = Rejected(self.log_dir)
        for number in range(MAX_ENTRIES):
            rejected.note(str(number), "x", None, NOW_MS)
        rejected.note("0", "x", None, NOW_MS)
        rejected.note("new", "x", None, NOW_MS)
        rejected.save(0.0)
        found = [entry["address"] for entry in read_rejected(self.log_dir)]
        self.assertEqual(len(found), MAX_ENTRIES)
        self.assertEqual((found[0], found[-2:]), ("2", ["0", "new"]))

    def test_a_file_that_is_too_long_is_cut_to_its_newest_entries(self):
        lines = [json.dumps({**ENTRY, "address": str(n)}) for n in range(MAX_ENTRIES + 5)]
        self.path.write_text("\n".join(lines) + "\n")
        self.assertEqual(next(read_rejected(self.log_dir))["address"], "5")

    def test_lines_that_are_no_entries_are_skipped(self):
        bad = [
            *(b"", b"x", b"[]", b"null", b"{}", b"\0" * 100, b"\xff\xfe", b"[" * 100_000),
            json.dumps({**ENTRY, "address": 7}).encode(),
            json.dumps({**ENTRY, "count": "2"}).encode(),
            json.dumps({**ENTRY, "mac": ["a"]}).encode(),
            json.dumps({**ENTRY, "mac": {"a": 1}}).encode(),
            json.dumps({"address": "a", "reason": "b"}).encode(),
        ]
        self.path.write_bytes(b"\n".join([*bad, json.dumps(ENTRY).encode(), b""]))
        self.assertEqual(list(read_rejected(self.log_dir)), [ENTRY])
        self.assertEqual(Rejected(self.log_dir).note("a", "b", None, NOW_MS), 1)

    def test_what_has_not_changed_is_not_written(self):
        rejected = Rejected(self.log_dir)
        rejected.save(0.0)
        self.assertFalse(self.path.exists())
        rejected.note("a", "b", None, NOW_MS)
        rejected.save(0.0)
        self.path.unlink()
        rejected.save(60.0)
        self.assertFalse(self.path.exists())

    def test_a_flood_of_rejections_is_no_flood_of_writes(self):
        rejected = Rejected(self.log_dir)
        for at_seconds, expected in ((0.0, 1), (0.2, 1), (0.9, 1), (1.0, 4), (1.5, 4)):
            rejected.note("a", "b", None, NOW_MS)
            rejected.save(at_seconds)
            (entry,) = read_rejected(self.log_dir)
            self.assertEqual(entry["count"], expected)

    def test_a_list_that_cannot_be_written_is_said_once_and_written_later(self):
        rejected = Rejected(self.log_dir)
        rejected.note("a", "b", None, NOW_MS)
        self.path.mkdir()
        with self.assertLogs("ota_server.journal.rejected", logging.WARNING) as logged:
            for seconds in range(3):
                rejected.save(float(seconds))
        self.assertEqual(len(logged.records), 1)
        self.path.rmdir()
        rejected.save(3.0)
        self.assertEqual(len(list(read_rejected(self.log_dir))), 1)
