"""Waves: when a rollout goes on, when it is done, and when it stops by itself."""

import math
import unittest

from ota_server.binomial import at_least, lower_bound, most_by_chance
from ota_server.evidence import Evidence, Tally
from ota_server.plan import Plan, Progress
from ota_server.record import format_time
from ota_server.waves import advance, waiting_for

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
PLAN = Plan("id", "v2.0.0", "", (1.0, 10.0, 100.0), format_time(START_MS), "v1.0.0")
RUNNING = Progress("id", "running", 0, PLAN.time)
# A wave of a hundred devices in which nothing is left to be desired.
WELL = Tally(
    active=100,
    updated=90,
    overall=Evidence(100),
    fresh=100,
    to_come=110,
    fresh_updated=90,
    soaked=20,
    age_ms=HOUR_MS,
)


def after(
    tally: Tally, plan: Plan = PLAN, progress: Progress = RUNNING, hours: float = 2
) -> Progress:
    """Return the progress after a look so many hours after the wave opened."""
    return advance(plan, progress, tally, START_MS + int(hours * HOUR_MS))


class GoingOnTest(unittest.TestCase):
    def test_a_wave_goes_on_when_enough_have_updated_and_soaked(self):
        progress = after(WELL)
        self.assertEqual((progress.state, progress.wave), ("running", 1))
        self.assertEqual(progress.wave_time, format_time(START_MS + 2 * HOUR_MS))

    def test_it_stays_while_anything_is_missing(self):
        for missing in (
            {"soaked": 19},
            {"age_ms": HOUR_MS - 1},
            {"undecided": 3},
            {"fresh": 0, "soaked": 0},
            {"duplicate": 3},
        ):
            with self.subTest(missing):
                progress = after(WELL._replace(**missing))
                waiting = waiting_for(PLAN, RUNNING, WELL._replace(**missing))
                self.assertEqual(progress._replace(counts={}), RUNNING._replace(waiting=waiting))
                self.assertNotEqual(waiting, "")

    def test_those_undecided_may_be_as_many_as_may_fail(self):
        self.assertEqual(after(WELL._replace(undecided=2)).wave, 1)
        plan = PLAN._replace(max_failures=5.0)
        self.assertEqual(after(WELL._replace(undecided=5), plan).wave, 1)
        self.assertEqual(after(WELL._replace(undecided=6), plan).wave, 0)

    def test_many_devices_that_count_for_nothing_are_told(self):
        self.assertEqual(after(WELL._replace(duplicate=2)).wave, 1)
        self.assertEqual(after(WELL._replace(active=1000, duplicate=20)).wave, 1)
        tally = WELL._replace(duplicate=3)
        reason = waiting_for(PLAN, RUNNING, tally)
        for words in ("3 of 103 devices", "share", "over 2 %", "pin"):
            self.assertIn(words, reason)

    def test_of_a_smaller_wave_all_have_to_update(self):
        for soaked, wave in ((6, 0), (7, 1)):
            with self.subTest(soaked=soaked):
                tally = WELL._replace(active=7, fresh=7, soaked=soaked, overall=Evidence(7))
                self.assertEqual(after(tally).wave, wave)

    def test_a_later_wave_that_adds_no_device_goes_on_after_the_soak(self):
        for wave, to_come, expected in ((0, 0, 0), (1, 0, 2), (1, 5, 1)):
            with self.subTest(wave=wave, to_come=to_come):
                tally = WELL._replace(fresh=0, soaked=0, to_come=to_come)
                progress = RUNNING._replace(wave=wave)
                self.assertEqual(after(tally, progress=progress).wave, expected)

    def test_it_is_done_after_the_conditions_of_the_last_wave(self):
        last = RUNNING._replace(wave=2)
        self.assertEqual(after(WELL._replace(soaked=1), progress=last).state, "running")
        self.assertEqual(after(WELL, progress=last).state, "done")

    def test_a_wave_pauses_at_the_end_of_its_time_and_says_why(self):
        tally = WELL._replace(soaked=5, capped=30)
        self.assertEqual(after(tally, hours=167).state, "running")
        progress = after(tally, hours=168)
        self.assertEqual((progress.state, progress.wave), ("paused", 0))
        for words in (
            "wave 1",
            "within 7d:",
            "90 devices",
            "5 of them",
            "20 are",
            "--shared-address",
        ):
            self.assertIn(words, progress.reason)

    def test_times_are_told_in_their_largest_unit(self):
        for seconds, told in ((8.0, "8s"), (0.5, "0.5s"), (5400.0, "90m"), (86400.0, "1d")):
            with self.subTest(told):
                plan = PLAN._replace(wave_timeout_seconds=seconds)
                self.assertIn(
                    f"within {told}: ", after(WELL._replace(soaked=5), plan, hours=99).reason
                )

    def test_where_many_fail_behind_one_address_it_pauses_and_names_the_option(self):
        self.assertEqual(after(WELL._replace(crowded=5)).state, "running")
        progress = after(WELL._replace(crowded=6, soaked=0), hours=0)
        self.assertEqual((progress.state, progress.wave, progress.waiting), ("paused", 0, ""))
        self.assertIn("6 devices failed behind an address that many share", progress.reason)
        self.assertIn("--shared-address", progress.reason)

    def test_what_the_open_wave_waits_for_is_told_while_it_runs(self):
        told = "90 devices have updated, 12 of them for the soak, 20 are needed"
        self.assertEqual(after(WELL._replace(soaked=12)).waiting, told)
        for progress in (
            after(WELL),
            after(WELL._replace(overall=Evidence(9, 9))),
            after(WELL._replace(soaked=12), PLAN._replace(wanted="abort")),
        ):
            self.assertEqual(progress.waiting, "")

    def test_the_counts_are_for_people(self):
        self.assertEqual(after(WELL).counts["updated"], 90)


