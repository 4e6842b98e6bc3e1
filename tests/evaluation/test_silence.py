"""Silence: who is not heard from any more, whose fault that is, and the clock it is told by."""

import random
import unittest

from ota_server.evaluation.contested import poll_elsewhere
from ota_server.evaluation.int_index import IntIndex
from ota_server.evaluation.poll_history import PollHistory
from ota_server.evaluation.uptime import JUMP_MS, Uptime
from tests.support.story import DAY_MINUTES, MINUTE_MS, OLD, PLAN, RELEASE, START_MS, Story

# Three of the poll gaps that the story gives a device, some four hours each.
SILENCE_MINUTES = 13.5 * 60
SITE = "198.51.100.7"


class SilentTest(unittest.TestCase):
    def test_a_device_is_silent_after_three_of_its_poll_gaps(self):
        for minutes, state in ((11.5 * 60, "undecided"), (SILENCE_MINUTES, "silent")):
            with self.subTest(minutes=minutes):
                story = Story()
                story.download(1)
                story.wait(minutes)
                self.assertEqual(story.state(), state)

    def test_a_device_that_asks_for_nothing_but_the_image_polls_by_that(self):
        story = Story()
        for _ in range(10):
            story.wait(5)
            story.tell("download", 1, status=304, bytes_sent=0, complete=False, image_only=True)
        story.begin(1, image_only=True)
        story.end(1, image_only=True)
        story.wait(62)
        self.assertEqual(story.state(), "silent")

    def test_it_is_silent_after_the_soak_where_that_is_longer(self):
        for soak_hours, state in ((1, "silent"), (16, "undecided")):
            with self.subTest(soak_hours=soak_hours):
                story = Story(PLAN._replace(soak_seconds=soak_hours * 3600.0))
                story.download(1)
                story.wait(SILENCE_MINUTES)
                self.assertEqual(story.state(), state)

    def test_a_device_that_polls_often_is_silent_sooner(self):
        story = Story()
        story.wait(60, 1)
        story.download(1)
        story.wait(62)
        self.assertEqual(story.state(), "silent")

    def test_a_device_that_was_on_record_once_an_hour_is_silent_as_the_page_says(self):
        # `--record-interval 3600`; while a rollout is on, each check is on record.
        for checks, minutes, state in (
            (1, 175, "undecided"),
            (1, 211, "silent"),
            (8, 62, "undecided"),
            (9, 62, "silent"),
        ):
            with self.subTest(checks=checks, minutes=minutes):
                story = Story()
                for _ in range(9):
                    story.now += 60
                    story.check(1, told=None)
                story.wait(55)
                for _ in range(checks - 1):
                    story.wait(5)
                    story.check(1)
                story.wait(5)
                story.download(1)
                story.wait(minutes)
                self.assertEqual(story.state(), state)

    def test_a_device_that_is_heard_from_again_is_not_silent(self):
        story = Story()
        story.download(1)
        story.wait(SILENCE_MINUTES)
        story.check(1, RELEASE)
        self.assertEqual(story.state(), "updated")

    def test_a_device_that_falls_silent_on_the_release_within_the_soak_is_silent(self):
        story = Story()
        story.update(1)
        story.wait(SILENCE_MINUTES)
        self.assertEqual(story.state(), "silent")

    def test_a_device_that_dies_after_the_soak_is_silent_as_long_as_its_wave_is_open(self):
        for wave, state in ((0, "silent"), (1, "updated")):
            with self.subTest(wave=wave):
                story = Story(PLAN._replace(waves=(99.9, 100.0)))
                story.update(1)
                story.wait(61)
                story.check(1, RELEASE)
                if wave:
                    story.feedback.open_wave(wave, story.now_ms)
                    story.check(1, RELEASE)
                story.wait(SILENCE_MINUTES)
                self.assertEqual(story.state(), state)

    def test_a_device_that_has_not_downloaded_it_is_not_silent(self):
        story = Story()
        story.check(1)
        story.begin(1)
        story.end(1, 100, complete=False)
        story.wait(SILENCE_MINUTES)
        self.assertEqual(story.state(), "cut")

    def test_the_end_of_a_transfer_that_the_server_gave_up_is_no_word_from_the_device(self):
        story = Story()
        story.download(1)
        story.begin(1, start=100)
        story.wait(11.5 * 60)
        story.end(1, 0, complete=False, start=100)
        story.wait(2 * 60)
        self.assertEqual(story.state(), "silent")


