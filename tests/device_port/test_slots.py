"""Download slots: never more than there are, and nobody waits for ever."""

import heapq
import itertools
import random
import unittest

from ota_server.device_port.slots import (
    BEHIND_SECONDS,
    RESERVED_SECONDS,
    WAITING_FOR_FEW_SECONDS,
    WAITING_SECONDS,
    DownloadSlots,
)
from ota_server.model.identity import number_of


def mac(number: int) -> str:
    return number.to_bytes(6).hex(":")


A, B, C, D = map(mac, range(1, 5))


class FirstComeTest(unittest.TestCase):
    """A slot is for whoever asks first."""

    def test_who_comes_when_all_slots_are_taken_is_refused(self):
        slots = DownloadSlots(2)
        self.assertEqual([slots.ask(each, 0.0) for each in (A, B, C)], [True, True, False])

    def test_a_device_that_asks_twice_has_one_slot(self):
        slots = DownloadSlots(2)
        self.assertEqual([slots.ask(each, 0.0) for each in (A, A, A, B)], [True] * 4)

    def test_a_free_slot_goes_to_whoever_asks_first(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0)
        self.assertFalse(slots.ask(B, 1.0))
        slots.end(A, 2.0, is_last=True)
        self.assertTrue(slots.ask(C, 2.0))


class SlowTest(unittest.TestCase):
    """Who reads slowly holds no slot for ever while others wait."""

    def test_a_download_that_takes_too_long_goes_on_and_its_slot_is_free_for_others(self):
        slots = DownloadSlots(2)
        for each in (A, B):
            slots.begin(each, 0.0, size=400 * 4096)
        self.assertFalse(slots.ask(C, 459.0))
        self.assertTrue(slots.ask(C, 460.0))
        self.assertTrue(slots.begin(C, 461.0, size=4096))
        self.assertTrue(slots.begin(D, 461.0, size=4096))
        self.assertFalse(slots.ask("02:00:00:00:00:09", 462.0))
        # The slow ones end, and nothing is counted twice.
        for each in (A, B):
            slots.end(each, 470.0, is_last=True)
        self.assertFalse(slots.ask("02:00:00:00:00:09", 471.0))
        slots.end(C, 472.0, is_last=True)
        self.assertTrue(slots.ask("02:00:00:00:00:09", 473.0))

    def test_while_nobody_waits_it_keeps_its_slot(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0, size=4096)
        self.assertFalse(slots.has_free_slot(10_000.0))
        self.assertTrue(slots.has(A, 10_000.0))


class EndTest(unittest.TestCase):
    """A device that went away frees its slot, and one that downloads keeps it."""

    def test_a_slot_that_is_not_used_ends_after_a_minute(self):
        slots = DownloadSlots(1)
        slots.ask(A, 0.0)
        self.assertFalse(slots.ask(B, RESERVED_SECONDS - 0.1))
        self.assertTrue(slots.ask(B, RESERVED_SECONDS))

    def test_asking_again_does_not_keep_a_slot_that_was_never_used(self):
        slots = DownloadSlots(1)
        for second in range(0, 60, 20):
            self.assertTrue(slots.ask(A, float(second)))
        self.assertTrue(slots.ask(B, RESERVED_SECONDS))

    def test_a_slot_is_kept_for_as_long_as_a_transfer_runs(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0)
        self.assertFalse(slots.ask(B, 100 * RESERVED_SECONDS))

    def test_a_whole_download_frees_its_slot_at_once(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0)
        slots.end(A, 5.0, is_last=True)
        self.assertTrue(slots.ask(B, 5.0))

    def test_a_download_that_was_cut_keeps_its_slot_for_a_minute(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0)
        slots.end(A, 500.0, is_last=False)
        self.assertFalse(slots.ask(B, 500.0 + RESERVED_SECONDS - 0.1))
        self.assertTrue(slots.begin(A, 500.0 + RESERVED_SECONDS - 0.1))

    def test_asking_again_keeps_the_slot_of_a_download_that_was_cut_once(self):
        slots = DownloadSlots(1)
        slots.begin(A, 0.0)
        slots.end(A, 10.0, is_last=False)
        for second in (50.0, 100.0):
            self.assertTrue(slots.ask(A, second))
            self.assertFalse(slots.ask(B, second))
        self.assertTrue(slots.ask(B, 50.0 + RESERVED_SECONDS))

    def test_the_parts_of_one_image_keep_one_slot_until_all_have_ended(self):
        slots = DownloadSlots(1)
        for _ in range(3):
            self.assertTrue(slots.begin(A, 0.0))
        slots.end(A, 1.0, is_last=True)  # the last part is the first to be there
        slots.end(A, 2.0, is_last=False)
        self.assertFalse(slots.ask(B, 2.0))
        slots.end(A, 3.0, is_last=False)
        self.assertTrue(slots.ask(B, 3.0))

    def test_parts_one_after_the_other_keep_the_slot(self):
        slots = DownloadSlots(1)
        for second in range(0, 1000, 50):
            self.assertTrue(slots.begin(A, float(second)))
            slots.end(A, second + 1.0, is_last=False)
            self.assertFalse(slots.ask(B, second + 2.0))


