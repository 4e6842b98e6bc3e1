"""Waves: when a rollout goes on, when it is done, and when it stops by itself."""

import math
import unittest

from ota_server.evaluation.binomial import at_least, lower_bound, most_by_chance
from ota_server.evaluation.tally import Evidence, Tally
from ota_server.evaluation.waves import advance, waiting_for
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.policy.rollout_text import state_text

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
PLAN = RolloutPlan("id", "v2.0.0", "", (1.0, 10.0, 100.0), format_time(START_MS), "v1.0.0")
RUNNING = RolloutProgress("id", "running", 0, PLAN.time)
# A wave of a hundred devices in which nothing is left to be desired.
WELL = Tally(
    active=100,
    updated=90,
    overall=Evidence(100),
    fresh=100,
    to_come=110,
    members=105,
    size=105,
    soaked=20,
    age_ms=HOUR_MS,
)


def after(
    tally: Tally, plan: RolloutPlan = PLAN, progress: RolloutProgress = RUNNING, hours: float = 2
) -> RolloutProgress:
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
            {"slow_share": 0.25, "slow_soaked": 4},
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

    def test_of_a_smaller_wave_all_have_to_update_whether_they_were_heard_from_or_not(self):
        for members, soaked, wave in ((7, 6, 0), (7, 7, 1), (22, 3, 0), (22, 20, 1)):
            with self.subTest(members=members, soaked=soaked):
                tally = WELL._replace(active=7, fresh=7, soaked=soaked, overall=Evidence(7))
                self.assertEqual(after(tally._replace(members=members, size=members)).wave, wave)

    def test_slow_pollers_have_to_update_too_by_their_share_of_the_wave(self):
        # One at least, where they are more than may fail.
        for slow_share, slow_soaked, wave in ((0.25, 5, 1), (0.02, 0, 1), (0.03, 0, 0)):
            with self.subTest(slow_share=slow_share):
                tally = WELL._replace(slow_share=slow_share, slow_soaked=slow_soaked)
                self.assertEqual(after(tally).wave, wave)
        waiting = after(WELL._replace(slow_share=0.25, slow_soaked=2)).waiting
        self.assertIn("2 of the 5 devices that are needed and that poll seldom", waiting)

    def test_it_is_not_done_before_most_that_were_counted_were_heard_from(self):
        last, plan = RUNNING._replace(wave=2), PLAN._replace(counted=(10, 90, 101))
        well = WELL._replace(reach=300)
        for heard, state in ((100, "running"), (101, "done")):
            with self.subTest(heard=heard):
                progress = after(well._replace(heard=heard), plan, last)
                self.assertEqual(progress.state, state)
        self.assertIn("100 of 201", after(well._replace(heard=100), plan, last).waiting)
        # Nor for those that were taken out since.
        self.assertEqual(after(well._replace(heard=100, reach=199), plan, last).state, "done")

    def test_a_later_wave_that_adds_no_device_goes_on_after_the_soak(self):
        for wave, to_come, expected in ((0, 0, 0), (1, 0, 2), (1, 5, 1)):
            with self.subTest(wave=wave, to_come=to_come):
                tally = WELL._replace(fresh=0, soaked=0, to_come=to_come, members=to_come)
                progress = RUNNING._replace(wave=wave)
                self.assertEqual(after(tally, progress=progress).wave, expected)

    def test_it_is_done_after_the_conditions_of_the_last_wave(self):
        last = RUNNING._replace(wave=2)
        self.assertEqual(after(WELL._replace(soaked=1), progress=last).state, "running")
        self.assertEqual(after(WELL, progress=last).state, "done")

    def test_a_wave_pauses_at_the_end_of_its_time_and_says_why(self):
        tally = WELL._replace(soaked=5)
        self.assertEqual(after(tally, hours=167).state, "running")
        progress = after(tally, hours=168)
        self.assertEqual((progress.state, progress.wave), ("paused", 0))
        for words in ("wave 1", "within 7d:", "5 of the 20 devices", "needed"):
            self.assertIn(words, progress.reason)

    def test_times_are_told_in_their_largest_unit(self):
        for seconds, told in ((8.0, "8s"), (0.5, "0.5s"), (5400.0, "90m"), (86400.0, "1d")):
            with self.subTest(told):
                plan = PLAN._replace(wave_timeout_seconds=seconds)
                self.assertIn(
                    f"within {told}: ", after(WELL._replace(soaked=5), plan, hours=99).reason
                )

    def test_where_one_home_alone_fails_it_pauses_and_names_the_address(self):
        self.assertEqual(after(WELL._replace(whole=Evidence(100, 5))).wave, 1)
        tally = WELL._replace(whole=Evidence(100, 6), bad_at=("203.0.113.66", 6))
        self.assertEqual(after(tally._replace(soaked=0)).state, "running")
        progress = after(tally)
        self.assertEqual((progress.state, progress.wave, progress.waiting), ("paused", 0, ""))
        for words in ("6 of 100 devices failed", "6 of them are at 203.0.113.66", "forget"):
            self.assertIn(words, progress.reason)

    def test_where_many_are_heard_only_where_few_are_believed_it_pauses_and_names_that(self):
        at = ("203.0.113.66", 6)
        for displaced, soaked, state in (
            (6, 1, "paused"),
            (5, 1, "running"),
            (5, 20, "paused"),
            (2, 20, "running"),
        ):
            with self.subTest(displaced=displaced, soaked=soaked):
                tally = WELL._replace(displaced=displaced, displaced_at=at, soaked=soaked)
                progress = after(tally)
                self.assertEqual(progress.state, state)
        self.assertIn(
            "6 only from 203.0.113.66",
            after(WELL._replace(displaced=6, displaced_at=at)).reason,
        )

    def test_a_pause_that_had_its_cause_in_devices_ends_with_that(self):
        tally = WELL._replace(displaced=6, displaced_at=("203.0.113.66", 6))
        paused = after(tally)
        self.assertEqual(after(tally._replace(displaced=7), progress=paused).reason, paused.reason)
        self.assertEqual(after(WELL._replace(soaked=1), progress=paused).state, "running")

    def test_what_the_open_wave_waits_for_is_told_while_it_runs(self):
        told = "12 of the 20 devices that are needed have run it for the soak of 1h"
        self.assertEqual(after(WELL._replace(soaked=12, fresh=105)).waiting, told)
        self.assertIn("not heard from yet: 5", after(WELL._replace(soaked=12)).waiting)
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
            (2, 21, "running"),
            (200, 10_000, "running"),
            (224, 10_000, "halted"),
        ):
            with self.subTest(failed=failed, base=base):
                tally = WELL._replace(overall=Evidence(base, failed), soaked=0)
                self.assertEqual(after(tally).state, state)

    def test_the_reason_is_in_words_with_numbers(self):
        reason = after(WELL._replace(overall=Evidence(100, 6))).reason
        share = "at least 2.6 % (95 % certain), over the limit of 2 %"
        self.assertEqual(reason, f"6 of 100 devices failed: {share}")

    def test_halting_waits_for_no_minimum_number(self):
        tally = Tally(active=3, fresh=3, overall=Evidence(3, 3))
        self.assertEqual(after(tally, hours=0).state, "halted")

    def test_it_halts_for_each_previous_version_alone(self):
        tally = WELL._replace(overall=Evidence(100, 4), parts={"0.9.0": Evidence(5, 4)})
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

    def test_a_halt_names_the_version_that_mislabelled_devices_report_and_what_to_do(self):
        for evidence in (
            Evidence(100, 0, 0, 6),
            Evidence(100, 6),
            Evidence(5, 5),
            Evidence(5, 0, 0, 5),
        ):
            with self.subTest(evidence):
                progress = after(WELL._replace(overall=evidence, label="2.0 dirty"))
                self.assertIn("report 2.0 dirty, which is not a release", progress.reason)
                self.assertIn("--reports-as '2.0 dirty'`", progress.notes[0])
                self.assertLess(len(progress.reason), 160)  # it is in tables, too

    def test_the_label_is_no_cure_where_devices_failed_too(self):
        evidence = Evidence(100, 12, 0, 6)
        for more in ({"failed": 6}, {"silent": 6}):
            with self.subTest(more):
                tally = WELL._replace(overall=evidence, label="2.0 dirty", **more)
                self.assertEqual(after(tally).state, "halted")
                self.assertEqual(after(tally).notes, ())
        tally = WELL._replace(overall=evidence, label="2.0 dirty", failed=1)
        self.assertIn("publish it again", after(tally).notes[0])

    def test_what_devices_report_is_never_shown_as_a_command_of_ours(self):
        evidence = Evidence(100, 0, 0, 6)
        progress = after(WELL._replace(overall=evidence, label="`release activate v9`"))
        self.assertIn("report 'release activate v9', which is not a release", progress.reason)
        self.assertIn("--reports-as TEXT`, then", progress.notes[0])

    def test_what_a_person_is_told_about_a_group_never_moves_the_fleet(self):
        plan = PLAN._replace(group="beta")
        tallies = (
            WELL._replace(overall=Evidence(30, 1), size=30, bad={"a": "failed"}),
            WELL._replace(displaced=60, displaced_at=("192.0.2.1", 60)),
            WELL._replace(soaked=0, stuck={"a": "not heard from"}, size=100),
        )
        for tally in tallies:
            progress = after(tally, plan=plan)
            said = state_text(plan, progress)
            with self.subTest(said):
                self.assertRegex(said, "`rollout (abort|promote) --group beta`")
                self.assertNotRegex(said, "`rollout [a-z]+`")

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