class HaltTest(unittest.TestCase):
    def test_it_halts_when_the_lower_bound_passes_the_limit(self):
        for failed, base, state in (
            (6, 100, "halted"),
            (5, 100, "running"),
            (3, 3, "halted"),
            (3, 41, "halted"),
            (3, 42, "running"),
            (2, 2, "running"),
            (200, 10_000, "running"),
            (224, 10_000, "halted"),
        ):
            with self.subTest(failed=failed, base=base):
                tally = WELL._replace(overall=Evidence(base, failed), soaked=0)
                self.assertEqual(after(tally).state, state)

    def test_the_reason_is_in_words_with_numbers(self):
        reason = after(WELL._replace(overall=Evidence(100, 6))).reason
        self.assertEqual(reason, "6 of 100 devices failed: at least 2.6 %, over the limit of 2 %")

    def test_halting_waits_for_no_minimum_number(self):
        tally = Tally(active=3, fresh=3, overall=Evidence(3, 3))
        self.assertEqual(after(tally, hours=0).state, "halted")

    def test_it_halts_for_each_previous_version_alone(self):
        tally = WELL._replace(overall=Evidence(100, 4), versions={"0.9.0": Evidence(5, 4)})
        progress = after(tally)
        self.assertEqual(progress.state, "halted")
        self.assertIn("4 of 5 devices that ran 0.9.0 failed", progress.reason)

    def test_devices_that_fell_silent_have_failed(self):
        progress = after(WELL._replace(overall=Evidence(100, 3, 3)))
        self.assertEqual(progress.state, "halted")
        self.assertIn("6 of 100 devices failed or fell silent (3 silent)", progress.reason)

    def test_silence_that_those_held_back_share_is_no_failure(self):
        for excused, state in ((0, "halted"), (30, "halted"), (31, "running"), (36, "running")):
            with self.subTest(excused=excused):
                tally = WELL._replace(overall=Evidence(100, 0, 36, excused=excused))
                self.assertEqual(after(tally).state, state)

    def test_shared_silence_excuses_nobody_that_told_of_a_failure(self):
        tally = WELL._replace(overall=Evidence(100, 6, 30, excused=30))
        self.assertEqual(after(tally).state, "halted")

    def test_mislabelled_devices_are_a_reason_of_their_own(self):
        progress = after(WELL._replace(overall=Evidence(100, 0, 0, 6)))
        self.assertEqual(progress.state, "halted")
        self.assertIn("--reports-as", progress.reason)
        self.assertEqual(after(WELL._replace(overall=Evidence(100, 5, 0, 5))).state, "running")

    def test_a_paused_rollout_is_halted_too(self):
        for plan, progress in (
            (PLAN._replace(wanted="pause"), RUNNING),
            (PLAN, RUNNING._replace(state="paused")),
        ):
            with self.subTest(plan.wanted):
                tally = WELL._replace(overall=Evidence(100, 6))
                self.assertEqual(after(tally, plan, progress).state, "halted")

    def test_what_has_ended_stays_as_it_is(self):
        for state in ("halted", "done", "aborted"):
            with self.subTest(state):
                ended = RUNNING._replace(state=state, reason="why")
                progress = after(WELL._replace(overall=Evidence(9, 9)), progress=ended)
                self.assertEqual(progress._replace(counts={}), ended)


