"""Homes: whose word on a device counts, and for how much, rule by rule."""

import unittest

from ota_server.evaluation.checkpoint import BadCheckpoint
from ota_server.evaluation.contested import most_in_wave
from ota_server.evaluation.poll_history import PollHistory
from ota_server.evaluation.waves import asking, halting, pausing, waiting_for
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from tests.support.story import OLD, PLAN, RELEASE, Story, mac

NAT, OTHER = "198.51.100.7", "203.0.113.66"
RUNNING = RolloutProgress("id", "running", 0, PLAN.time)
# Two of the poll intervals that the story gives a device, and half as long again as its gaps.
GRACE_MINUTES, MISSED_MINUTES = 8 * 60 + 30, 6.5 * 60


def addresses(devices: int, homes: int) -> dict[int, str]:
    """Return the homes of devices, as many in each."""
    return {number: f"198.51.100.{number % homes}" for number in range(1, devices + 1)}


class HomesStory(Story):
    """A story of devices at their homes."""

    def __init__(
        self, devices: int, homes: int = 1, plan: RolloutPlan = PLAN, **more: object
    ) -> None:
        super().__init__(plan, devices=devices, homes=addresses(devices, homes), **more)

    def each(self, version: str | None, numbers: range | None = None, **fields: object) -> None:
        """Have devices say what they run; None: have them download the release."""
        for number in self.devices if numbers is None else numbers:
            self.now += 0.001
            if version is None:
                self.download(number, **fields)
            else:
                self.check(number, version, **fields)

    def update_all(self) -> None:
        """Have all devices update well, and soak."""
        self.each(None)
        self.each(RELEASE)
        self.wait(61)
        self.each(RELEASE)

    @property
    def verdict(self) -> str:
        """Say what comes of it: halts, pauses, waits or goes on."""
        plan, tally = PLAN, self.tally()
        if halting(plan, tally):
            return "halts"
        if pausing(plan, tally):
            return "pauses"
        if asking(plan, tally)[0]:
            return "asks"
        return "waits" if waiting_for(plan, RUNNING, tally) else "goes on"