class KeptTest(unittest.TestCase):
    """A quarter of the slots is kept for devices that were refused three times or more."""

    def refused(self, times: int, devices: int = 1, limit: int = 8) -> DownloadSlots:
        """Return slots that are all in use, with devices from 100 on that were refused so often."""
        slots = DownloadSlots(limit)
        for number in range(limit):
            self.assertTrue(slots.begin(mac(number), 0.0))
        for time_ in range(times):
            for number in range(devices):
                self.assertFalse(slots.ask(mac(100 + number), float(time_)))
        return slots

    def free(self, slots: DownloadSlots, count: int, at: float = 10.0) -> None:
        for number in range(count):
            slots.end(mac(number), at, is_last=True)

    def count(self, slots: DownloadSlots, at: float = 10.0) -> int:
        """Return how many new devices find a slot."""
        return sum(slots.ask(mac(200 + number), at) for number in range(20))

    def test_a_quarter_is_left_free_for_those_that_were_refused_three_times(self):
        slots = self.refused(3, devices=5)
        self.free(slots, 6)
        self.assertEqual(self.count(slots), 4)
        self.assertTrue(slots.ask(mac(100), 10.0))
        self.assertTrue(slots.ask(mac(101), 10.0))

    def test_a_new_device_is_said_to_find_a_slot_for_as_long_as_one_does(self):
        slots = self.refused(3, devices=5)
        self.free(slots, 6)
        for number in range(20):
            is_free = slots.has_free_slot(10.0)
            self.assertEqual(slots.ask(mac(200 + number), 10.0), is_free)

    def test_two_refusals_are_not_enough(self):
        slots = self.refused(2, devices=5)
        self.free(slots, 6)
        self.assertEqual(self.count(slots), 6)

    def test_no_more_slots_are_kept_than_devices_wait_for_them(self):
        slots = self.refused(3, devices=1)
        self.free(slots, 6)
        self.assertEqual(self.count(slots), 5)

    def test_who_was_refused_three_times_may_have_any_free_slot(self):
        slots = self.refused(3, devices=5)
        self.free(slots, 4)
        self.assertTrue(all(slots.ask(mac(100 + number), 10.0) for number in range(4)))

    def test_a_new_device_that_finds_kept_slots_alone_has_its_own_at_the_fourth_time(self):
        slots = self.refused(3, devices=2)  # which never come again
        self.free(slots, 2)
        self.assertEqual([slots.ask(mac(200), 10.0) for _ in range(4)], [False] * 3 + [True])

    def test_with_a_slot_the_refusals_are_forgotten(self):
        slots = self.refused(3)
        self.free(slots, 1)
        self.assertTrue(slots.begin(mac(100), 10.0))
        slots.end(mac(100), 11.0, is_last=True)
        self.assertEqual(slots.refused, 0)
        self.assertTrue(slots.ask(C, 11.0))

    def test_no_slot_is_kept_for_a_device_that_has_not_asked_for_two_hours(self):
        slots = self.refused(3, devices=2)
        self.free(slots, 2, at=2.0 + WAITING_SECONDS)
        self.assertEqual(self.count(slots, at=2.0 + WAITING_SECONDS), 2)

    def test_refusals_are_known_though_a_device_has_not_asked_for_two_hours(self):
        slots = DownloadSlots(4)
        for number in range(4):
            slots.begin(mac(number), 0.0)
        for day in range(3):  # A polls once a day
            self.assertFalse(slots.ask(mac(100), 86400.0 * day))
        for minute in range(3):  # and B each minute
            self.assertFalse(slots.ask(mac(101), 3 * 86400.0 - 60.0 * (3 - minute)))
        slots.end(mac(0), 3 * 86400.0 - 1.0, is_last=True)
        self.assertFalse(slots.ask(mac(102), 3 * 86400.0 - 1.0))
        self.assertTrue(slots.ask(mac(100), 3 * 86400.0))

    def test_of_fewer_than_four_slots_one_is_kept(self):
        for limit in (1, 2, 3):
            with self.subTest(limit):
                slots = self.refused(3, devices=3, limit=limit)
                self.free(slots, limit)
                self.assertEqual(self.count(slots), limit - 1)

    def test_kept_slots_are_left_to_those_that_were_refused_six_times(self):
        slots = self.refused(6, devices=1)
        for second in range(3):
            self.assertFalse(slots.ask(mac(300), 6.0 + second))
        self.free(slots, 1)
        self.assertFalse(slots.ask(mac(300), 10.0))
        self.assertTrue(slots.ask(mac(100), 10.0))

    def test_devices_that_never_come_again_keep_a_new_one_out_for_six_polls_at_most(self):
        slots = self.refused(100, limit=1)
        self.free(slots, 1, at=100.0)
        found = [slots.ask(mac(200), 100.0 + 10.0 * poll) for poll in range(7)]
        self.assertEqual(found, [False] * 6 + [True])

    def test_of_few_slots_none_is_kept_for_a_device_that_has_not_asked_for_five_minutes(self):
        for limit in (1, 2, 3):
            slots = self.refused(7, limit=limit)
            self.free(slots, limit, at=7.0)
            last = 6.0 + WAITING_FOR_FEW_SECONDS
            with self.subTest(limit=limit):
                # A new name each time: nobody has been refused before.
                found = [slots.ask(mac(200 + n), 8.0 + n) for n in range(limit)]
                self.assertEqual(found, [True] * (limit - 1) + [False])
                self.assertTrue(slots.ask(mac(400), last + RESERVED_SECONDS))

    def test_the_table_of_the_refused_is_bounded_and_drops_the_oldest(self):
        slots = DownloadSlots(2, most_refused=2)
        slots.begin(mac(100), 0.0)
        slots.begin(mac(101), 0.0)
        for second in range(3):
            self.assertFalse(slots.ask(A, float(second)))
        self.assertFalse(slots.ask(B, 3.0))
        self.assertFalse(slots.ask(C, 4.0))
        self.assertEqual(slots.refused, 2)
        slots.end(mac(100), 5.0, is_last=True)
        self.assertTrue(slots.ask(D, 5.0))  # nothing is kept for A


