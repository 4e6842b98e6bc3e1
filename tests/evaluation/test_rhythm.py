"""How often devices poll, each for itself."""

import tempfile
import unittest
import unittest.mock
from array import array
from pathlib import Path

from ota_server.evaluation.rhythm import Rhythms, SampledDevice
from ota_server.journal.record import format_marker, format_record
from ota_server.model.device import Device
from ota_server.rollouts import preview

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_800_000_000_000
MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


def line(time_ms: int, mac: str = MAC, event: str = "check", image_only: bool = False) -> bytes:
    device = Device(time_ms, "v1", time_ms, None, "v1", "192.0.2.7", image_only, None, None)
    return format_record(event, mac, device)


class RhythmTest(unittest.TestCase):
    def interval(self, *ago_ms: int, seen_ms: int = 0, first_ms: int | None = None) -> float | None:
        """Return the interval of a device that polled so long ago, in a journal of ten hours."""
        rhythms = Rhythms([SampledDevice(5.0, MAC, NOW_MS - seen_ms, first_ms)])
        lines = [line(NOW_MS - 10 * HOUR_MS, OTHER), *(line(NOW_MS - ago) for ago in ago_ms)]
        rhythms.take(b"".join(lines))
        return rhythms.intervals_ms(NOW_MS).get(5.0)

    def test_of_two_polls_or_more_it_is_the_median_of_the_gaps(self):
        self.assertEqual(self.interval(3 * HOUR_MS, HOUR_MS), 2 * HOUR_MS)
        self.assertEqual(self.interval(9 * HOUR_MS, 3 * HOUR_MS, 2 * HOUR_MS, HOUR_MS), HOUR_MS)

    def test_one_poll_in_the_time_covered_is_one_in_that_time(self):
        self.assertEqual(self.interval(2 * HOUR_MS), 10 * HOUR_MS)

    def test_the_time_covered_of_a_device_begins_when_it_was_first_seen(self):
        self.assertEqual(self.interval(HOUR_MS, first_ms=NOW_MS - 3 * HOUR_MS), 3 * HOUR_MS)
        self.assertIsNone(self.interval(MINUTE_MS, first_ms=NOW_MS + HOUR_MS // 2))

    def test_without_a_poll_it_is_twice_the_time_since_the_device_was_heard_from(self):
        self.assertEqual(self.interval(seen_ms=12 * HOUR_MS), DAY_MS)

    def test_what_is_no_poll_is_none(self):
        rhythms = Rhythms([SampledDevice(5.0, MAC, NOW_MS, None)])
        rhythms.take(line(NOW_MS - 5 * HOUR_MS) + line(NOW_MS - 3 * HOUR_MS))
        for event, image_only, polls in (
            ("begin", False, False),
            ("download", False, False),
            ("download", True, False),
            ("device", True, False),
            ("begin", True, True),
        ):
            with self.subTest(event=event, image_only=image_only):
                rhythms.take(line(NOW_MS - HOUR_MS, event=event, image_only=image_only))
                expected = 2 * HOUR_MS
                (gaps,) = rhythms._gaps_ms.values()
                self.assertEqual(len(gaps), 1 + polls)
                self.assertEqual(rhythms.intervals_ms(NOW_MS), {5.0: expected})

    def test_what_is_no_record_is_passed_over(self):
        rhythms = Rhythms([SampledDevice(5.0, MAC, NOW_MS, None)])
        good = line(NOW_MS - HOUR_MS)
        bad = b"\0\0\0\n{}\n" + good.replace(b"T", b"X", 1) + good[:50] + b"\n"
        rhythms.take(line(NOW_MS - 3 * HOUR_MS) + bad + good)
        self.assertEqual(rhythms.intervals_ms(NOW_MS), {5.0: 2 * HOUR_MS})


class SurveyTest(unittest.TestCase):
    def setUp(self):
        self.logs = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def intervals(self, snapshot_end: int = 0) -> dict[float, float]:
        sample = (SampledDevice(5.0, MAC, NOW_MS - HOUR_MS, None),)
        found = preview.ReachedDevices(array("d", [5.0]), bytearray(1), 0, sample, snapshot_end)
        return preview.intervals_ms(self.logs, found, NOW_MS)

    def write(self, name: str, *ago_ms: int, before: bytes = b"") -> None:
        lines = b"".join(line(NOW_MS - ago) for ago in ago_ms)
        (self.logs / name).write_bytes(before + lines)

    def test_polls_in_older_files_are_found_too(self):
        self.write("devices.000001.jsonl", 2 * DAY_MS + HOUR_MS)
        self.write("devices.000002.jsonl", DAY_MS + HOUR_MS)
        self.write("devices.jsonl", HOUR_MS)
        self.assertEqual(self.intervals(), {5.0: DAY_MS})

    def test_no_more_is_read_back_than_so_many_bytes(self):
        self.write("devices.000001.jsonl", *range(9 * DAY_MS, 2 * DAY_MS, -DAY_MS))
        self.write("devices.jsonl", 8 * HOUR_MS, 5 * HOUR_MS, 2 * HOUR_MS)
        most = len(line(NOW_MS)) * 5 // 2
        with unittest.mock.patch.object(preview, "_MOST_BYTES", most):
            self.assertEqual(self.intervals(), {5.0: 3 * HOUR_MS})

    def test_what_repeats_the_table_takes_nothing_from_what_may_be_read(self):
        self.write("devices.000001.jsonl", 4 * HOUR_MS)
        table = line(NOW_MS - HOUR_MS, event="device") * 50 + format_marker(NOW_MS, 50)
        self.write("devices.jsonl", HOUR_MS, before=table)
        with unittest.mock.patch.object(preview, "_MOST_BYTES", len(line(NOW_MS)) * 3):
            self.assertEqual(self.intervals(len(table)), {5.0: 3 * HOUR_MS})

    def test_a_sample_holds_the_devices_that_stand_first(self):
        sample = preview._Sample()
        device = Device(0, "v1", 0, None, "v1", "192.0.2.7", False, None)
        with unittest.mock.patch.object(preview, "_SAMPLE", 3):
            for stand in (50.0, 3.0, 70.0, 1.0, 2.0, 99.0):
                sample.add(stand, MAC, device)
        self.assertEqual(sorted(each.stand for each in sample.devices()), [1.0, 2.0, 3.0])
