"""Feedback: what became of a device, from what the journal holds."""

import random
import unittest

from ota_server.evaluation.checkpoint import BadCheckpoint
from ota_server.evaluation.feedback import Feedback
from ota_server.model.timestamp import format_time
from tests.support.story import DAY_MINUTES, MINUTE_MS, OLD, PLAN, RELEASE, SIZE, START_MS, Story

# Two of the poll intervals that the story gives a device, four hours each, are its grace.
GRACE_MINUTES = 8 * 60 + 30


class StateTest(unittest.TestCase):
    def test_a_device_that_is_told_the_release_is_offered_it(self):
        story = Story()
        story.check(1)
        self.assertEqual(story.state(), "offered")

    def test_a_device_that_is_told_its_own_version_is_not(self):
        story = Story()
        story.check(1, told=OLD)
        self.assertEqual((story.state(), story.tally().active), ("", 1))

    def test_a_transfer_that_has_not_ended_is_downloading(self):
        story = Story()
        story.check(1)
        story.begin(1)
        self.assertEqual(story.state(), "downloading")

    def test_a_head_begins_no_download(self):
        story = Story()
        story.begin(1, method="HEAD")
        self.assertEqual(story.state(), "offered")

    def test_a_download_is_whole_when_every_byte_is_acknowledged(self):
        story = Story()
        story.download(1)
        self.assertEqual(story.state(), "undecided")

    def test_an_image_of_50_kb_cut_in_its_last_16_kb_is_cut_and_no_failure(self):
        for sent in (0, SIZE - 16 * 1024, SIZE - 1):
            with self.subTest(sent=sent):
                story = Story()
                for _ in range(5):
                    story.begin(1)
                    story.end(1, sent, complete=False)
                    story.wait(GRACE_MINUTES)
                    story.check(1)
                self.assertEqual(story.state(), "cut")

    def test_a_device_that_resets_after_the_last_byte_did_not_take_it(self):
        story = Story()
        story.begin(1)
        story.end(1, complete=False)
        self.assertEqual(story.state(), "cut")

    def test_many_ranged_requests_are_one_download(self):
        starts = list(range(0, SIZE, 1024))
        random.Random(1).shuffle(starts)
        story = Story()
        for start in starts:
            self.assertIn(story.state(), ("", "cut"))
            story.begin(1, start=start)
            story.end(1, 1024, start=start)
        self.assertEqual(story.state(), "undecided")

    def test_a_release_of_several_files_is_whole_when_all_have_come(self):
        story, half = Story(), SIZE // 2
        for start, stop in ((half, SIZE), (0, half)):
            self.assertIn(story.state(), ("", "cut"))
            story.begin(1, start=start, file="main.py")
            story.end(1, 7, complete=False, start=start, range_stop=stop)
            self.assertEqual(story.state(), "cut")
            story.begin(1, start=start, file="main.py")
            story.end(1, 10, start=start, range_stop=stop)
        self.assertEqual(story.state(), "undecided")

    def test_an_image_that_came_compressed_is_whole(self):
        story = Story()
        story.begin(1, file="gzip")
        story.end(1, SIZE // 3, range_stop=SIZE)
        self.assertEqual(story.state(), "undecided")

    def test_the_image_of_a_file_system_says_nothing_of_an_update(self):
        story = Story()
        story.tell("part", 1, file="filesystem", status=200)
        story.tell("part", 1, file="filesystem", release_version="v2", complete=True)
        self.assertEqual(story.state(), "")

    def test_parallel_ranges_are_one_download_and_none_begins_anew(self):
        story = Story()
        half = SIZE // 2
        story.begin(1, start=half)
        story.begin(1, start=0)
        story.end(1, SIZE - half, start=half)
        self.assertEqual(story.state(), "downloading")
        story.end(1, half, start=0)
        self.assertEqual(story.state(), "undecided")

    def test_a_resumed_download_is_whole_once_the_rest_has_come(self):
        story = Story()
        story.begin(1)
        story.end(1, 1000, complete=False)
        story.begin(1, start=1000)
        story.end(1, SIZE - 1000, start=1000)
        self.assertEqual(story.state(), "undecided")

    def test_the_same_bytes_twice_are_not_the_whole(self):
        story = Story()
        for _ in range(2):
            story.begin(1)
            story.end(1, SIZE // 2, complete=False)
        self.assertEqual(story.state(), "cut")

    def test_bytes_of_another_image_do_not_count(self):
        story = Story()
        story.begin(1)
        story.end(1, SIZE // 2, complete=False)
        story.begin(1, start=SIZE // 2, download_sha256="cd" * 32)
        story.end(1, SIZE // 2, start=SIZE // 2, release_sha256="cd" * 32)
        self.assertEqual(story.state(), "cut")

    def test_a_device_that_reports_the_release_has_updated(self):
        for reported in (RELEASE, "2.0.0"):
            with self.subTest(reported):
                story = Story()
                story.download(1)
                story.check(1, reported)
                self.assertEqual(story.state(), "updated")

    def test_a_device_that_says_itself_that_its_update_failed_has_failed(self):
        action = {"action_id": 101, "action_version": RELEASE, "action_sha256": "ab" * 32}
        failed = {**action, "action_state": "failed"}
        for told in (
            lambda story: story.check(1, **action),
            lambda story: story.download(1, **action),
        ):
            story = Story()
            told(story)
            story.tell("feedback", 1, **{**failed, "action_version": "v3.0.0"})
            self.assertNotEqual(story.state(), "failed")
            story.tell("feedback", 1, **failed)
            self.assertEqual(story.state(), "failed")
            story.tell("feedback", 1, RELEASE, **action, action_state="succeeded")
            self.assertEqual(story.state(), "updated")

    def test_a_device_that_says_itself_how_it_ends_may_begin_again(self):
        story, action = Story(), {"action_id": 101, "action_state": "begun"}
        for _ in range(3):
            story.download(1, **action)
            self.assertEqual(story.state(), "undecided")

    def test_any_request_reports_the_version(self):
        for event in ("check", "begin", "report"):
            with self.subTest(event):
                story = Story()
                story.download(1)
                story.tell(event, 1, RELEASE)
                self.assertEqual(story.state(), "updated")

    def test_the_end_of_a_transfer_reports_nothing(self):
        story = Story()
        story.download(1)
        story.begin(1, start=SIZE - 10)
        story.wait(GRACE_MINUTES, 1000)
        story.end(1, 10, start=SIZE - 10)
        self.assertEqual(story.state(), "undecided")


class FailedTest(unittest.TestCase):
    def test_a_device_has_failed_that_reports_its_old_version_after_the_grace(self):
        for minutes, state in ((60, "undecided"), (GRACE_MINUTES, "failed")):
            with self.subTest(minutes=minutes):
                story = Story()
                story.download(1)
                story.wait(minutes)
                story.check(1)
                self.assertEqual(story.state(), state)

    def test_the_grace_is_that_of_the_plan_where_a_device_polls_often(self):
        for minutes, state in ((14, "undecided"), (16, "failed")):
            with self.subTest(minutes=minutes):
                story = Story()
                story.wait(20, 1)
                story.download(1)
                story.wait(minutes)
                story.check(1)
                self.assertEqual(story.state(), state)

    def test_the_grace_begins_with_the_last_byte(self):
        story = Story()
        story.wait(20, 1)
        story.check(1)
        story.begin(1)
        story.wait(60, 1)
        story.end(1)
        story.wait(10, 1)
        self.assertEqual(story.state(), "undecided")

    def test_a_device_has_failed_that_begins_anew_after_a_whole_download(self):
        story = Story()
        story.download(1)
        story.begin(1)
        self.assertEqual(story.state(), "failed")

    def test_a_device_that_reads_byte_0_again_has_not_begun_anew(self):
        story = Story()
        story.download(1)
        story.begin(1, start=0)
        self.assertEqual(story.state(), "undecided")

    def test_a_range_from_byte_0_ten_minutes_later_begins_anew(self):
        story = Story()
        story.download(1)
        story.wait(11)
        story.begin(1, start=0)
        self.assertEqual(story.state(), "failed")

    def test_reporting_the_release_later_undoes_both(self):
        for how in ("check", "begin"):
            with self.subTest(how):
                story = Story()
                story.download(1)
                story.wait(GRACE_MINUTES)
                getattr(story, how)(1)
                self.assertEqual(story.state(), "failed")
                story.check(1, RELEASE)
                self.assertEqual(story.state(), "updated")

    def test_a_device_that_goes_back_has_failed_at_any_age(self):
        for minutes in (1, 60, 30 * DAY_MINUTES):
            for version in (OLD, "v1.1.0", "v0.0.1-factory"):
                with self.subTest(minutes=minutes, version=version):
                    story = Story()
                    story.held = range(1000, 1001)
                    story.update(1)
                    if minutes < DAY_MINUTES:
                        story.wait(minutes)
                    story.now += minutes
                    story.check(1, version)
                    self.assertEqual(story.state(), "failed")

    def test_reporting_the_release_again_does_not_undo_going_back(self):
        story = Story()
        story.update(1)
        story.check(1)
        story.check(1, RELEASE)
        self.assertEqual(story.state(), "failed")

    def test_a_device_that_was_told_another_version_has_not_gone_back(self):
        story = Story()
        story.update(1)
        story.check(1, RELEASE, told="v1.1.0")
        story.check(1, "v1.1.0")
        self.assertEqual(story.state(), "offered")

    def test_a_hop_to_a_stone_is_no_failure(self):
        story = Story()
        story.check(1, told="v1.1.0")
        story.wait(1)
        story.check(1, "v1.1.0")
        self.assertEqual(story.state(), "offered")
        story.download(1, version="v1.1.0")
        story.check(1, RELEASE)
        self.assertEqual((story.state(), story.tally().parts), ("updated", {}))

    def test_failures_are_counted_by_the_version_before(self):
        story = Story()
        for number, version in ((1, OLD), (2, OLD), (3, "1.1.0")):
            story.check(number, version)
            story.begin(number, version)
            story.end(number, firmware_version=version)
            story.begin(number, version)
        story.check(4)
        versions = story.tally().parts
        self.assertEqual(
            {name: each[:2] for name, each in versions.items()}, {"v1.0.0": (3, 2), "1.1.0": (1, 1)}
        )


class MislabelledTest(unittest.TestCase):
    def test_a_third_version_that_is_no_release_is_a_mislabelled_one(self):
        story = Story()
        story.download(1)
        story.check(1, "v2.0.0-rc1")
        self.assertEqual(story.state(), "mislabelled")

    def test_it_stays_one_when_it_is_offered_the_release_again_and_fetches_it(self):
        for unknown in (False, True):
            with self.subTest(completion_unknown=unknown):
                story = Story(completion_unknown=unknown)
                story.download(1)
                for _ in range(5):
                    story.wait(GRACE_MINUTES)
                    story.check(1, "v2.0.0-dirty")
                    story.begin(1, "v2.0.0-dirty")
                    story.end(1, firmware_version="v2.0.0-dirty")
                tally = story.tally()
                self.assertEqual((story.state(), tally.label), ("mislabelled", "v2.0.0-dirty"))
                # It speaks against the release as much as one that fetches it in vain.
                self.assertEqual((tally.overall.failed, tally.overall.mislabelled), (1, 0))

    def test_one_that_reports_its_old_version_again_has_failed(self):
        story = Story()
        story.download(1)
        story.check(1, "v2.0.0-rc1")
        story.wait(GRACE_MINUTES)
        story.check(1, OLD)
        self.assertEqual(story.state(), "failed")

    def test_reports_as_cures_it(self):
        story = Story(aliases={"v2.0.0-rc1": RELEASE})
        story.download(1)
        story.check(1, "v2.0.0-rc1")
        self.assertEqual(story.state(), "updated")

    def test_reports_as_cures_it_afterwards_too(self):
        story = Story()
        story.download(1)
        story.check(1, "v2.0.0-rc1")
        story.feedback.change(PLAN, story.known._replace(aliases={"v2.0.0-rc1": RELEASE}))
        story.check(1, "v2.0.0-rc1")
        self.assertEqual(story.state(), "updated")

    def test_a_build_that_somebody_flashed_without_a_download_is_none(self):
        story = Story()
        story.check(1)
        story.check(1, "v2.0.0-rc1")
        self.assertEqual(story.state(), "offered")


class FirstSeenTest(unittest.TestCase):
    """A device of which no older line is kept than one that repeats what was known of it."""

    def counts(self, hours_before: int) -> bool:
        story = Story()
        first_ms = START_MS - hours_before * 60 * MINUTE_MS
        story.now = -1.0
        story.tell("device", 20, first_seen_time=format_time(first_ms))
        story.now = 1.0
        story.check(20)
        tally = story.tally()
        self.assertEqual(tally.too_new + tally.offered, 1)
        return tally.offered == 1

    def test_it_counts_where_it_was_first_seen_a_day_before(self):
        self.assertTrue(self.counts(24))
        self.assertFalse(self.counts(23))


class ForgottenTest(unittest.TestCase):
    def test_a_device_that_is_forgotten_counts_no_more_until_it_asks_again(self):
        story = Story()
        story.download(1)
        story.update(2)
        before = story.tally()
        for number in (1, 3):
            story.tell("forget", number)
        story.feedback.change(PLAN._replace(waves=(50.0, 100.0)), story.known)
        story.feedback.change(PLAN, story.known)
        tally = story.tally()
        self.assertEqual((tally.undecided, tally.updated), (0, 1))
        self.assertEqual((tally.to_come, tally.active), (before.to_come - 2, before.active - 1))
        story.check(1, RELEASE)
        self.assertEqual((story.tally().updated, story.tally().too_new), (1, 1))


class CompletionUnknownTest(unittest.TestCase):
    def test_three_offers_past_the_grace_are_a_failure(self):
        story = Story(completion_unknown=True)
        story.check(1)
        for offers in range(1, 4):
            story.wait(GRACE_MINUTES)
            self.assertEqual(story.state(), "undecided", offers)
            story.check(1)
        self.assertEqual(story.state(), "failed")
        story.check(1, RELEASE)
        self.assertEqual(story.state(), "updated")

    def test_what_the_proxy_has_fetched_says_nothing(self):
        story = Story(completion_unknown=True)
        story.download(1)
        story.begin(1)
        self.assertEqual(story.state(), "undecided")

    def test_downloads_that_were_cut_are_no_failure_however_many(self):
        story = Story(completion_unknown=True)
        for _ in range(12):
            story.check(1)
            story.begin(1)
            story.end(1, complete=False)
            story.wait(GRACE_MINUTES)
        self.assertEqual(story.state(), "undecided")

    def test_where_the_system_does_not_say_what_arrived_no_download_counts_as_cut(self):
        story = Story(completion_unknown=True)
        for _ in range(4):
            story.check(1)
            story.begin(1)
            story.end(1, sent=0, complete=False)
            story.wait(GRACE_MINUTES)
        self.assertEqual(story.state(), "failed")

    def test_between_cut_downloads_those_that_came_to_nothing_count(self):
        story = Story(completion_unknown=True)
        story.check(1)
        for number in range(4):
            story.wait(GRACE_MINUTES)
            story.check(1)
            story.begin(1)
            story.end(1, complete=number % 2 == 1)
            self.assertEqual(story.state(), "undecided", number)
        story.wait(GRACE_MINUTES)
        story.check(1)
        self.assertEqual(story.state(), "failed")

    def test_with_the_whole_image_it_need_not_be_told_again_to_have_failed(self):
        # The loop breaker tells it to stay on what it runs: it fetches nothing more.
        story = Story(completion_unknown=True)
        story.download(1)
        for number in range(3):
            story.wait(GRACE_MINUTES)
            self.assertEqual(story.state(), "undecided", number)
            story.check(1, told=OLD)
        self.assertEqual(story.state(), "failed")

    def test_without_the_image_a_device_that_is_told_to_stay_has_not_failed(self):
        story = Story(completion_unknown=True)
        story.check(1)
        for _ in range(5):
            story.wait(GRACE_MINUTES)
            story.check(1, told=OLD)
        self.assertEqual(story.state(), "undecided")

    def test_where_completion_is_known_offers_alone_are_no_failure(self):
        story = Story()
        for _ in range(5):
            story.check(1)
            story.wait(GRACE_MINUTES)
        self.assertEqual(story.state(), "offered")


class ElsewhereTest(unittest.TestCase):
    def test_a_device_that_goes_back_where_it_has_moved_has_failed(self):
        story = Story()
        story.download(1, address="192.0.2.1")
        story.check(1, RELEASE, address="192.0.2.2")
        story.wait(GRACE_MINUTES)
        story.check(1, OLD, address="192.0.2.2")
        self.assertEqual(story.state(), "failed")

    def test_what_its_home_says_later_holds(self):
        # What it fetched there it has all the same.
        for now, state in ((OLD, "undecided"), (RELEASE, "updated")):
            with self.subTest(now):
                story = Story()
                story.check(1)
                story.download(1, address="192.0.2.1")
                story.check(1, RELEASE, address="192.0.2.1")
                story.check(1, OLD, address="192.0.2.1")
                story.check(1, now)
                self.assertEqual(story.state(), state)


class OutOfTheJournalTest(unittest.TestCase):
    def test_lines_that_repeat_what_is_known_are_no_report(self):
        story = Story()
        story.download(1)
        story.wait(GRACE_MINUTES)
        story.tell("device", 1)
        self.assertEqual(story.state(), "undecided")

    def test_a_line_after_a_full_disk_brings_a_new_version(self):
        story = Story()
        story.download(1)
        story.tell("device", 1, RELEASE)
        self.assertEqual(story.state(), "updated")

    def test_what_happened_before_the_rollout_is_not_its_doing(self):
        story = Story()
        story.now = -60.0
        story.update(1)
        story.check(1)
        story.now = 1.0
        story.check(1)
        self.assertEqual(story.state(), "offered")

    def test_events_and_products_that_are_not_known_are_ignored(self):
        story = Story()
        story.tell("telemetry", 1)
        story.tell("check", 1, product="other")
        self.assertEqual(story.tally().active, 0)

    def test_devices_of_no_wave_that_is_open_are_not_counted(self):
        story = Story()
        story.wait(10)
        self.assertEqual(story.tally().active, 0)

    def test_devices_count_from_the_opening_of_a_wave_on(self):
        story = Story()
        story.check(1)
        story.wait(30)
        story.feedback.open_wave(0, story.now_ms)
        story.now += 1
        story.check(2)
        self.assertEqual(story.tally().active, 1)


def told_records(seed: int) -> list[dict[str, object]]:
    """Return the records of a story in which all sorts of things happen."""
    chance = random.Random(seed)
    story = Story()
    for _ in range(400):
        number = chance.choice(story.devices)
        act = chance.choice(("check", "begin", "end", "download", "report", "wait", "third"))
        if act == "wait":
            story.wait(chance.choice((1, 20, 100)))
        elif act == "report":
            story.check(number, chance.choice((OLD, RELEASE)))
        elif act == "third":
            story.check(number, "odd", address=f"192.0.2.{chance.randrange(4)}")
        elif act == "end":
            story.end(number, chance.randrange(SIZE), complete=False)
        else:
            getattr(story, act)(number)
    return story.records


class CheckpointTest(unittest.TestCase):
    def test_a_checkpoint_in_the_middle_changes_no_count(self):
        for seed in range(3):
            records = told_records(seed)
            whole = Feedback(PLAN, Story().known, 0, START_MS)
            parts = Feedback(PLAN, Story().known, 0, START_MS)
            for at, record in enumerate(records):
                whole.observe(record)
                if at % 211 == 0:
                    content = parts.dump()
                    parts = Feedback(PLAN, Story().known, 0, START_MS)
                    parts.load(content)
                parts.observe(record)
            with self.subTest(seed=seed):
                end_ms = START_MS + 60 * DAY_MINUTES * MINUTE_MS
                self.assertEqual(parts.tally(end_ms), whole.tally(end_ms))
                self.assertEqual(parts.dump(), whole.dump())

    def test_a_checkpoint_that_is_torn_is_refused(self):
        story = Story()
        content = story.feedback.dump()
        for bad in (
            b"",
            content[:-1],
            content + b"x",
            content[:40] + bytes([content[40] ^ 1]) + content[41:],
        ):
            with self.subTest(len(bad)), self.assertRaises(BadCheckpoint):
                story.feedback.load(bad)

    def test_a_checkpoint_of_another_rollout_is_refused(self):
        other = Feedback(PLAN._replace(id="other"), Story().known, 0, START_MS)
        with self.assertRaises(BadCheckpoint):
            other.load(Story().feedback.dump())


ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    "",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [1],
    b"x",
    "9999-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    "::1",
    "256.1.1.1",
    "²",
)


class HostileTest(unittest.TestCase):
    def test_odd_records_never_raise(self):
        chance = random.Random(7)
        records = told_records(1)
        story = Story()
        for record in chance.sample(records, 1500):
            odd = dict(record)
            for name in chance.sample(sorted(odd), chance.randint(1, 3)):
                if chance.random() < 0.3:
                    del odd[name]
                else:
                    odd[name] = chance.choice(ODD)
            story.feedback.observe(odd)
        for odd_value in ODD:
            story.feedback.observe({"event": odd_value, "mac": odd_value, "time": odd_value})
        self.assertGreaterEqual(story.tally().active, 0)
        story.feedback.dump()

    def test_a_thousand_pieces_of_an_image_take_no_more_room_than_some(self):
        story = Story()
        story.begin(1)
        for start in range(0, SIZE, 4):
            story.end(1, 1, start=start)
        self.assertLess(len(story.feedback.dump()), 20_000)