class BehindTest(unittest.TestCase):
    """A device that did not use its slot goes behind the others, once."""

    def unused(self, limit: int = 1, waiting: int = 1) -> DownloadSlots:
        """Return free slots: A did not use one, while B, and others, were refused at 1 s."""
        slots = DownloadSlots(limit)
        self.assertTrue(slots.ask(A, 0.0))
        for number in range(1, limit):
            self.assertTrue(slots.begin(mac(100 + number), 0.0))
        self.assertFalse(slots.ask(B, 1.0))
        for number in range(1, waiting):
            self.assertFalse(slots.ask(mac(300 + number), 1.0))
        for number in range(1, limit):
            slots.end(mac(100 + number), RESERVED_SECONDS, is_last=True)
        return slots

    def test_it_leaves_a_free_slot_to_a_device_that_was_refused(self):
        slots = self.unused()
        self.assertFalse(slots.ask(A, RESERVED_SECONDS))
        self.assertTrue(slots.ask(B, RESERVED_SECONDS + 1.0))

    def test_a_download_without_a_check_is_behind_too(self):
        slots = self.unused()
        self.assertFalse(slots.begin(A, RESERVED_SECONDS))

    def test_it_may_have_a_slot_where_more_are_free_than_devices_wait(self):
        slots = self.unused(limit=2)
        self.assertTrue(slots.ask(A, RESERVED_SECONDS))
        self.assertTrue(slots.ask(B, RESERVED_SECONDS))

    def test_where_nobody_else_wants_a_slot_it_has_it_again(self):
        slots = DownloadSlots(1)
        for number in range(10):
            self.assertTrue(slots.ask(A, number * RESERVED_SECONDS))

    def test_it_is_behind_until_as_many_have_begun_as_waited(self):
        slots = self.unused()
        self.assertFalse(slots.ask(A, RESERVED_SECONDS))
        slots.begin(C, 61.0)
        self.assertFalse(slots.ask(B, 61.5))
        slots.end(C, 62.0, is_last=True)
        self.assertTrue(slots.ask(A, 62.0))  # though B waits still

    def test_devices_that_do_not_begin_do_not_count_as_others_that_went_first(self):
        slots = self.unused()
        self.assertTrue(slots.ask(C, RESERVED_SECONDS))
        self.assertFalse(slots.ask(A, 2 * RESERVED_SECONDS))

    def test_it_is_behind_for_half_an_hour_at_most(self):
        slots = self.unused(limit=4, waiting=4)
        for second in range(60, 60 + int(BEHIND_SECONDS), 60):
            self.assertFalse(slots.ask(A, float(second)))
        self.assertTrue(slots.ask(A, RESERVED_SECONDS + BEHIND_SECONDS))

    def test_no_slot_is_kept_for_a_device_that_is_behind(self):
        slots = self.unused(limit=1)
        for _ in range(5):
            self.assertFalse(slots.ask(A, RESERVED_SECONDS))
        self.assertEqual(slots.refused, 1)

    def test_a_device_that_was_behind_and_uses_its_slot_is_like_any_other(self):
        slots = self.unused(limit=2)
        self.assertTrue(slots.begin(A, RESERVED_SECONDS))
        slots.end(A, 61.0, is_last=True)
        slots.begin(C, 62.0)
        slots.begin(D, 62.0)
        self.assertFalse(slots.ask(B, 63.0))
        slots.end(C, 64.0, is_last=True)
        self.assertTrue(slots.ask(A, 65.0))

    def test_the_table_of_those_behind_is_bounded(self):
        slots = DownloadSlots(2, most_refused=1)
        slots.ask(A, 0.0)
        slots.ask(B, 1.0)
        slots.ask(C, 2.0)
        slots.ask(D, 2.0)
        self.assertTrue(slots.ask(A, 61.0))  # forgotten for B


