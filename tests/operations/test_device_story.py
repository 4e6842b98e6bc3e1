"""The time line of one device: folded as a whole, in pages, the newest first."""

import random
from typing import Any

from ota_server.journal.record import format_marker, format_record
from ota_server.journal.replay import history
from ota_server.model.device import Device
from ota_server.model.identity import device_key
from ota_server.model.refusal import Refused
from ota_server.operations.device_story import DOWNLOADS, StoryEntry, folded, story
from tests.support import MAC, DataDirCase
from tests.support.story import START_MS

OTHER = "02:00:00:00:00:09"


class StoryCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.logs = self.data_dir / "log"
        self.now_ms = START_MS

    def add(self, event: str = "check", key: str = MAC, **details: Any) -> None:
        """Put a record into the journal, a minute after the one before."""
        self.now_ms += 60_000
        version = details.pop("version", "v1.0.0")
        address = details.pop("address", "192.0.2.7")
        device = Device(self.now_ms, version, self.now_ms, None, version, address, False, None)
        self.write(format_record(event, key, device, details))

    def write(self, line: bytes) -> None:
        with (self.logs / "devices.jsonl").open("ab") as journal:
            journal.write(line)

    def rotate(self, number: int) -> None:
        (self.logs / "devices.jsonl").rename(self.logs / f"devices.{number:06d}.jsonl")

    def pages(self, limit: int, key: str = MAC) -> list[StoryEntry]:
        """Return all entries, read page by page."""
        found, before = [], None
        while True:
            page = story(self.logs, key, limit, before)
            self.assertLessEqual(len(page.entries), limit)
            found += page.entries
            if (before := page.older) is None:
                return found
            self.assertEqual(len(page.entries), limit)


class PagesTest(StoryCase):
    def test_equal_checks_are_one_entry_and_the_newest_is_first(self):
        for _ in range(1430):
            self.add()
        self.add(version="v2.0.0", previous_version="v1.0.0")
        newest, checks = story(self.logs, MAC, 10).entries
        self.assertEqual((newest.event, newest.what), ("check", "was v1.0.0"))
        self.assertEqual((checks.checks, checks.what), (1430, ""))
        self.assertLess(checks.first["time"], checks.last["time"])

    def test_pages_of_any_size_are_the_whole_time_line_across_files(self):
        events = ("check", "check", "check", "begin", "download", "device")
        for seed in range(30):
            with self.subTest(seed):
                for path in self.logs.glob("devices*"):
                    path.unlink()
                choose = random.Random(seed)
                for number in range(choose.randrange(1, 60)):
                    self.add(
                        choose.choice(events),
                        choose.choice((MAC, MAC, OTHER)),
                        version=choose.choice(("v1.0.0", "v1.0.0", "v2.0.0")),
                    )
                    if choose.random() < 0.05:
                        self.write(b'"mac":"' + MAC.encode() + b'" torn\n')
                    if choose.random() < 0.05:
                        self.write(format_marker(self.now_ms, 1))
                        self.rotate(number + 1)
                expected = list(folded(history(self.logs, MAC)))[::-1]
                for limit in (1, 2, 3, 100):
                    self.assertEqual(self.pages(limit), expected)

    def test_a_page_goes_on_where_the_one_before_ended_after_a_rotation(self):
        for number in range(5):
            self.add(address=f"192.0.2.{number}")
        page = story(self.logs, MAC, 2)
        self.rotate(1)
        self.add(address="192.0.2.9")
        older = story(self.logs, MAC, 2, page.older)
        self.assertEqual([each.first["address"][-1] for each in older.entries], ["2", "1"])

    def test_downloads_alone(self):
        for event in ("check", "begin", "check", "download"):
            self.add(event)
        found = story(self.logs, MAC, 9, events=DOWNLOADS).entries
        self.assertEqual([each.event for each in found], ["download", "begin"])

    def test_a_device_of_a_product_and_one_that_is_no_mac(self):
        for key in (device_key("plug", MAC), device_key("", 'gw "1"')):
            self.add(key=key)
            self.add()
            self.assertEqual(len(self.pages(5, key)), 1)

    def test_what_is_no_end_of_a_page_is_refused(self):
        self.add()
        for before in ("", "1", "1-", "-1-2", "1-x", "٣-1", "9" * 30 + "-1"):
            with self.subTest(before), self.assertRaisesRegex(Refused, "is not where a page"):
                story(self.logs, MAC, 1, before)
        for before in ("1-999999999", "7-1", "1-5"):
            with self.subTest(before):
                story(self.logs, MAC, 1, before)

    def test_who_is_not_on_record_has_no_entries(self):
        self.assertEqual(story(self.logs, MAC, 1).entries, ())
        self.add(key=OTHER)
        self.assertEqual(story(self.logs, MAC, 1), ((), None))
