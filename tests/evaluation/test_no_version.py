"""Devices that say no version: nothing shows whether they run the release."""

import unittest

from ota_server.evaluation.tally import Evidence, Tally
from ota_server.evaluation.waves import advance
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from tests.evaluation.test_feedback import GRACE_MINUTES
from tests.support.story import OLD, PLAN, RELEASE, Story, mac

HOUR_MS = 3_600_000


def polled_on(story: Story, *numbers: int, version: str = "-", times: int = 5) -> Story:
    """Have devices fetch the image and poll on; all that they say of themselves is a version."""
    for number in numbers:
        story.download(number, version=version)
    for _ in range(times):
        story.wait(GRACE_MINUTES)
        for number in numbers:
            story.check(number, version)
    return story


class NoEvidenceTest(unittest.TestCase):
    def test_a_device_that_has_it_whole_and_says_no_version_has_not_failed(self):
        for version, behind_proxy in (("-", False), ("-", True)):
            with self.subTest(behind_proxy=behind_proxy):
                story = polled_on(Story(completion_unknown=behind_proxy), 1, version=version)
                self.assertEqual((story.state(), story.tally().unseen), ("undecided", 1))
        self.assertEqual(polled_on(Story(), 1, version=OLD).state(), "failed")

    def test_nor_has_one_that_was_known_by_a_version_before(self):
        story = Story()
        story.download(1)
        story.wait(GRACE_MINUTES)
        story.check(1, "-")
        self.assertEqual((story.state(), story.tally().unseen), ("undecided", 1))

    def test_nor_one_that_has_reported_the_release(self):
        story = Story()
        story.update(1)
        story.wait(GRACE_MINUTES)
        story.check(1, "-")
        self.assertEqual(story.state(), "undecided")
        story.check(1, RELEASE)
        self.assertEqual(story.state(), "updated")

    def test_nor_one_that_fetches_the_image_at_each_poll(self):
        story = Story()
        for _ in range(5):
            story.download(1, version="-")
            story.wait(GRACE_MINUTES)
        self.assertEqual(story.state(), "undecided")

    def test_a_device_that_says_its_old_version_again_has_failed(self):
        for before in ((OLD, OLD), (OLD, "-"), ("-", OLD)):
            with self.subTest(before):
                story = Story()
                story.check(1, before[0])
                story.download(1, version=before[1])
                story.wait(GRACE_MINUTES)
                story.check(1, OLD)
                self.assertEqual(story.state(), "failed")

    def test_a_device_that_left_the_release_for_a_version_has_failed(self):
        story = Story()
        story.update(1)
        story.check(1, "-")
        story.check(1, OLD)
        self.assertEqual(story.state(), "failed")

    def test_it_is_no_more_than_undecided_until_it_asks_again(self):
        story = Story()
        story.download(1, version="-")
        self.assertEqual((story.state(), story.tally().unseen), ("undecided", 0))

    def test_one_that_falls_silent_with_the_image_is_silent_all_the_same(self):
        story = polled_on(Story(), 1, times=0)
        story.wait(3 * 24 * 60)
        self.assertEqual(story.state(), "silent")

    def test_it_is_told_in_words(self):
        story = polled_on(Story(), 1)
        story.download(2, version="-")
        words = {each.key: each.in_words("-") for each in story.feedback.outcomes(story.now_ms)}
        self.assertEqual(words[mac(1)], "it had the whole image, and says no version")
        self.assertEqual(words[mac(2)], "it has the image, and has not reported the release yet")

    def test_a_controller_that_goes_on_from_a_checkpoint_knows_the_same(self):
        story = polled_on(Story(), 1)
        other = Story()
        other.feedback.load(story.feedback.dump())
        self.assertEqual(other.feedback.tally(story.now_ms), story.tally())


class AmongOthersTest(unittest.TestCase):
    def test_those_that_say_no_version_are_not_among_those_that_could_have_failed(self):
        story = polled_on(Story(devices=60), *range(1, 31))
        for number in range(31, 61):
            story.update(number)
        tally = story.tally()
        self.assertEqual((tally.overall.base, tally.overall.unseen), (60, 30))

    def test_a_bad_release_is_halted_by_the_others(self):
        # 6 of 200 are 3 %, and prove nothing; of the 20 that can be seen they do.
        evidence = Evidence(200, failed=6, unseen=180)
        progress = advanced(many(unseen=180, overall=evidence))
        self.assertEqual(progress.state, "halted")
        self.assertIn("6 of 20 devices failed", progress.reason)

    def test_one_that_failed_where_nobody_else_can_be_seen_is_asked_about(self):
        evidence = Evidence(3, failed=1, unseen=2)
        tally = many(members=3, fresh=3, unseen=2, unseen_fresh=2, overall=evidence)
        progress = advanced(tally._replace(size=3, stuck={"a": "failed"}, bad={"a": "failed"}))
        self.assertEqual((progress.state, progress.asks), ("paused", ("a",)))

    def test_silence_is_compared_with_all_of_them(self):
        evidence = Evidence(200, silent=2, unseen=198)
        self.assertNotEqual(advanced(many(unseen=198, overall=evidence)).state, "halted")

    def test_a_wave_goes_on_when_enough_others_are_through(self):
        progress = advanced(many(undecided=100, unseen=100, unseen_fresh=100, soaked=20))
        self.assertEqual((progress.state, progress.wave), ("running", 1))


class AskingTest(unittest.TestCase):
    def test_a_small_wave_waits_for_a_person_and_says_why(self):
        story = polled_on(Story(PLAN._replace(min_devices=20), devices=3), 1, 2, 3, times=9)
        begun = RolloutProgress("id", "running", 0, PLAN.time)
        progress = advance(story.plan, begun, story.tally(), story.now_ms)
        self.assertEqual((progress.state, len(progress.asks)), ("running", 3))
        self.assertIn("(says no version)", progress.waiting)

    def test_a_large_wave_in_which_too_few_others_are_left_waits_for_a_person_too(self):
        for unseen, state in ((180, "running"), (181, "paused"), (200, "paused")):
            with self.subTest(unseen=unseen):
                tally = many(undecided=unseen, unseen=unseen, unseen_fresh=unseen, soaked=0)
                progress = advanced(tally)
                self.assertEqual(progress.state, state)
        self.assertIn("200 of 200 devices had the whole image, and say no version", progress.reason)
        self.assertIn("`rollout promote` goes on", progress.reason)

    def test_not_before_the_soak_has_passed(self):
        tally = many(undecided=200, unseen=200, unseen_fresh=200, soaked=0, age_ms=HOUR_MS - 1)
        self.assertEqual(advanced(tally).state, "running")

    def test_a_person_can_send_it_on(self):
        plan = LARGE._replace(promoted=1)
        tally = many(undecided=200, unseen=200, unseen_fresh=200, soaked=0)
        self.assertEqual(advanced(tally, plan).wave, 1)


LARGE = RolloutPlan("id", RELEASE, "", (10.0, 100.0), PLAN.time, OLD)


def many(**fields: object) -> Tally:
    """Return what was counted of a wave of two hundred devices."""
    usual = Tally(active=200, overall=Evidence(200), fresh=200, members=200, size=200)
    return usual._replace(**{"age_ms": HOUR_MS, **fields})


def advanced(tally: Tally, plan: RolloutPlan = LARGE) -> RolloutProgress:
    """Return the progress of the first wave, two hours after it opened."""
    start_ms = 1_790_000_000_000
    begun = RolloutProgress("id", "running", 0, format_time(start_ms))
    return advance(plan, begun, tally, start_ms + 2 * HOUR_MS)