class AddressTest(unittest.TestCase):
    """One host that asks by many names keeps nobody out."""

    def test_one_address_has_a_quarter_of_the_unused_slots_while_another_wants_some(self):
        slots = DownloadSlots(8)
        self.assertTrue(all(slots.ask(mac(n), 0.0, address=1) for n in range(8)))
        self.assertFalse(slots.ask(mac(100), 1.0, address=2))
        again = [slots.ask(mac(n), RESERVED_SECONDS, address=1) for n in range(20, 28)]
        self.assertEqual(again.count(True), 2)
        others = [slots.ask(mac(100 + n), RESERVED_SECONDS, address=2) for n in range(8)]
        self.assertEqual(others.count(True), 6)

    def test_slots_that_are_used_are_not_counted_to_the_share_of_an_address(self):
        slots = DownloadSlots(4)
        for number in range(4):
            self.assertTrue(slots.begin(mac(number), 0.0, address=1))
        self.assertFalse(slots.ask(mac(100), 1.0, address=2))
        for number in range(2):
            slots.end(mac(number), 2.0, is_last=True)
        self.assertEqual([slots.ask(mac(n), 3.0, address=1) for n in (10, 11)], [True, False])

    def test_a_device_that_is_behind_does_not_count_as_wanting_a_slot(self):
        slots = DownloadSlots(8)
        for number in range(8):
            slots.ask(mac(number), 0.0, address=1)
        for number in range(8):
            self.assertFalse(slots.ask(mac(100 + number), 1.0, address=2))
        self.assertFalse(slots.ask(mac(0), RESERVED_SECONDS + 1.0, address=1))
        others = [slots.ask(mac(100 + n), RESERVED_SECONDS + 2.0, address=2) for n in range(8)]
        self.assertEqual(others.count(True), 8)

    def test_no_slot_is_kept_for_an_address_that_has_its_share(self):
        slots = DownloadSlots(8)
        for number in range(8):
            slots.ask(mac(number), 0.0, address=1)
        self.assertFalse(slots.ask(mac(100), 1.0, address=2))
        for _ in range(3):
            for number in range(20, 28):
                slots.ask(mac(number), RESERVED_SECONDS, address=1)
        others = [slots.ask(mac(100 + n), RESERVED_SECONDS, address=2) for n in range(8)]
        self.assertEqual(others.count(True), 6)

    def test_devices_that_never_begin_keep_others_out_for_a_minute_alone(self):
        slots = DownloadSlots(5)
        told: dict[str, int] = {}
        for second in range(0, 600, 20):
            for number in range(5):
                slots.ask(mac(1000 + number), float(second), address=1)
            for number in range(10):
                if mac(number) not in told and slots.begin(mac(number), float(second), address=2):
                    told[mac(number)] = second
                    slots.end(mac(number), second + 5.0, is_last=True)
        self.assertEqual(len(told), 10)
        self.assertLessEqual(max(told.values()), 120)

    def test_names_that_are_new_each_time_leave_most_slots_to_others(self):
        slots = DownloadSlots(8)
        names = iter(range(10_000, 100_000))
        served: set[int] = set()
        for second in range(0, 1200, 5):
            for _ in range(20):
                slots.ask(mac(next(names)), float(second), address=1)
            for number in range(100):
                if number not in served and slots.begin(mac(number), float(second), address=2):
                    slots.end(mac(number), second + 4.0, is_last=True)
                    served.add(number)
        self.assertEqual(len(served), 100)