class WhoseFaultTest(unittest.TestCase):
    def silent(self, story: Story) -> tuple[int, int]:
        """Return how many are silent, and how many of them count."""
        tally = story.tally()
        return tally.silent, tally.overall.silent

    def test_a_device_that_alone_falls_silent_counts(self):
        story = Story()
        story.download(1)
        story.wait(SILENCE_MINUTES)
        self.assertEqual(self.silent(story), (1, 1))

    def test_a_site_that_falls_silent_as_a_whole_is_nobody_s_fault(self):
        plan = PLAN._replace(count_new=True)
        story = Story(plan, devices=20, homes=dict.fromkeys(range(1, 11), SITE))
        for _ in range(4):
            for number in range(1010, 1020):
                story.tell("check", number, target_version=OLD, address=SITE)
            story.wait(240, *range(1, 11))
        for number in range(1, 11):
            story.download(number)
        story.wait(30 * 60)
        self.assertEqual(self.silent(story), (10, 0))

    def test_devices_whose_neighbours_are_heard_from_count_each(self):
        homes = dict.fromkeys(range(1, 11), SITE)
        story = Story(devices=20, held_at=SITE, homes=homes)
        for number in range(1, 11):
            story.download(number)
        story.wait(SILENCE_MINUTES)
        self.assertEqual(self.silent(story), (10, 10))

    def test_devices_behind_one_address_that_fall_silent_together_count_once(self):
        for updated in (0, 5, 10):
            with self.subTest(updated=updated):
                story = Story(homes=dict.fromkeys(range(1, 11), SITE))
                for number in range(1, 11):
                    story.download(number)
                story.now += 1
                for number in range(1, updated + 1):
                    story.check(number, RELEASE)
                story.wait(SILENCE_MINUTES)
                self.assertEqual(self.silent(story), (10, 1))

    def test_as_many_are_excused_as_others_that_poll_alike_are_silent(self):
        story = Story(devices=1)
        asleep, awake = range(1010, 1020), range(1020, 1030)
        for number in (*asleep, *awake):
            story.tell("device", number)
        for hour in range(0, 32, 4):
            for number in (*asleep, *awake) if hour < 16 else awake:
                story.check(number, told=OLD)
            if hour < 16:
                story.check(1)
            if hour == 12:
                story.begin(1)
                story.end(1)
            story.wait(240)
        tally = story.tally()
        self.assertAlmostEqual(tally.silence_rate, 0.5, delta=0.01)
        self.assertEqual(tally.silent_anyway, round(tally.silence_rate * tally.active))
        self.assertEqual((tally.overall.silent, tally.overall.excused), (1, 1))

    def test_a_time_in_which_no_device_at_all_was_heard_is_no_silence(self):
        story = Story()
        story.wait(30)
        story.download(1)
        story.wait(60)
        story.now += 3 * DAY_MINUTES
        self.assertEqual(story.state(), "undecided")
        story.wait(60)
        self.assertEqual(story.state(), "undecided")
        story.wait(SILENCE_MINUTES)
        self.assertEqual(story.state(), "silent")

    def test_a_time_in_which_the_server_did_not_answer_is_no_silence(self):
        story = Story()
        story.download(1)
        story.wait(60)
        before = story.now_ms
        story.now += SILENCE_MINUTES
        story.feedback.note_outage(before, story.now_ms)
        story.wait(60)
        self.assertEqual(story.state(), "undecided")


