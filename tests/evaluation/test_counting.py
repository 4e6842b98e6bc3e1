"""Evidence: which devices count, and how much one address may decide."""

import unittest
from collections import Counter

from ota_server.evaluation.contested import capped
from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.scope import RolloutScope
from ota_server.model.address import address_of, source_of
from tests.support.story import DAY_MINUTES, OLD, PLAN, RELEASE, START_MS, Story, mac


class OldEnoughTest(unittest.TestCase):
    def born(self, minutes: float, count_new: bool = False, **fields: object) -> Story:
        """Return a story in which a device is first heard of so long before the start."""
        story = Story(PLAN._replace(count_new=count_new))
        story.feedback.observe({"event": "snapshot"})
        now, story.now = story.now, -minutes
        story.check(500, told=None, **fields)
        story.now = now
        story.check(500)
        return story

    def test_only_devices_known_for_24_hours_before_the_start_count(self):
        for minutes, too_new in ((DAY_MINUTES + 1, 0), (DAY_MINUTES - 1, 1), (0, 1), (-5, 1)):
            with self.subTest(minutes=minutes):
                tally = self.born(minutes).tally()
                self.assertEqual((tally.too_new, tally.active), (too_new, 1 - too_new))

    def test_count_new_counts_them_all(self):
        self.assertEqual(self.born(0, count_new=True).tally().active, 1)

    def test_a_time_in_its_first_record_shows_how_old_it_is(self):
        story = self.born(5, update_time="2020-01-01T00:00:00.000Z")
        self.assertEqual(story.tally().active, 1)

    def test_a_device_that_was_known_before_what_is_kept_of_the_journal_counts(self):
        for head, active in ((True, 1), (False, 0)):
            with self.subTest(head=head):
                story = Story()
                if not head:
                    story.feedback.observe({"event": "snapshot"})
                story.tell("device", 500)
                story.check(500)
                self.assertEqual(story.tally().active, active)

    def test_devices_that_do_not_count_are_neither_failures_nor_updates(self):
        story = self.born(0)
        story.download(500)
        story.begin(500)
        tally = story.tally()
        self.assertEqual((tally.too_new, tally.failed, tally.overall.base), (1, 0, 0))


class StuckTest(unittest.TestCase):
    """Who keeps a small wave of three from going on; they poll every four hours."""

    LATE_MINUTES = 9 * 60 + 5  # two gaps, and the soak of an hour; a gap is known roughly

    def small_wave(self, soak_hours: float = 1.0) -> Story:
        """Return a story whose wave has been open for long, and that nobody has been offered."""
        story = Story(PLAN._replace(soak_seconds=soak_hours * 3600.0), devices=3)
        story.known = story.known._replace(members=frozenset(map(mac, story.devices)))
        story.feedback.change(story.plan, story.known)
        for _ in range(4):
            for number in story.devices:
                story.check(number, told=OLD)
            story.wait(200)
        return story

    def test_devices_that_never_move_are_named(self):
        story = self.small_wave()
        story.wait(self.LATE_MINUTES)
        self.assertEqual(set(story.tally().stuck.values()), {"waiting"})

    def test_devices_of_a_product_are_named_within_it_and_a_person_goes_on_without_them(self):
        story = self.small_wave()
        story.wait(self.LATE_MINUTES)
        members = frozenset(f"plug/{mac(number)}" for number in story.devices)
        scope = story.known._replace(members=members, product="plug")
        feedback = Feedback(story.plan, scope, 0, START_MS)
        for record in story.records:
            feedback.observe({**record, "product": "plug"})
        named = set(map(mac, story.devices))
        self.assertEqual(set(feedback.tally(story.now_ms).stuck), named)
        self.assertEqual(feedback.tally(story.now_ms, named).stuck, {})

    def test_devices_in_their_soak_are_not_however_long_the_wave_has_been_open(self):
        story = self.small_wave()
        for number in story.devices:
            story.update(number)
        for minutes, named in ((1, 0), (self.LATE_MINUTES - 15, 0), (80, 3)):
            story.wait(minutes)
            self.assertEqual(len(story.tally().stuck), named)

    def test_nor_while_nobody_at_all_is_heard_from(self):
        story = self.small_wave(soak_hours=16)
        for number in story.devices:
            story.update(number)
        for hours, named in ((14, 0), (18, 3)):
            story.now += hours * 60
            self.assertEqual(len(story.tally().stuck), named)

    def test_nor_after_a_clock_that_jumped_has_begun_their_soak_again(self):
        story = self.small_wave()
        for number in story.devices:
            story.update(number)
        story.wait(50)
        story.feedback.note_clock_jump(story.now_ms)
        for minutes, named in ((self.LATE_MINUTES - 15, 0), (80, 3)):
            story.wait(minutes)
            self.assertEqual(len(story.tally().stuck), named)

    def test_devices_that_have_just_begun_to_move_are_on_their_way(self):
        for move in (Story.check, Story.begin, Story.download):
            with self.subTest(move):
                story = self.small_wave()
                story.wait(self.LATE_MINUTES)
                for number in story.devices:
                    move(story, number)
                self.assertEqual(story.tally().stuck, {})


