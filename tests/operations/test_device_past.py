"""What became of one device, by one search of the journal."""

import random
import unittest
from pathlib import Path

from ota_server.journal.record import format_marker, format_record
from ota_server.model.device import Device
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.operations.device_past import past_of
from ota_server.operations.device_rollouts import rollouts_of
from ota_server.operations.device_story import DOWNLOADS, StoryPage, story
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, RolloutState
from ota_server.rollouts.files import write_progress
from ota_server.rollouts.history import note_end
from ota_server.system import clock
from tests.support import MAC
from tests.support.fleet import NEW, OLD, RolloutCase, mac_of

MINUTE_MS = 60_000
IO = Path("/proc/self/io")
EVENTS = ("check", "check", "check", "begin", "download", "device")
OTHERS = 20_000


class DevicePastTest(RolloutCase):
    """A device that was in a rollout which is over, and is in one that is on."""

    def setUp(self) -> None:
        super().setUp()
        self.logs = self.data_dir / "log"
        self.now_ms = clock.now_ms()
        self.at_ms = self.now_ms - 600 * MINUTE_MS

    def roll_out_twice(self) -> None:
        """Have one rollout end, and another one open its first wave."""
        start = format_time(self.now_ms - 500 * MINUTE_MS)
        plan = RolloutPlan("id-over", NEW, "", (100.0,), start, OLD)
        note_end(self.data_dir, plan, None, [], self.now_ms - 300 * MINUTE_MS)
        self.roll_out(id="id-on", time=format_time(self.now_ms - 250 * MINUTE_MS))
        opened = format_time(self.now_ms - 240 * MINUTE_MS)
        progress = RolloutProgress("id-on", RolloutState.RUNNING, 2, opened)
        write_progress(self.data_dir, "", progress)

    def add(self, event: str, mac: str = MAC, version: str = OLD, **details: str) -> None:
        """Put a record into the journal, some minutes after the one before."""
        self.at_ms += 5 * MINUTE_MS
        device = Device(self.at_ms, version, self.at_ms, None, NEW, "192.0.2.7", False, None)
        self.write(format_record(event, mac, device, details))

    def write(self, lines: bytes) -> None:
        with (self.logs / "devices.jsonl").open("ab") as journal:
            journal.write(lines)

    def pages(self, limit: int, **more: object) -> list[StoryPage]:
        """Return all parts of the time line, each with the same rollouts."""
        found, before = [], None
        expected = rollouts_of(self.data_dir, MAC, self.now_ms)
        while True:
            past = past_of(self.data_dir, MAC, self.now_ms, limit, before, **more)
            self.assertEqual((past.rollouts, past.problem), (expected, None))
            found.append(past.story)
            if (before := past.story.older) is None:
                return found

    def test_each_part_of_the_time_line_is_that_of_a_search_from_the_end_back(self):
        self.roll_out_twice()
        for seed in range(20):
            choose = random.Random(seed)
            self.at_ms = self.now_ms - 600 * MINUTE_MS
            for path in self.logs.glob("devices*"):
                path.unlink()
            for number in range(choose.randrange(1, 60)):
                version = choose.choice((OLD, OLD, NEW))
                self.add(choose.choice(EVENTS), choose.choice((MAC, MAC, mac_of(9))), version)
                if choose.random() < 0.05:
                    self.write(format_marker(self.at_ms, 1))
                    (self.logs / "devices.jsonl").rename(self.logs / f"devices.{number:06d}.jsonl")
            for limit in (1, 2, 3, 100):
                for events in (None, DOWNLOADS):
                    with self.subTest(seed=seed, limit=limit, events=events):
                        expected = [story(self.logs, MAC, limit, None, events)]
                        while (before := expected[-1].older) is not None:
                            expected.append(story(self.logs, MAC, limit, before, events))
                        self.assertEqual(self.pages(limit, events=events), expected)

    def test_it_has_the_rollouts_that_the_device_was_in(self):
        self.roll_out_twice()
        self.at_ms = self.now_ms - 450 * MINUTE_MS
        self.add("check", version=NEW, previous_version=OLD)
        self.at_ms = self.now_ms - 100 * MINUTE_MS
        self.add("check", version=NEW)
        past = past_of(self.data_dir, MAC, self.now_ms, 10)
        self.assertEqual([each.id for each in past.rollouts], ["id-on", "id-over"])
        self.assertEqual({each.counts_as for each in past.rollouts}, {"updated"})
        self.assertEqual(len(past.story.entries), 2)

    def test_a_file_that_cannot_be_used_hides_no_history(self):
        self.add("check")
        (self.data_dir / "version" / "rollout.json").write_text("{")
        past = past_of(self.data_dir, MAC, self.now_ms, 10)
        self.assertIn("rollout.json", str(past.problem))
        self.assertEqual(len(past.story.entries), 1)

    def test_what_is_no_end_of_a_part_is_refused(self):
        for prepare in (lambda: None, self.roll_out_twice):
            prepare()
            with self.assertRaisesRegex(Refused, "is not where a page"):
                past_of(self.data_dir, MAC, self.now_ms, 1, "x")

    @unittest.skipUnless(IO.exists(), "only Linux says how much was read")
    def test_the_journal_is_read_once(self):
        self.roll_out_twice()
        self.add("check")
        other = format_record("check", mac_of(9), Device(1, OLD, 1, None, OLD, "", False, None))
        self.write(other * OTHERS)
        size = (self.logs / "devices.jsonl").stat().st_size
        before = _bytes_read()
        self.assertEqual(len(past_of(self.data_dir, MAC, self.now_ms, 10).rollouts), 1)
        self.assertLess(_bytes_read() - before, 1.5 * size)


def _bytes_read() -> int:
    """Return how many bytes this process has read so far."""
    fields = dict(line.split(": ") for line in IO.read_text().splitlines())
    return int(fields["rchar"])