class OneAddressTest(unittest.TestCase):
    """One host that downloads by many names, slowly or again and again, leaves a quarter to others.

    Address 1 is that host, or a fleet behind one NAT; devices of address 2 want slots too.
    """

    IMAGE = 4096 * 1000  # at the slowest rate 1,000 s

    def held(self, limit: int) -> DownloadSlots:
        """Return slots that are all in use from 0 s on, at address 1."""
        slots = DownloadSlots(limit)
        for number in range(limit):
            self.assertTrue(slots.begin(mac(number), 0.0, address=1, size=self.IMAGE))
        return slots

    def served(self, slots: DownloadSlots, begin: int, end: int, hostile: int = 1) -> list[int]:
        """Return when devices were served: each comes once in ten seconds, and takes a second.

        Each second, address 1 asks by so many new names, and reads slowly what it gets.
        """
        times: list[int] = []
        for second in range(begin, end):
            for number in range(hostile):
                name = mac(10_000 + 10 * second + number)
                slots.begin(name, float(second), address=1, size=self.IMAGE)
            device = mac(500 + second % 10)
            if slots.begin(device, second + 0.1, address=2, size=self.IMAGE):
                slots.end(device, second + 0.9, is_last=True)
                times.append(second)
        return times

    def test_slow_readers_that_came_first_leave_a_quarter_after_a_minute(self):
        slots = self.held(10)
        times = self.served(slots, 1, 300)
        self.assertLessEqual(times[0], 61)
        self.assertGreater(len(times), 200)

    def test_names_that_were_refused_often_keep_nobody_at_another_address_out(self):
        slots = self.held(10)
        for second in range(1, 10):
            for number in range(100):
                slots.ask(mac(5000 + number), float(second), address=1)
        self.assertFalse(slots.ask(mac(500), 59.0, address=2))
        self.assertTrue(slots.ask(mac(500), 60.0, address=2))
        self.assertTrue(slots.ask(mac(501), 61.0, address=2))

    def test_names_that_fill_the_table_of_the_refused_keep_nobody_out_either(self):
        slots = DownloadSlots(10, most_refused=50)
        for number in range(10):
            slots.begin(mac(number), 0.0, address=1, size=self.IMAGE)
        for second in range(60):
            self.assertFalse(slots.ask(mac(500), float(second), address=2))
            for number in range(100):
                slots.ask(mac(1000 + 100 * second + number), second + 0.5, address=1)
        self.assertTrue(slots.ask(mac(500), 60.0, address=2))

    def test_of_few_slots_others_have_one(self):
        for limit in (2, 3):
            with self.subTest(limit=limit):
                times = self.served(self.held(limit), 1, 300)
                self.assertLessEqual(times[0], 61)
                self.assertGreater(len(times), 200)

    def test_a_host_that_takes_each_free_slot_at_once_keeps_others_out_for_a_minute_alone(self):
        slots = DownloadSlots(8)
        ends: dict[str, int] = {}
        served = [0]
        for second in range(600):
            for number in range(20):
                name = mac(10_000 + number)
                if ends.get(name) == second:
                    slots.end(name, float(second), is_last=True)
                    del ends[name]
                if name not in ends and slots.begin(name, float(second), address=1):
                    ends[name] = second + 50  # it is never as old as a minute
            name = mac(500 + second % 20)
            if slots.begin(name, second + 0.1, address=2):
                slots.end(name, second + 0.9, is_last=True)
                served.append(second)
        self.assertGreater(len(served), 100)
        # It has all slots again when nobody else waits; a device is refused three times, in 60 s.
        self.assertLessEqual(max(b - a for a, b in itertools.pairwise(served)), 65)

    def test_a_download_that_is_cut_and_continued_is_not_younger_for_it(self):
        slots = self.held(10)
        for second in range(10, 60, 10):
            for number in range(10):
                slots.end(mac(number), float(second), is_last=False)
                self.assertTrue(slots.begin(mac(number), float(second), address=1))
        self.assertFalse(slots.ask(mac(500), 59.0, address=2))
        self.assertTrue(slots.ask(mac(500), 60.0, address=2))

    def test_a_slot_is_taken_for_others_from_downloads_that_go_on(self):
        slots = self.held(8)
        self.assertFalse(slots.ask(mac(500), 10.0, address=2))
        self.assertFalse(slots.ask(mac(500), 59.0, address=2))
        self.assertTrue(slots.ask(mac(500), 61.0, address=2))
        self.assertTrue(all(slots.has(mac(number), 61.0) for number in range(8)))
        for number in range(8):
            slots.end(mac(number), 70.0, is_last=True)
        self.assertTrue(slots.begin(mac(500), 70.0, address=2))
        slots.end(mac(500), 71.0, is_last=True)
        # Nothing is counted twice: all slots are free again, and no more than these.
        self.assertEqual([slots.ask(mac(20 + n), 72.0) for n in range(9)], [True] * 8 + [False])

    def test_a_quarter_more_downloads_at_most_run_because_of_that(self):
        slots = self.held(8)
        most = 8
        running = {mac(number): 0 for number in range(8)}
        for second in range(1, 900):
            now = float(second)
            for name in [name for name, begun in running.items() if begun + 20 < second]:
                if number_of(name) >= 500:
                    slots.end(name, now, is_last=True)
                    del running[name]
            for name, address in ((mac(50_000 + second), 1), (mac(500 + second), 2)):
                if slots.begin(name, now, address=address, size=self.IMAGE):
                    running[name] = second
            most = max(most, len(running))
            self.assertEqual(slots.downloading, len(running))
        self.assertEqual(most, 10)

    def test_a_fleet_behind_one_nat_has_all_slots_while_nobody_else_waits(self):
        slots = self.held(8)
        for second in range(1, 2000):
            number = second % 8
            slots.end(mac(number), float(second), is_last=True)
            self.assertTrue(slots.begin(mac(number), second + 0.1, address=1))
            self.assertFalse(slots.ask(mac(100 + second), second + 0.2, address=1))
            self.assertEqual(slots.downloading, 8)

    def test_it_leaves_no_more_slots_than_devices_elsewhere_were_refused_three_times(self):
        slots = self.held(8)
        for number, times in ((500, 3), (501, 2)):
            for _ in range(times):
                self.assertFalse(slots.ask(mac(number), 1.0, address=2))
        for number in range(3):
            slots.end(mac(number), 2.0, is_last=True)
        found = [slots.begin(mac(100 + number), 3.0, address=1) for number in range(3)]
        self.assertEqual(found, [True, True, False])
        # It has had its slot, and waits no more.
        self.assertTrue(slots.begin(mac(500), 4.0, address=2))
        slots.end(mac(500), 5.0, is_last=True)
        self.assertTrue(slots.begin(mac(102), 6.0, address=1))

    def test_two_addresses_that_both_wait_do_not_keep_each_other_out(self):
        for limit in (1, 2, 3, 4, 8):
            with self.subTest(limit=limit):
                slots = self.held(limit)
                for address in (1, 2, 3):
                    for number in range(10):
                        name = mac(1000 * address + number)
                        self.assertFalse(slots.ask(name, 1.0, address=address))
                for number in range(limit):
                    slots.end(mac(number), 2.0, is_last=True)
                found = [
                    slots.begin(mac(1000 * address + number), 3.0, address=address)
                    for number in range(10)
                    for address in (1, 2, 3)
                ]
                self.assertEqual(found.count(True), limit)

    def test_the_only_slot_is_not_shared(self):
        slots = self.held(1)
        for second in range(1, 900, 20):
            self.assertFalse(slots.ask(mac(500), float(second), address=2))

    def test_nothing_is_left_behind_of_addresses_that_are_gone(self):
        slots = DownloadSlots(4)
        for number in range(1000):
            slots.ask(mac(number), 100.0 * number, address=number)
            if number % 3 == 0 and slots.begin(mac(number), 100.0 * number + 1, address=number):
                slots.end(mac(number), 100.0 * number + 2, is_last=number % 2 == 0)
        slots.has_free_slot(1e9)
        shares = slots._shares
        self.assertFalse(shares._held or shares._unused or shares._waiting_at)