class OperatorTest(unittest.TestCase):
    def test_promote_opens_a_wave_by_hand(self):
        for promoted, wave in ((1, 1), (2, 2), (9, 2)):
            for state in ("running", "paused"):
                with self.subTest(promoted=promoted, state=state):
                    progress = after(
                        Tally(), PLAN._replace(promoted=promoted), RUNNING._replace(state=state)
                    )
                    self.assertEqual((progress.state, progress.wave), ("running", wave))

    def test_a_wave_that_was_promoted_before_is_not_opened_again(self):
        plan, progress = PLAN._replace(promoted=1), RUNNING._replace(wave=1)
        self.assertEqual(after(Tally(), plan, progress).wave_time, PLAN.time)

    def test_promote_never_goes_past_a_halt(self):
        bad = WELL._replace(overall=Evidence(100, 50))
        plan = PLAN._replace(promoted=2)
        halted = after(bad, plan)
        self.assertEqual((halted.state, halted.wave), ("halted", 0))
        self.assertEqual(after(WELL, plan, halted).state, "halted")

    def test_pause_opens_no_wave(self):
        progress = after(WELL, PLAN._replace(wanted="pause"), hours=1000)
        self.assertEqual((progress.state, progress.wave), ("running", 0))

    def test_a_paused_progress_stays_paused(self):
        paused = RUNNING._replace(state="paused", reason="why")
        self.assertEqual(after(WELL, progress=paused)._replace(counts={}), paused)

    def test_abort_ends_it(self):
        self.assertEqual(after(WELL, PLAN._replace(wanted="abort")).state, "aborted")


class LowerBoundTest(unittest.TestCase):
    def test_it_is_that_of_the_tables(self):
        # The lower limits of two-sided 90 % intervals after Clopper and Pearson, as the textbooks
        # have them; for all of n it is the n-th root of 0.05, for one of n 1 - 0.95 ** (1 / n).
        for hits, trials, bound in (
            (1, 5, 0.0102),
            (2, 5, 0.0764),
            (3, 5, 0.1893),
            (4, 5, 0.3426),
            (5, 5, 0.5493),
            (1, 10, 0.0051),
            (3, 10, 0.0873),
            (5, 10, 0.2224),
            (10, 20, 0.3020),
            (1, 1, 0.05),
        ):
            with self.subTest(hits=hits, trials=trials):
                self.assertAlmostEqual(lower_bound(hits, trials), bound, places=4)

    def test_it_is_exact(self):
        for hits, trials in ((1, 3), (3, 41), (6, 100), (224, 10_000), (7, 300_000), (990, 1000)):
            with self.subTest(hits=hits, trials=trials):
                share = lower_bound(hits, trials)
                below = sum(
                    math.exp(
                        math.lgamma(trials + 1)
                        - math.lgamma(k + 1)
                        - math.lgamma(trials - k + 1)
                        + k * math.log(share)
                        + (trials - k) * math.log1p(-share)
                    )
                    for k in range(hits)
                )
                self.assertAlmostEqual(1 - below, 0.05, places=6)

    def test_chance_seldom_brings_more(self):
        # Quantiles of 99 % of the binomial distribution.
        for trials, share, most in (
            (100, 0.3, 41),
            (100, 0.003, 2),
            (10, 0.5, 9),
            (1000, 0.5, 537),
        ):
            with self.subTest(trials=trials, share=share):
                self.assertEqual(most_by_chance(trials, share), most)
        self.assertEqual((most_by_chance(50, 0.0), most_by_chance(50, 1.0)), (0, 50))

    def test_nothing_seen_says_nothing(self):
        for hits, trials in ((0, 10), (0, 0), (3, 0)):
            self.assertEqual(lower_bound(hits, trials), 0.0)

    def test_certainties_are_certain(self):
        for hits, share, chance in ((0, 0.5, 1.0), (1, 0.0, 0.0), (9, 0.5, 0.0), (3, 1.0, 1.0)):
            self.assertEqual(at_least(hits, 8, share), chance)

    def test_a_million_devices_are_no_trouble(self):
        self.assertAlmostEqual(lower_bound(20_000, 1_000_000), 0.01977, places=5)
