"""Forged evidence: one address speaks for devices that others speak for, and decides little."""

import unittest

from ota_server.evaluation.waves import halting, pausing, waiting_for
from ota_server.policy.rollout_plan import RolloutProgress
from tests.support.story import OLD, PLAN, RELEASE, Story

FORGER = "203.0.113.66"
RUNNING = RolloutProgress("id", "running", 0, PLAN.time)
FLEET = range(1, 41)
BAD = range(1, 13)
GOOD = range(13, 41)
# Two of the poll intervals that the story gives a device, and three of its longest poll gaps.
GRACE_MINUTES = 8 * 60 + 30
SILENCE_MINUTES = 13.5 * 60


class ForgedStory(Story):
    """A story of a fleet of forty, each device at an address of its own."""

    def __init__(self, made_up: range = range(0)) -> None:
        """Begin; the devices that are made up poll as the others do, from one address."""
        self.made_up = made_up
        super().__init__(devices=len(FLEET))

    def check(self, number: int, *arguments: object, **fields: object) -> None:
        """Have a device ask; where it is the last of those held back, the made up ones too."""
        super().check(number, *arguments, **fields)
        if number == 1009 and self.now < 0:
            for each in self.made_up:
                super().check(each, told=None, address=FORGER)

    def forge(self, numbers: range, version: str) -> None:
        """Have one address say of devices what they run."""
        for number in numbers:
            self.check(number, version, address=FORGER)

    def each(self, numbers: range, version: str, **fields: object) -> None:
        """Have devices say what they run."""
        for number in numbers:
            self.now += 0.001
            self.check(number, version, **fields)

    def get(self, numbers: range = FLEET, **fields: object) -> None:
        """Have devices download the release."""
        for number in numbers:
            self.now += 0.001
            self.download(number, **fields)

    def soak(self) -> None:
        """Let the soak pass for the good ones."""
        self.each(GOOD, RELEASE)
        self.wait(61)
        self.each(GOOD, RELEASE)

    @property
    def halts(self) -> str:
        """Say why it halts."""
        return halting(PLAN, self.tally())

    @property
    def waits(self) -> str:
        """Say what it waits for."""
        return waiting_for(PLAN, RUNNING, self.tally())

    @property
    def pauses(self) -> str:
        """Say why a person has to decide."""
        return pausing(PLAN, self.tally())


