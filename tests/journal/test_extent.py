"""How much journal there is, and how long it will keep at the rate of the last day."""

from ota_server.journal.extent import JournalExtent, journal_extent
from ota_server.journal.record import format_record
from ota_server.model.device import Device
from tests.support import MAC, DataDirCase

NOW_MS = 1_800_000_000_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


class ExtentTest(DataDirCase):
    def fill(self, name: str, first_hours: int, last_hours: int, each: int = 10) -> int:
        """Write records from so many hours ago to so many; return the bytes of one hour."""
        lines = []
        for hours in range(first_hours, last_hours, -1):
            ms = NOW_MS - hours * HOUR_MS
            device = Device(ms, "v1.0", ms, None, None, "192.0.2.7", False, None)
            lines.append(format_record("check", MAC, device) * each)
        (self.data_dir / "log" / name).write_bytes(b"".join(lines))
        return len(lines[0])

    def test_it_has_the_bytes_of_all_files_and_those_of_the_last_day(self):
        hour = self.fill("devices.000001.jsonl", 100, 48)
        self.fill("devices.000002.jsonl", 48, 12)
        self.fill("devices.jsonl", 12, 0)
        extent = journal_extent(self.data_dir / "log", NOW_MS)
        self.assertEqual((extent.files, extent.oldest_ms), (3, NOW_MS - 100 * HOUR_MS))
        self.assertEqual(extent.size, 100 * hour)
        self.assertAlmostEqual(extent.day_bytes, 24 * hour, delta=1.5 * hour)
        days = extent.days_kept(240 * hour, NOW_MS)
        assert days is not None
        self.assertAlmostEqual(days, 10, delta=0.6)

    def test_a_journal_that_began_an_hour_ago_is_taken_as_it_goes_on(self):
        hour = self.fill("devices.jsonl", 1, 0)
        days = journal_extent(self.data_dir / "log", NOW_MS).days_kept(48 * hour, NOW_MS)
        self.assertEqual(days, 2)

    def test_what_a_clock_that_was_ahead_wrote_counts_as_written_now(self):
        self.fill("devices.jsonl", -100, -101)
        extent = journal_extent(self.data_dir / "log", NOW_MS)
        self.assertEqual(extent.oldest_ms, NOW_MS)
        self.assertIsNone(extent.days_kept(10**9, NOW_MS))

    def test_of_minutes_nothing_is_said(self):
        extent = JournalExtent(1000, 1, NOW_MS - 60_000, 1000)
        self.assertIsNone(extent.days_kept(10**9, NOW_MS))

    def test_there_may_be_no_journal_or_rubbish_in_it(self):
        self.assertEqual(journal_extent(self.data_dir / "log", NOW_MS), JournalExtent())
        self.assertEqual(journal_extent(self.data_dir / "nowhere", NOW_MS), JournalExtent())
        (self.data_dir / "log" / "devices.jsonl").write_bytes(b"\x00" * 100_000)
        extent = journal_extent(self.data_dir / "log", NOW_MS)
        self.assertEqual((extent.size, extent.oldest_ms), (100_000, None))