class CappedTest(unittest.TestCase):
    def test_no_address_gives_more_than_a_quarter(self):
        for counts, expected in (
            ((1,) * 20, 20),
            ((5, 5, 5, 5), 20),
            ((20, *(1,) * 12), 16),
            ((20, 1, 1), 3),
            ((20,), 1),
            ((100, 100), 2),
            ((1, 1, 1), 3),
            ((), 0),
        ):
            with self.subTest(counts=counts):
                devices = Counter(dict(enumerate(counts)))
                self.assertEqual(capped(devices, ()), expected)

    def test_a_free_one_gives_all_that_it_has(self):
        devices = Counter({7: 20, 1: 1, 2: 9})
        self.assertEqual(capped(devices, {7}), 20 + 7 + 1)

    def test_a_site_is_told_as_the_address_or_the_network_of_one_host(self):
        for address, told in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::7", "2001:db8::/64"),
            ("nowhere", "an unknown address"),
        ):
            with self.subTest(address):
                self.assertEqual(address_of(source_of(address)), told)

    def test_sites_are_addresses_and_networks_of_one_host(self):
        self.assertEqual(source_of("192.0.2.1"), 0xC0000201)
        self.assertEqual(source_of("2001:db8::1"), source_of("2001:db8::ffff:2"))
        self.assertNotEqual(source_of("2001:db8::1"), source_of("2001:db8:0:1::1"))
        for odd in ("", "256.1.1.1", "1.2.3", "x", "²", "\ud800", "1.1.1.0000000000001"):
            with self.subTest(odd):
                self.assertIsInstance(source_of(odd), int)


class ReachTest(unittest.TestCase):
    def test_it_is_all_devices_on_record_that_count_heard_from_or_not(self):
        story = Story(PLAN, devices=40)
        story.feedback.open_wave(0, story.now_ms)
        story.check(2)
        tally = story.tally()
        self.assertEqual((tally.active, tally.reach), (1, 40))
        story.feedback.observe({"event": "snapshot"})
        story.tell("device", 41)  # too new to count
        story.feedback.change(PLAN, story.known._replace(left_out=frozenset({mac(3)})))
        self.assertEqual(story.tally().reach, 39)


class SoakedTest(unittest.TestCase):
    def test_a_device_has_soaked_once_it_is_heard_from_after_the_soak(self):
        story = Story()
        story.update(1)
        story.wait(59)
        story.check(1, RELEASE)
        self.assertEqual(story.tally().soaked, 0)
        story.wait(2)
        self.assertEqual(story.tally().soaked, 0)
        story.check(1, RELEASE)
        self.assertEqual(story.tally().soaked, 1)


class CohortTest(unittest.TestCase):
    def tally(self, known: RolloutScope, wave: int) -> tuple[int, int]:
        plan = PLAN._replace(waves=(10.0, 100.0), first_group="canary", count_new=True)
        feedback = Feedback(plan, known, wave, START_MS)
        story = Story()
        story.feedback, story.now = feedback, 1.0
        for number in range(1, 201):
            story.check(number, OLD)
        tally = story.tally()
        return tally.active, tally.fresh

    def test_a_wave_holds_those_of_the_waves_before_and_its_own(self):
        known = RolloutScope(first_group=frozenset({mac(1), mac(2)}))
        counts = [self.tally(known, wave) for wave in range(3)]
        self.assertEqual((counts[0], counts[2][0]), ((2, 2), 200))
        self.assertAlmostEqual(counts[1][0], 22, delta=12)
        self.assertEqual(counts[1][1], counts[1][0] - 2)


class GroupTest(unittest.TestCase):
    def test_devices_that_the_rollout_does_not_reach_are_not_counted(self):
        plan = PLAN._replace(count_new=True)
        for known, active in (
            (RolloutScope(), 3),
            (RolloutScope(members=frozenset({mac(1)})), 1),
            (RolloutScope(left_out=frozenset({mac(1), mac(2)})), 1),
        ):
            with self.subTest(active=active):
                story = Story()
                story.feedback, story.now = Feedback(plan, known, 0, START_MS), 1.0
                for number in (1, 2, 3):
                    story.check(number)
                self.assertEqual(story.tally().active, active)

    def test_a_group_that_changes_is_taken_up(self):
        story = Story()
        story.check(1)
        story.check(2)
        story.feedback.change(PLAN, story.known._replace(left_out=frozenset({mac(1)})))
        self.assertEqual(story.tally().active, 1)