class GoodReleaseTest(unittest.TestCase):
    def goes_on(self, story: ForgedStory, fleet: range = FLEET) -> None:
        """Let the fleet update, and see that nothing keeps the rollout from going on."""
        self.assertEqual(story.halts, "")
        story.each(fleet, RELEASE)
        story.wait(61)
        story.each(fleet, RELEASE)
        self.assertEqual((story.halts, story.waits), ("", ""))

    def test_claims_that_devices_run_it_do_not_turn_their_polls_into_failures(self):
        for forged in (range(1, 6), FLEET):
            for first in (True, False):
                with self.subTest(forged=len(forged), first=first):
                    story = ForgedStory()
                    if first:
                        story.forge(forged, RELEASE)
                        story.each(FLEET, OLD)
                    else:
                        story.each(FLEET, OLD)
                        story.forge(forged, RELEASE)
                        story.each(FLEET, OLD)
                    self.assertLessEqual(story.tally().overall.failed, 1)
                    story.get()
                    self.goes_on(story)

    def test_downloads_for_others_do_not_turn_theirs_into_new_beginnings(self):
        for forged in (range(1, 9), FLEET):
            with self.subTest(forged=len(forged)):
                story = ForgedStory()
                story.get(forged, address=FORGER)
                story.get()
                self.assertLessEqual(story.tally().overall.failed, 1)
                self.goes_on(story)

    def test_downloads_for_others_do_not_make_them_late(self):
        story = ForgedStory()
        story.get(FLEET, address=FORGER)
        story.wait(GRACE_MINUTES)
        story.each(FLEET, OLD)
        self.assertLessEqual(story.tally().overall.failed, 1)
        story.get()
        self.goes_on(story)

    def test_nobody_sends_devices_back_that_have_updated(self):
        story = ForgedStory()
        story.get()
        story.each(FLEET, RELEASE)
        story.forge(range(1, 11), OLD)
        self.assertLessEqual(story.tally().overall.failed, 1)
        self.goes_on(story)

    def test_who_contradicts_homes_is_named_and_changes_nothing(self):
        story = ForgedStory()
        story.get()
        for _ in range(4):
            story.forge(FLEET, "v9.9.9")
            story.each(FLEET, RELEASE)
        tally = story.tally()
        self.assertEqual((tally.contradicted, tally.contradicted_at), (40, (FORGER, 40)))
        self.goes_on(story)

    def test_polls_for_others_do_not_shorten_their_patience(self):
        story = ForgedStory()
        story.get()
        for _ in range(20):
            story.now += 0.1
            story.forge(FLEET, OLD)
        story.wait(4 * 60)
        self.assertEqual(story.tally().silent, 0)
        self.goes_on(story)

    def test_polls_for_others_before_theirs_do_not_shorten_their_patience(self):
        story = ForgedStory()
        for _ in range(20):
            story.now += 0.1
            story.forge(FLEET, OLD)
        story.get()
        story.wait(4 * 60)
        self.assertEqual(story.tally().silent, 0)
        self.goes_on(story)

    def test_nor_do_polls_before_the_start(self):
        story = ForgedStory()
        story.now = -1.0
        for _ in range(20):
            story.now += 0.04
            story.forge(FLEET, OLD)
        story.now = 0.5
        story.get()
        story.now += 1
        story.each(FLEET, RELEASE)
        story.wait(120)
        self.assertEqual(story.tally().silent, 0)
        self.goes_on(story)

    def test_two_addresses_that_contradict_each_other_halt_nothing(self):
        story = ForgedStory()
        for _ in range(3):
            story.each(FLEET, RELEASE, address="203.0.113.66")
            story.each(FLEET, OLD, address="203.0.113.67")
            story.each(FLEET, OLD)
        self.assertEqual(story.tally().overall.failed, 0)
        story.get()
        self.goes_on(story)

    def test_devices_that_report_from_other_addresses_have_updated(self):
        story = ForgedStory()
        story.get()
        for minutes in (1, 61, 120):
            story.wait(minutes)
            for number in FLEET:
                story.check(number, RELEASE, address=f"192.0.2.{(number + round(minutes)) % 25}")
        tally = story.tally()
        self.assertEqual((tally.updated, tally.failed), (40, 0))
        self.assertEqual((story.halts, story.waits), ("", ""))