class Fleet:
    """Devices that poll by their own rhythm, and download when they have a slot."""

    def __init__(self, seed: int, limit: int, seconds: float, devices: int, again: bool) -> None:
        self.source = random.Random(seed)
        self.slots = DownloadSlots(limit)
        self.seconds = seconds
        self.again = again  # a device that has it wants it anew: the load never ends
        self.running: dict[str, int] = {}
        self.most = 0
        self.longest: dict[str, int] = {}
        self.absent: set[str] = set()  # they ask, and never download
        self.coming, self.latest_seconds = 0.95, 90.0  # how many of the others come, and when
        self.served: set[str] = set()
        self.refusals: dict[str, int] = {}
        self.gaps = {mac(n): 60.0 * self.source.choice((1, 1, 5, 60)) for n in range(devices)}
        self.events = [
            (self.source.random() * gap, each, "poll") for each, gap in self.gaps.items()
        ]
        heapq.heapify(self.events)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] < until:
            now, each, what = heapq.heappop(self.events)
            getattr(self, what)(each, now)
            self.most = max(self.most, len(self.running))
            assert self.slots.downloading == len(self.running)

    def later(self, at: float, each: str, what: str) -> None:
        heapq.heappush(self.events, (at, each, what))

    def poll(self, each: str, now: float) -> None:
        self.later(now + self.gaps[each] * self.source.uniform(0.99, 1.01), each, "poll")
        if each in self.running or (each in self.served and not self.again):
            return
        if self.slots.ask(each, now):
            self.refusals[each] = 0
            if each not in self.absent and self.source.random() < self.coming:
                wait = self.source.uniform(0.1, self.latest_seconds)
                self.later(now + wait, each, "download")
        else:
            self.refusals[each] = self.refusals.get(each, 0) + 1
            self.longest[each] = max(self.longest.get(each, 0), self.refusals[each])

    def download(self, each: str, now: float) -> None:
        if self.slots.begin(each, now):
            self.running[each] = self.running.get(each, 0) + 1
            self.later(now + self.source.expovariate(1 / self.seconds), each, "end")

    def end(self, each: str, now: float) -> None:
        is_whole = self.source.random() < 0.8
        self.slots.end(each, now, is_whole)
        self.running[each] -= 1
        if not self.running[each]:
            del self.running[each]
        if is_whole:
            self.served.add(each)