class SmallWaveTest(unittest.TestCase):
    def small(self, base: int, bad: int, limit: float = 2.0, size: int = 0) -> RolloutProgress:
        devices = {f"02:00:00:00:00:{number:02x}": "failed" for number in range(bad)}
        evidence = Evidence(base, bad)
        tally = Tally(active=base, fresh=base, members=base, size=size or base, age_ms=HOUR_MS)
        tally = tally._replace(overall=evidence, whole=evidence, bad=devices, bad_at=("a", bad))
        tally = tally._replace(soaked=base - bad, stuck=devices)
        return after(tally, PLAN._replace(max_failures=limit))

    def test_two_bad_devices_halt_it_or_all_of_fewer_than_four(self):
        for base, bad, state in (
            (20, 2, "halted"),
            (12, 2, "halted"),
            (1, 1, "halted"),
            (3, 3, "halted"),
            (2, 2, "halted"),
            (3, 1, "paused"),
            (4, 1, "paused"),
            (20, 1, "paused"),
            (20, 0, "running"),
        ):
            with self.subTest(base=base, bad=bad):
                self.assertEqual(self.small(base, bad).state, state)

    def test_the_limit_of_an_operator_holds_there_too(self):
        for base, bad, state in ((20, 1, "running"), (20, 6, "running"), (20, 7, "halted")):
            with self.subTest(bad=bad):
                self.assertEqual(self.small(base, bad, 30.0).state, state)

    def test_a_wave_of_many_of_which_few_were_heard_from_yet_is_not_small(self):
        self.assertEqual(self.small(5, 2, size=21).state, "paused")
        self.assertEqual(self.small(5, 2, size=50).state, "running")

    def test_of_fewer_than_fifty_one_over_the_limit_is_asked_about_before_it_goes_on(self):
        for base, bad, state in ((49, 1, "paused"), (50, 1, "running"), (30, 0, "running")):
            with self.subTest(base=base, bad=bad):
                tally = WELL._replace(active=base, members=base, size=base)
                evidence = Evidence(base, bad)
                tally = tally._replace(overall=evidence, whole=evidence, bad={"a": "failed"})
                self.assertEqual(after(tally).state, state)
                self.assertEqual(after(tally).wave, int(state == "running"))

    def test_nobody_is_asked_about_silence_that_is_to_be_expected(self):
        for expected, state in ((0, "paused"), (1, "running")):
            with self.subTest(expected=expected):
                evidence = Evidence(30, 0, 1, excused=1, expected=expected)
                tally = WELL._replace(active=30, members=30, size=30, bad={"a": "silent"})
                self.assertEqual(
                    after(tally._replace(overall=evidence, whole=evidence)).state, state
                )

    def test_nobody_is_asked_before_the_others_of_the_wave_are_through(self):
        evidence = Evidence(12, 1)
        tally = Tally(active=12, fresh=12, members=12, size=12, overall=evidence, whole=evidence)
        progress = after(tally._replace(soaked=8, bad={"a": "failed"}))
        self.assertEqual((progress.state, progress.asks), ("running", ()))

    def test_one_bad_device_is_named_with_what_to_do(self):
        progress = self.small(12, 1)
        self.assertEqual(progress.asks, ("02:00:00:00:00:00",))
        said = state_text(PLAN, progress)
        for words in ("02:00:00:00:00:00 (failed)", "`rollout promote`", "`rollout abort`"):
            self.assertEqual(said.count(words), 1, said)
        self.assertNotIn("resume", said)

    def test_devices_that_do_not_come_are_named_while_it_waits(self):
        tally = WELL._replace(active=11, members=12, size=12, soaked=11, overall=Evidence(11))
        progress = after(tally._replace(stuck={"02:00:00:00:00:07": "not heard from"}))
        self.assertEqual((progress.state, progress.asks), ("running", ("02:00:00:00:00:07",)))
        said = state_text(PLAN, progress)
        self.assertIn(
            "missing: 02:00:00:00:00:07 (not heard from); `rollout promote` goes on without", said
        )


class OperatorTest(unittest.TestCase):
    def test_promote_opens_a_wave_by_hand(self):
        for promoted, wave in ((1, 1), (2, 2)):
            for state in ("running", "paused"):
                with self.subTest(promoted=promoted, state=state):
                    progress = after(
                        Tally(), PLAN._replace(promoted=promoted), RUNNING._replace(state=state)
                    )
                    self.assertEqual((progress.state, progress.wave), ("running", wave))

    def test_promote_ends_the_last_wave_without_those_that_are_missing(self):
        progress = after(Tally(), PLAN._replace(promoted=3), RUNNING._replace(wave=2))
        self.assertEqual(progress.state, "done")

    def test_devices_that_a_person_went_on_without_are_on_record(self):
        asking = RUNNING._replace(state="paused", lifts=True, asks=("a", "b"), accepted=("b", "c"))
        progress = after(WELL, PLAN._replace(promoted=1), asking)
        self.assertEqual((progress.accepted, progress.asks), (("b", "c", "a"), ()))
        self.assertFalse(progress.lifts)

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