class BadReleaseTest(unittest.TestCase):
    def test_devices_that_fail_are_not_hidden_by_what_others_say_of_them(self):
        story = ForgedStory()
        story.get()
        story.wait(GRACE_MINUTES)
        for _ in range(4):
            story.forge(BAD, "v9.9.9")
            story.each(BAD, OLD)
        story.soak()
        self.assertIn("failed", story.halts)

    def test_they_are_not_hidden_by_forgeries_in_between(self):
        for version in ("v9.9.9", "v1.1.0", OLD, RELEASE):
            with self.subTest(version):
                story = ForgedStory()
                story.forge(BAD, version)
                story.get()
                story.forge(BAD, version)
                story.wait(GRACE_MINUTES)
                story.forge(BAD, version)
                story.each(BAD, OLD)
                story.forge(BAD, version)
                self.assertIn("failed", story.halts)

    def test_they_are_not_hidden_by_downloads_in_between(self):
        story = ForgedStory()
        story.get(BAD, address=FORGER)
        story.get()
        for number in BAD:
            story.begin(number, address=FORGER)
        story.wait(GRACE_MINUTES)
        story.each(BAD, OLD)
        self.assertIn("failed", story.halts)

    def test_they_have_not_updated_because_one_address_says_so(self):
        story = ForgedStory()
        story.get()
        story.wait(GRACE_MINUTES)
        story.each(BAD, OLD)
        story.forge(BAD, RELEASE)
        story.soak()
        story.forge(BAD, RELEASE)
        self.assertIn("failed", story.halts)

    def test_devices_that_are_bricked_do_not_live_because_one_address_says_so(self):
        for version in (OLD, RELEASE, "v9.9"):
            for count in (9, 12):
                with self.subTest(version, count=count):
                    bricked = range(1, count + 1)
                    story = ForgedStory()
                    story.get()
                    story.each(range(count + 1, 41), RELEASE)
                    for _ in range(15):
                        story.wait(60)
                        story.each(range(count + 1, 41), RELEASE)
                        story.forge(bricked, version)
                        self.assertTrue(story.pauses or story.halts or story.waits)
                    self.assertIn(f"only from {FORGER}", story.pauses)

    def test_devices_that_were_bricked_soon_have_not_soaked_because_one_address_says_so(self):
        story = ForgedStory()
        story.get()
        story.each(FLEET, RELEASE)
        story.wait(61)
        story.forge(FLEET, RELEASE)
        self.assertLessEqual(story.tally().soaked, 1)

    def test_nor_because_two_addresses_say_so_in_turn(self):
        for version in (OLD, RELEASE):
            with self.subTest(version):
                story = ForgedStory()
                story.get()
                for hour in range(15):
                    story.each(GOOD, RELEASE)
                    story.wait(60)
                    for number in BAD:
                        story.check(number, version, address=f"203.0.113.{66 + hour % 2}")
                    self.assertTrue(story.pauses or story.halts or story.waits)
                story.each(GOOD, RELEASE)
                self.assertIn("11 only from 203.0.113.6", story.pauses)

    def test_made_up_devices_that_fall_silent_excuse_no_others(self):
        story = ForgedStory(made_up=range(2000, 2400))
        for number in story.made_up:
            story.check(number, told=OLD, address=FORGER)
        story.get()
        for _ in range(4):
            story.each(GOOD, RELEASE)
            story.wait(240)
        tally = story.tally()
        self.assertLess(tally.silence_rate, 0.15)
        self.assertIn("silent", story.halts)

    def test_nor_where_no_others_poll_as_seldom(self):
        story = ForgedStory(made_up=range(2000, 2400))
        story.wait(120)
        for number in story.made_up:
            story.check(number, told=OLD, address=FORGER)
        story.get()
        for _ in range(5):
            story.each(GOOD, RELEASE)
            story.wait(240)
        self.assertIn("silent", story.halts)

    def test_devices_that_report_from_other_addresses_have_failed(self):
        story = ForgedStory()
        story.get()
        story.wait(2 * 24 * 60)
        for number in BAD:
            story.check(number, address=f"192.0.2.{number}")
        self.assertEqual(story.tally().overall.failed, len(BAD))


class OneOfManyTest(unittest.TestCase):
    def test_of_two_devices_that_share_a_mac_the_one_at_home_counts(self):
        story = ForgedStory()
        story.get()
        for _ in range(3):
            for number in range(1, 4):
                story.check(number, "v9.9.9", address=f"192.0.2.{number}")
            story.each(range(1, 4), RELEASE)
        tally = story.tally()
        self.assertEqual((tally.contradicted, tally.updated, tally.failed), (3, 3, 0))

    def test_a_device_at_ever_new_addresses_takes_little_room(self):
        story = ForgedStory()
        story.download(1)
        sizes = []
        for number in range(100):
            story.check(1, address=f"192.0.2.{number}")
            sizes.append(len(story.feedback.dump()))
        self.assertLess(sizes[-1], sizes[10] + 100)


if __name__ == "__main__":
    unittest.main()