class ClockTest(unittest.TestCase):
    def test_a_clock_that_goes_back_begins_silence_and_soak_anew(self):
        for minutes, state in ((-4, "silent"), (-7, "undecided"), (-3 * DAY_MINUTES, "undecided")):
            with self.subTest(minutes=minutes):
                story = Story()
                story.download(1)
                story.wait(SILENCE_MINUTES - 2 * 60)
                story.now += minutes
                story.wait(2 * 60 + 5)
                self.assertEqual(story.state(), state)
                self.assertEqual(story.feedback.clock_jumps, int(state == "undecided"))

    def test_a_jump_that_is_told_begins_silence_and_soak_anew(self):
        story = Story()
        story.download(1)
        story.update(2)
        story.wait(50)
        story.now += 300
        story.feedback.note_clock_jump(story.now_ms)
        story.wait(50)
        story.check(2, RELEASE)
        tally = story.tally()
        self.assertEqual((tally.soaked, tally.age_ms), (0, 50 * MINUTE_MS))
        story.wait(11)
        story.check(2, RELEASE)
        self.assertEqual(story.tally().soaked, 1)

    def test_the_order_of_lines_wins_over_their_times(self):
        story = Story()
        story.download(1)
        story.now = -1.0 * DAY_MINUTES
        story.check(1, RELEASE)
        self.assertEqual(story.state(), "updated")


class PlacesTest(unittest.TestCase):
    def test_it_does_what_a_dictionary_does(self):
        chance = random.Random(3)
        for salt, bits in ((0, 48), (12345, 12), (1 << 63, 64)):
            places, known = IntIndex(salt), {}
            for _ in range(5000):
                number = chance.getrandbits(bits)
                self.assertEqual(places.get(number), known.get(number))
                if number not in known:
                    known[number] = places.add(number)
            again = IntIndex(salt)
            again.restore(places.state())
            with self.subTest(salt=salt, bits=bits):
                self.assertEqual([again.get(number) for number in known], [*known.values()])
                self.assertEqual(list(again), list(known))


class UptimeTest(unittest.TestCase):
    def ran(self, steps: list[int]) -> Uptime:
        uptime, now_ms = Uptime(), START_MS
        for step in (0, *steps):
            now_ms += step
            uptime.advance(now_ms)
        return uptime

    def test_it_is_the_time_between_records(self):
        self.assertEqual(self.ran([1000] * 100).up_ms, 100_000)

    def test_a_gap_that_is_far_longer_than_usual_is_left_out(self):
        self.assertEqual(self.ran([1000] * 100 + [3_600_000] + [1000] * 100).up_ms, 201_000)

    def test_gaps_that_come_again_and_again_are_usual(self):
        burst = [100] * 50 + [3_600_000]
        before, after = self.ran(burst * 6).up_ms, self.ran(burst * 12).up_ms
        self.assertAlmostEqual(after - before, 6 * sum(burst), delta=1000)

    def test_times_that_go_back_a_little_stand_still(self):
        uptime = self.ran([1000, 1000, -1500, 500, 1000])
        self.assertEqual((uptime.up_ms, uptime.jumps), (2000, 0))

    def test_times_that_go_back_far_are_a_jump(self):
        uptime = self.ran([1000, 1000, -JUMP_MS - 1, 1000])
        self.assertEqual((uptime.up_ms, uptime.jumps, uptime.restarted_ms), (3000, 1, 2000))

    def test_it_never_runs_backwards(self):
        uptime, now_ms, last = Uptime(), START_MS, 0
        for step in [700, 3000, 20, 9000, 0, -400_000, 100_000, 5, 86_400_000, 10] * 20:
            now_ms += step
            shown = uptime.at(now_ms)
            uptime.advance(now_ms)
            self.assertGreaterEqual(uptime.up_ms, last)
            if step > 0:
                self.assertGreaterEqual(uptime.up_ms, shown)
            last = uptime.up_ms