class AtHomeTest(unittest.TestCase):
    def test_devices_behind_however_few_addresses_count_each(self):
        for devices, homes in ((12, 4), (40, 10), (60, 1), (200, 3), (200, 5), (10, 5), (2, 1)):
            with self.subTest(devices=devices, homes=homes):
                story = HomesStory(devices, homes)
                story.update_all()
                tally = story.tally()
                self.assertEqual((tally.members, tally.soaked), (devices, devices))
                self.assertEqual(story.verdict, "goes on")

    def test_and_so_do_their_failures(self):
        for devices, homes in ((60, 1), (200, 3), (200, 5), (5, 1), (40, 10)):
            with self.subTest(devices=devices, homes=homes):
                story = HomesStory(devices, homes)
                story.each(None)
                story.wait(GRACE_MINUTES)
                story.each(OLD, range(1, devices // 3 + 1))
                self.assertEqual(story.verdict, "halts" if devices > 5 else "asks")

    def test_devices_behind_one_nat_that_fall_silent_count_each_where_others_are_heard(self):
        for devices in (5, 60):
            with self.subTest(devices=devices):
                story = HomesStory(devices, held_at="198.51.100.0")
                story.each(None)
                story.wait(14 * 60)
                self.assertEqual(story.tally().overall.silent, devices)
                self.assertEqual(story.verdict, "halts")


class ElsewhereTest(unittest.TestCase):
    def test_what_another_address_said_is_dropped_when_the_home_speaks_and_it_is_named(self):
        story = HomesStory(40)
        story.each(RELEASE, address=OTHER)
        story.each(OLD)
        tally = story.tally()
        self.assertEqual((tally.updated, tally.failed), (0, 0))
        self.assertEqual((tally.contradicted, tally.contradicted_at), (40, (OTHER, 40)))

    def test_a_device_that_comes_home_with_the_release_contradicts_nobody(self):
        for said, later in ((RELEASE, RELEASE), (OLD, RELEASE)):
            with self.subTest(said=said):
                story = HomesStory(40)
                story.each(OLD)
                story.each(said, address="192.0.2.1")
                story.each(later)
                self.assertEqual(story.tally().contradicted, 0)

    def test_good_news_counts_at_once_and_bad_news_once_the_home_has_missed_a_poll(self):
        for later, minutes, failed in ((RELEASE, 0, 0), (OLD, 1, 0), (OLD, MISSED_MINUTES, 1)):
            with self.subTest(later=later, minutes=minutes):
                story = HomesStory(1)
                story.each(None)
                story.each(RELEASE, address=OTHER)
                story.wait(minutes)
                story.each(later, address=OTHER)
                tally = story.tally()
                self.assertEqual((tally.failed, tally.updated), (failed, int(later == RELEASE)))

    def test_good_news_hides_no_failure_that_the_home_has_told(self):
        story = HomesStory(1)
        story.each(None)
        story.wait(GRACE_MINUTES)
        story.each(OLD)
        story.each(RELEASE, address=OTHER)
        self.assertEqual(story.state(), "failed")

    def test_devices_that_turn_up_at_forty_addresses_have_moved_and_at_one_address_one_has(self):
        for places, updated, displaced in ((40, 40, 0), (1, 1, 39)):
            with self.subTest(places=places):
                story = HomesStory(40, 40)
                story.each(None)
                story.wait(MISSED_MINUTES)
                for number in story.devices:
                    story.check(number, RELEASE, address=f"192.0.2.{number % places}")
                tally = story.tally()
                self.assertEqual((tally.updated, tally.displaced), (updated, displaced))

    def test_displaced_devices_pause_it_with_the_address(self):
        story = HomesStory(40, 40)
        story.each(None)
        story.wait(14 * 60)
        for number in range(1, 21):
            story.check(number, RELEASE, address=OTHER)
        story.each(RELEASE, range(21, 41))
        self.assertIn(f"19 only from {OTHER}", pausing(PLAN, story.tally()))

    def test_one_address_that_speaks_for_a_hundred_thousand_takes_little_room(self):
        story = Story(PLAN._replace(count_new=True))
        numbers = range(1, 900)
        for number in numbers:
            story.download(number)
        before = len(story.feedback.dump())
        for site in range(8):
            for number in numbers:
                story.check(number, RELEASE, address=f"192.0.2.{site}")
        self.assertLess(len(story.feedback.dump()), 2 * before)


class NewHomeTest(unittest.TestCase):
    """A NAT of twenty devices, of which the first wave holds some."""

    PLAN = PLAN._replace(waves=(60.0, 100.0))
    FIRST = [number for number in range(1, 21) if cohort_percent(RELEASE, mac(number)) < 60]

    def each(
        self, story: HomesStory, version: str, numbers: range | list[int], address: str = OTHER
    ) -> None:
        """Have devices say what they run; those of the second wave run what they ran."""
        for number in numbers:
            story.now += 0.001
            is_first = number in self.FIRST
            told = RELEASE if is_first else OLD
            story.check(number, version if is_first else OLD, told, address=address)

    def move(
        self, numbers: range | list[int], to: str = OTHER, plan: RolloutPlan = PLAN
    ) -> HomesStory:
        """Return a story in which those of the first wave fetch it, and some turn up elsewhere."""
        story = HomesStory(20, plan=plan)
        for number in self.FIRST:
            story.download(number)
        story.wait(1)
        self.each(story, RELEASE, numbers, to)
        return story

    def test_devices_of_one_home_that_turn_up_together_at_one_address_have_moved_home(self):
        story = self.move(range(1, 21))
        self.assertEqual(story.tally().updated, 1)
        story.wait(MISSED_MINUTES)
        self.each(story, RELEASE, range(1, 21))
        tally, first = story.tally(), len(self.FIRST)
        self.assertEqual((tally.updated, tally.soaked, tally.displaced), (first, first, 0))
        self.each(story, OLD, range(1, 21))
        self.assertEqual(story.tally().failed, first)

    def test_and_so_they_have_on_the_next_day(self):
        story = self.move(range(1, 21))
        story.wait(MISSED_MINUTES)
        self.assertEqual(story.tally().updated, len(self.FIRST))
        for minutes in (0, MISSED_MINUTES, 0):
            story.wait(minutes)
            self.each(story, OLD, range(1, 21), "203.0.113.67")
            tally = story.tally()
        self.assertEqual((tally.failed, tally.displaced), (len(self.FIRST), 0))

    def test_a_home_that_moved_halts_nothing_by_itself(self):
        story = self.move(range(1, 21))
        story.wait(MISSED_MINUTES)
        self.each(story, OLD, range(1, 21))
        tally = story.tally()
        self.assertEqual((tally.failed, tally.overall.failed), (len(self.FIRST), 1))

    def test_not_by_those_alone_that_the_release_may_have_killed(self):
        story = self.move(self.FIRST)
        story.wait(MISSED_MINUTES)
        for number in self.FIRST:
            story.check(number, OLD, address=OTHER)
        self.assertEqual(story.tally().displaced, len(self.FIRST) - 1)

    def test_not_by_two_words_in_the_name_of_devices_that_poll_seldom(self):
        story = HomesStory(20)
        story.each(None)
        story.each(OLD, range(1, 3), address=OTHER)
        story.tally()
        story.each(RELEASE)
        tally = story.tally()
        self.assertEqual((tally.updated, tally.displaced), (20, 0))

    def test_not_while_one_is_heard_at_the_old_address(self):
        story = self.move(range(1, 20))
        story.check(20, OLD)
        story.wait(MISSED_MINUTES)
        story.check(20, OLD)
        self.assertEqual(story.tally().displaced, len(self.FIRST) - 1 - (20 in self.FIRST))

    def test_not_where_those_of_another_home_turn_up_there_too(self):
        story = HomesStory(40, 2)
        story.each(None)
        story.wait(MISSED_MINUTES)
        story.each(RELEASE, address=OTHER)
        tally = story.tally()
        self.assertEqual((tally.updated, tally.displaced), (1, 39))

    def test_not_where_somebody_speaks_for_those_of_a_home_that_has_missed_nothing_too(self):
        story = HomesStory(40, 2)
        story.each(None)
        story.each(RELEASE)
        story.wait(MISSED_MINUTES)
        story.each(RELEASE, range(1, 41, 2))
        story.each(OLD, address=OTHER)
        tally = story.tally()
        self.assertEqual((tally.failed, tally.displaced), (1, 19))
        story.each(RELEASE)
        self.assertEqual((story.tally().failed, story.tally().contradicted), (0, 40))

    def test_not_for_two_of_twenty_of_which_no_other_is_heard(self):
        story = HomesStory(20)
        story.each(None)
        story.each(RELEASE)
        story.wait(MISSED_MINUTES)
        story.each(OLD, range(1, 3), address=OTHER)
        tally = story.tally()
        self.assertEqual((tally.failed, tally.displaced), (1, 1))

    def test_not_for_few_of_many(self):
        story = HomesStory(20)
        story.each(None)
        story.wait(MISSED_MINUTES)
        story.each(RELEASE, range(1, 9), address=OTHER)
        for number in range(9, 21):
            story.check(number, RELEASE, address=f"192.0.2.{number}")
        self.assertEqual(story.tally().updated, 12 + 4)


class ShareTest(unittest.TestCase):
    def test_of_a_home_there_count_as_many_in_a_wave_as_are_to_be_expected(self):
        for devices, others, in_wave, most in (
            (1, 9999, 100, 3),
            (20, 10_000, 100, 3),
            (50, 1000, 100, 9),
            (60, 100, 20, 18),
            (40, 0, 0, 52),
        ):
            with self.subTest(devices=devices, others=others):
                polls = PollHistory()
                for number in range(devices):
                    polls.add(number, 7, 0, True)
                for number in range(others):
                    polls.add(devices + number, 1000 + number, int(number >= in_wave), True)
                self.assertEqual(most_in_wave(polls, {7}, 0), {7: most})

    def chosen(self, share: float, first_group: str | None = None, **more: object) -> HomesStory:
        """Return a story of devices behind one address that are all in the first wave."""
        plan = PLAN._replace(waves=(share, 100.0), first_group=first_group)
        numbers = [n for n in range(1010, 6000) if cohort_percent(RELEASE, mac(n)) < share][:20]
        story = Story(plan, **more)
        story.known = story.known._replace(members=None)
        if first_group:
            story.known = story.known._replace(first_group=frozenset(map(mac, numbers)))
        story.feedback.change(plan, story.known)
        story.now = -24 * 60.0
        for number in numbers:
            story.check(number, told=None, address=OTHER)
        story.now = 1.0
        for number in numbers:
            story.download(number, address=OTHER)
            story.begin(number, address=OTHER)
        return story

    def test_macs_that_were_chosen_for_the_first_wave_hardly_count(self):
        tally = self.chosen(1.0).feedback.tally(0)
        self.assertEqual((tally.failed, tally.surplus), (3, 17))

    def test_those_of_a_first_group_were_chosen_by_an_operator(self):
        tally = self.chosen(1.0, "canary").feedback.tally(0)
        self.assertEqual((tally.failed, tally.surplus), (20, 0))


class OtherAddressesTest(unittest.TestCase):
    """Devices that are not always at one address, and bad releases that must not go on by that."""

    def test_devices_that_download_from_another_address_than_they_check_from_have_failed(self):
        story = HomesStory(60, 60)
        for number in story.devices:
            story.check(number)
            story.begin(number, address=f"192.0.2.{number}")
            story.end(number, address=f"192.0.2.{number}")
        story.wait(GRACE_MINUTES)
        story.each(OLD, range(1, 19))
        story.each(RELEASE, range(19, 61))
        self.assertEqual((story.tally().failed, story.verdict), (18, "halts"))

    def test_devices_with_another_address_at_each_connection_have_failed(self):
        for places in (8, 50):
            with self.subTest(places=places):
                story = HomesStory(60, 60)
                for number in story.devices:
                    story.download(number, address=f"192.0.2.{number % places}")
                for poll in range(1, 5):
                    story.wait(4 * 60)
                    for number in story.devices:
                        version = OLD if number < 19 else RELEASE
                        place = (number + 7 * poll) % places
                        story.check(number, version, address=f"192.0.2.{place}")
                self.assertEqual(story.verdict, "halts")

    def test_downloads_in_the_name_of_devices_halt_nothing(self):
        story = HomesStory(40, 40)
        for number in story.devices:
            story.begin(number, address=OTHER)
            story.end(number, address=OTHER)
        story.wait(GRACE_MINUTES)
        story.each(OLD)
        self.assertEqual((story.tally().overall.failed, halting(PLAN, story.tally())), (1, ""))

    def test_nobody_takes_the_home_of_a_device_of_which_little_is_known(self):
        story = Story(PLAN._replace(count_new=True), devices=40)
        story.known = story.known._replace(members=frozenset(map(mac, range(1000, 3000))))
        story.feedback.change(PLAN._replace(count_new=True), story.known)
        story.now = -24 * 60.0
        for number in range(2000, 2040):
            story.tell("device", number, address=f"10.9.0.{number - 2000}")
        story.now = 1.0
        for number in range(2000, 2040):
            story.check(number, address=OTHER)
        for number in range(2000, 2040):
            story.download(number, address=f"10.9.0.{number - 2000}")
        for _ in range(8):
            story.wait(12 * 60)
            for number in range(2000, 2020):
                story.check(number, OLD, address=f"10.9.0.{number - 2000}")
                story.check(number, RELEASE, address=OTHER)
        tally = story.tally()
        self.assertEqual((tally.failed, tally.contradicted_at), (20, (OTHER, 20)))

    def test_devices_that_fail_without_a_download_on_record_fail_at_home(self):
        story = HomesStory(40, 40, completion_unknown=True)
        for _ in range(5):
            story.each(OLD)
            story.wait(GRACE_MINUTES)
        tally = story.tally()
        self.assertEqual((tally.overall.failed, tally.bad_elsewhere), (40, 0))

    def test_in_a_small_wave_nobody_is_confirmed_from_elsewhere(self):
        story = HomesStory(1)
        story.download(1)
        for _ in range(3):
            story.check(1, RELEASE, address=OTHER)
            story.wait(61)
        tally = story.tally()
        self.assertEqual((tally.updated, tally.soaked), (1, 0))
        story.wait(GRACE_MINUTES)
        story.check(1, RELEASE, address=OTHER)
        self.assertIn(f"heard only at {OTHER}", waiting_for(PLAN, RUNNING, story.tally()))

    def test_a_tiny_fleet_of_which_nobody_is_heard_any_more_is_named(self):
        story = Story(homes=addresses(4, 1), devices=4)
        story.known = story.known._replace(members=frozenset(map(mac, range(1, 5))))
        story.feedback.change(PLAN, story.known)
        story.now = 1.0
        for number in story.devices:
            story.download(number)
        for hours, named in ((4, 0), (24, 4)):
            story.now = hours * 60.0
            self.assertEqual(len(story.tally().stuck), named)
        self.assertIn("(undecided)", waiting_for(PLAN, RUNNING, story.tally()))

    def test_nor_is_it_halted_from_elsewhere(self):
        for version in (OLD, "v9.9.9"):
            with self.subTest(version):
                story = HomesStory(1)
                story.check(1)
                story.wait(MISSED_MINUTES)
                story.check(1, RELEASE, address=OTHER)
                story.check(1, version, address=OTHER)
                self.assertEqual(halting(PLAN, story.tally()), "")


class ProvenTest(unittest.TestCase):
    """Where devices prove who they are, nothing is contested."""

    def test_an_honest_fleet_is_counted_the_same(self):
        for devices, homes in ((1, 1), (12, 4), (60, 1), (200, 5), (40, 40)):
            for bad in (0, devices // 3):
                tallies = []
                for devices_proven in (False, True):
                    story = HomesStory(devices, homes, devices_proven=devices_proven)
                    story.each(None)
                    story.wait(GRACE_MINUTES)
                    story.each(OLD, range(1, bad + 1))
                    story.each(RELEASE, range(bad + 1, devices + 1))
                    story.wait(61)
                    story.each(RELEASE, range(bad + 1, devices + 1))
                    tallies.append(story.tally())
                with self.subTest(devices=devices, homes=homes, bad=bad):
                    self.assertEqual(*tallies)

    def test_a_device_that_speaks_from_elsewhere_is_believed_at_once(self):
        story = HomesStory(40, devices_proven=True)
        story.each(None)
        story.each(RELEASE, address=OTHER)
        story.each(OLD, range(1, 3), address=OTHER)
        tally = story.tally()
        self.assertEqual((tally.updated, tally.failed, tally.displaced), (38, 2, 0))
        self.assertEqual((tally.bad_elsewhere, tally.contradicted), (0, 0))
        story.each(OLD, range(3, 41))
        self.assertEqual((story.tally().failed, story.tally().contradicted), (40, 0))

    def test_a_device_that_downloads_again_from_elsewhere_has_failed(self):
        for devices_proven, failed in ((False, 0), (True, 40)):
            with self.subTest(devices_proven=devices_proven):
                story = HomesStory(40, 40, devices_proven=devices_proven)
                story.each(None)
                for number in story.devices:
                    story.begin(number, address=f"192.0.2.{number}")
                self.assertEqual(story.tally().failed, failed)

    def test_all_that_are_at_one_address_count_and_may_halt_it(self):
        story = ShareTest().chosen(1.0, devices_proven=True)
        tally = story.feedback.tally(0)
        self.assertEqual((tally.failed, tally.surplus, tally.overall), (20, 0, tally.whole))

    def test_a_checkpoint_of_the_other_way_is_not_used(self):
        content = HomesStory(1).feedback.dump()
        with self.assertRaises(BadCheckpoint):
            HomesStory(1, devices_proven=True).feedback.load(content)


if __name__ == "__main__":
    unittest.main()