class ModelTest(unittest.TestCase):
    def test_never_more_than_so_many_devices_download_at_once(self):
        for seed in range(5):
            with self.subTest(seed=seed):
                fleet = Fleet(seed, limit=5, seconds=20.0, devices=200, again=True)
                fleet.run(4 * 3600.0)
                self.assertLessEqual(fleet.most, 5)
                self.assertGreater(len(fleet.served), 100)

    def test_every_device_of_a_fleet_gets_its_download(self):
        for seed in range(5):
            with self.subTest(seed=seed):
                fleet = Fleet(seed, limit=5, seconds=5.0, devices=300, again=False)
                fleet.run(8 * 3600.0)
                self.assertEqual(len(fleet.served), 300)

    def test_under_a_load_that_never_ends_devices_that_come_in_time_wait_for_few_polls(self):
        for limit, devices in ((1, 14), (3, 40), (20, 280)):
            with self.subTest(limit=limit):
                fleet = Fleet(1, limit=limit, seconds=10.0, devices=devices, again=True)
                fleet.coming, fleet.latest_seconds = 1.0, 5.0
                fleet.run(12 * 3600.0)
                self.assertLess(max(fleet.longest.values()), 20)

    def test_devices_that_never_use_their_slots_hold_up_the_others_once(self):
        for seed in range(3):
            with self.subTest(seed=seed):
                fleet = Fleet(seed, limit=10, seconds=5.0, devices=400, again=False)
                fleet.gaps = dict.fromkeys(fleet.gaps, 60.0)
                fleet.events = [(fleet.source.random() * 60.0, each, "poll") for each in fleet.gaps]
                heapq.heapify(fleet.events)
                fleet.absent = {mac(number) for number in range(0, 400, 4)}
                fleet.coming, fleet.latest_seconds = 1.0, 5.0
                # A minute for each of the hundred in ten slots; the rest is what the others take.
                fleet.run(100 * RESERVED_SECONDS / 10 + 900.0)
                self.assertEqual(len(fleet.served), 300)

    def test_under_a_load_that_never_ends_nobody_is_refused_for_ever(self):
        for seed in range(3):
            with self.subTest(seed=seed):
                # Twice as many want to download as there is room for, and most come each minute.
                fleet = Fleet(seed, limit=3, seconds=10.0, devices=40, again=True)
                fleet.run(72 * 3600.0)
                self.assertEqual(len(fleet.served), 40)
                self.assertLess(max(fleet.longest.values()), 60)