class PollsTest(unittest.TestCase):
    def polls(self, *gaps_ms: int) -> PollHistory:
        polls, now_ms = PollHistory(), 0
        row = polls.add(1, 0, 0, True)
        polls.poll(row, now_ms)
        for gap_ms in gaps_ms:
            now_ms += gap_ms
            polls.poll(row, now_ms)
        return polls

    def test_gaps_are_kept_within_an_eighth(self):
        for gap_ms in (1, 10, 999, 60_000, 3_600_000, 86_400_000, 30 * 86_400_000):
            with self.subTest(gap_ms):
                polls = self.polls(*[gap_ms] * 4)
                for kept in (polls.longest_ms(0, 0), polls.interval_ms(0), polls.usual_ms(0.9)):
                    self.assertTrue(gap_ms <= kept <= gap_ms * 1.13 + 2, kept)

    def test_a_device_that_asks_from_ever_new_addresses_has_the_same_gaps(self):
        # One that is at either of two in turn may be another device there: up to twice the gap.
        for sites, most in (
            ((1,) * 60, 1),
            (range(60), 1),
            ([1] * 30 + [2] * 30, 1),
            ([1, 2] * 30, 2),
        ):
            with self.subTest(sites=[*sites][:4]):
                polls = PollHistory()
                row = polls.add(1, sites[0], 0, True)
                for hour, site in enumerate(sites):
                    if site == polls.home[row]:
                        polls.poll(row, hour * 3_600_000)
                    else:
                        poll_elsewhere(polls, row, hour * 3_600_000, site)
                for kept in (polls.longest_ms(row, 0), polls.interval_ms(row)):
                    self.assertTrue(3_600_000 <= kept <= 3_600_000 * 1.13 * most, kept)

    def test_the_interval_is_the_median_and_the_longest_gap_is_that(self):
        polls = self.polls(1000, 1000, 1000, 60_000, 1000)
        self.assertAlmostEqual(polls.interval_ms(0), 1000, delta=130)
        self.assertAlmostEqual(polls.longest_ms(0, 0), 60_000, delta=8000)

    def test_the_longest_gap_is_one_of_the_last_eight(self):
        polls = self.polls(60_000, *[1000] * 8)
        self.assertAlmostEqual(polls.longest_ms(0, 0), 1000, delta=130)

    def test_a_device_whose_gaps_are_not_known_is_like_the_others(self):
        self.assertEqual(self.polls().longest_ms(0, 5000.0), 5000.0)
        self.assertEqual(self.polls(1000).longest_ms(0, 5000.0), 5000.0)
        self.assertGreater(self.polls(9000).longest_ms(0, 5000.0), 8999)

    def test_a_device_takes_some_fifty_bytes(self):
        polls = PollHistory()
        for number in range(1000):
            polls.add(number, number, 0, True)
        columns = [each for each in polls.state() if isinstance(each, bytes)]
        self.assertLess(sum(map(len, columns)) - 8 * 256, 52 * 1000)

    def test_a_device_of_which_little_is_known_is_a_slow_one(self):
        polls = PollHistory()
        quick, slow = polls.add(1, 0, 0, True), polls.add(2, 0, 0, True)
        for minute in range(60):
            polls.poll(quick, minute * 60_000)
        polls.poll(slow, 60_000)
        polls.watched_ms = 3_600_000
        for kept in (polls.longest_ms(slow, polls.usual_ms(0.99)), polls.interval_ms(slow)):
            self.assertEqual(kept, 3_600_000)
        self.assertAlmostEqual(polls.interval_ms(quick), 60_000, delta=8000)

    def test_what_is_usual_is_told_by_devices_and_not_by_their_polls(self):
        polls = PollHistory()
        for number in range(10):
            row = polls.add(number, 0, 0, True)
            for poll in range(100 if number == 0 else 4):
                polls.poll(row, poll * (60_000 if number == 0 else 86_400_000))
        self.assertAlmostEqual(polls.usual_ms(0.5), 86_400_000, delta=0.13 * 86_400_000)
