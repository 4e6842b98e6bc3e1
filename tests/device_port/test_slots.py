"""Places for downloads: never more than there are, and nobody waits for ever."""

import heapq
import random
import unittest

from ota_server.device_port.slots import RESERVED_SECONDS, SOON_SECONDS, Places


def mac(number: int) -> str:
    return number.to_bytes(6).hex(":")


A, B, C, D = map(mac, range(1, 5))


class PlaceTest(unittest.TestCase):
    def test_who_comes_when_all_places_are_taken_is_refused(self):
        places = Places(2)
        self.assertEqual([places.ask(each, 0.0) for each in (A, B, C)], [True, True, False])

    def test_a_device_that_asks_twice_has_one_place(self):
        places = Places(2)
        self.assertEqual([places.ask(each, 0.0) for each in (A, A, A, B)], [True] * 4)

    def test_a_place_that_is_not_used_is_kept_for_a_minute(self):
        places = Places(1)
        places.ask(A, 0.0)
        self.assertFalse(places.ask(B, RESERVED_SECONDS - 0.1))
        self.assertTrue(places.ask(B, RESERVED_SECONDS))

    def test_a_place_is_kept_for_as_long_as_a_transfer_runs(self):
        places = Places(1)
        places.begin(A, 0.0)
        self.assertFalse(places.ask(B, 100 * RESERVED_SECONDS))

    def test_a_whole_download_frees_its_place_at_once(self):
        places = Places(1)
        places.begin(A, 0.0)
        places.end(A, 5.0, is_last=True)
        self.assertTrue(places.ask(B, 5.0))

    def test_a_download_that_was_cut_keeps_its_place_for_a_minute(self):
        places = Places(1)
        places.begin(A, 0.0)
        places.end(A, 500.0, is_last=False)
        self.assertFalse(places.ask(B, 500.0 + RESERVED_SECONDS - 0.1))
        self.assertTrue(places.begin(A, 500.0 + RESERVED_SECONDS - 0.1))

    def test_the_parts_of_one_image_keep_one_place_until_all_have_ended(self):
        places = Places(1)
        for _ in range(3):
            self.assertTrue(places.begin(A, 0.0))
        places.end(A, 1.0, is_last=True)  # the last part is the first to be there
        places.end(A, 2.0, is_last=False)
        self.assertFalse(places.ask(B, 2.0))
        places.end(A, 3.0, is_last=False)
        self.assertTrue(places.ask(B, 3.0))

    def test_parts_one_after_the_other_keep_the_place(self):
        places = Places(1)
        for second in range(0, 1000, 50):
            self.assertTrue(places.begin(A, float(second)))
            places.end(A, second + 1.0, is_last=False)
            self.assertFalse(places.ask(B, second + 2.0))


class UnusedTest(unittest.TestCase):
    """Who asks and asks, and never begins, keeps nobody out."""

    def test_asking_again_does_not_keep_a_place_that_was_never_used(self):
        places = Places(1)
        for second in range(0, 60, 20):
            self.assertTrue(places.ask(A, float(second)))
        self.assertTrue(places.ask(B, RESERVED_SECONDS))

    def test_asking_again_keeps_the_place_of_a_download_that_was_cut_once(self):
        places = Places(1)
        places.begin(A, 0.0)
        places.end(A, 10.0, is_last=False)
        for second in (50.0, 100.0):
            self.assertTrue(places.ask(A, second))
            self.assertFalse(places.ask(B, second))
        self.assertTrue(places.ask(B, 50.0 + RESERVED_SECONDS))

    def test_who_let_a_place_lapse_goes_behind_one_that_was_refused(self):
        places = Places(1)
        self.assertTrue(places.ask(A, 0.0))
        self.assertFalse(places.ask(B, 1.0))
        self.assertFalse(places.ask(A, RESERVED_SECONDS))
        self.assertTrue(places.ask(B, RESERVED_SECONDS + 1.0))

    def test_where_nobody_else_wants_a_place_it_has_it_again(self):
        places = Places(1)
        for number in range(10):
            self.assertTrue(places.ask(A, number * RESERVED_SECONDS))

    def test_a_transfer_makes_good_for_a_place_that_lapsed(self):
        places = Places(2)
        places.ask(A, 0.0)
        self.assertTrue(places.begin(A, RESERVED_SECONDS))
        places.end(A, RESERVED_SECONDS + 1.0, is_last=True)
        places.begin(B, 70.0)
        places.begin(C, 70.0)
        self.assertFalse(places.ask(D, 71.0))
        places.end(B, 72.0, is_last=True)
        self.assertTrue(places.ask(A, 73.0))

    def test_one_address_has_a_quarter_of_the_unused_places_while_another_wants_some(self):
        places = Places(8)
        self.assertTrue(all(places.ask(mac(n), 0.0, site=1) for n in range(8)))
        self.assertFalse(places.ask(mac(100), 1.0, site=2))
        again = [places.ask(mac(n), RESERVED_SECONDS, site=1) for n in range(20, 28)]
        self.assertEqual(again.count(True), 2)
        others = [places.ask(mac(100 + n), RESERVED_SECONDS, site=2) for n in range(8)]
        self.assertEqual(others.count(True), 2)

    def test_places_that_are_used_are_not_counted_to_the_share_of_an_address(self):
        places = Places(4)
        for number in range(4):
            self.assertTrue(places.begin(mac(number), 0.0, site=1))
        self.assertFalse(places.ask(mac(100), 1.0, site=2))
        for number in range(2):
            places.end(mac(number), 2.0, is_last=True)
        self.assertEqual([places.ask(mac(n), 3.0, site=1) for n in (10, 11)], [True, False])

    def test_who_lets_places_lapse_does_not_count_as_wanting_some(self):
        places = Places(8)
        for number in range(8):
            places.ask(mac(number), 0.0, site=1)
        self.assertFalse(places.ask(mac(100), 1.0, site=2))
        places.ask(mac(0), RESERVED_SECONDS + 1.0, site=1)
        others = [places.ask(mac(100 + n), RESERVED_SECONDS + 2.0, site=2) for n in range(7)]
        self.assertEqual(others.count(True), 7)

    def test_devices_that_never_begin_keep_others_out_for_a_minute_alone(self):
        places = Places(5)
        told: dict[str, int] = {}
        for second in range(0, 600, 20):
            for number in range(5):
                places.ask(mac(1000 + number), float(second), site=1)
            for number in range(10):
                if mac(number) not in told and places.begin(mac(number), float(second), site=2):
                    told[mac(number)] = second
                    places.end(mac(number), second + 5.0, is_last=True)
        self.assertEqual(len(told), 10)
        self.assertLessEqual(max(told.values()), 120)


class TurnTest(unittest.TestCase):
    """Who was refused three times goes before those that were refused less."""

    def refused(self, times: int, most_refused: int = 1000) -> Places:
        """Return places with one taken by A, and B refused so often, once a minute."""
        places = Places(1, most_refused)
        places.begin(A, 0.0)
        for number in range(times):
            self.assertFalse(places.ask(B, number * 60.0))
        return places

    def test_a_free_place_is_left_to_a_device_that_was_refused_three_times_and_comes_soon(self):
        places = self.refused(3)  # the last time at 120 s
        places.end(A, 175.0, is_last=True)
        self.assertFalse(places.ask(C, 175.0))
        self.assertTrue(places.ask(B, 180.0))

    def test_two_refusals_are_not_enough(self):
        places = self.refused(2)
        places.end(A, 119.0, is_last=True)
        self.assertTrue(places.ask(C, 119.0))

    def test_until_it_comes_soon_others_have_the_place(self):
        places = self.refused(3)
        places.end(A, 121.0, is_last=True)
        self.assertTrue(places.ask(C, 121.0))

    def test_one_that_never_comes_again_blocks_nothing(self):
        places = self.refused(3)
        places.end(A, 175.0, is_last=True)
        self.assertFalse(places.ask(C, 180.0 + SOON_SECONDS))
        self.assertTrue(places.ask(C, 180.0 + 2 * SOON_SECONDS))

    def test_who_was_refused_six_times_goes_before_who_was_three_times(self):
        places = Places(1)
        places.begin(A, 0.0)
        for number in range(6):
            places.ask(B, number * 60.0)
            if number >= 3:
                places.ask(C, number * 60.0)
        places.end(A, 355.0, is_last=True)
        self.assertFalse(places.ask(C, 359.0))
        self.assertTrue(places.ask(B, 360.0))

    def test_with_a_place_the_refusals_are_forgotten(self):
        places = self.refused(3)
        places.end(A, 180.0, is_last=True)
        self.assertTrue(places.begin(B, 180.0))
        places.end(B, 181.0, is_last=True)
        self.assertEqual(places.waiting, 0)
        self.assertTrue(places.ask(C, 181.0))

    def test_the_table_of_the_refused_is_bounded_and_drops_the_oldest(self):
        places = self.refused(3, most_refused=2)
        places.ask(C, 121.0)
        places.ask(D, 122.0)
        self.assertEqual(places.waiting, 2)
        places.end(A, 179.0, is_last=True)
        self.assertTrue(places.ask(C, 179.0))  # B is not known to come


class Fleet:
    """Devices that poll by their own rhythm, and download when they have a place."""

    def __init__(self, seed: int, limit: int, seconds: float, devices: int, again: bool) -> None:
        self.source = random.Random(seed)
        self.places = Places(limit)
        self.seconds = seconds
        self.again = again  # a device that has it wants it anew: the load never ends
        self.running: dict[str, int] = {}
        self.most = 0
        self.longest: dict[str, int] = {}
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
            assert self.places.downloading == len(self.running)

    def later(self, at: float, each: str, what: str) -> None:
        heapq.heappush(self.events, (at, each, what))

    def poll(self, each: str, now: float) -> None:
        self.later(now + self.gaps[each] * self.source.uniform(0.99, 1.01), each, "poll")
        if each in self.running or (each in self.served and not self.again):
            return
        if self.places.ask(each, now):
            self.refusals[each] = 0
            if self.source.random() < 0.95:  # some are offered it and never ask
                self.later(now + self.source.uniform(0.1, 90.0), each, "download")
        else:
            self.refusals[each] = self.refusals.get(each, 0) + 1
            self.longest[each] = max(self.longest.get(each, 0), self.refusals[each])

    def download(self, each: str, now: float) -> None:
        if self.places.begin(each, now):
            self.running[each] = self.running.get(each, 0) + 1
            self.later(now + self.source.expovariate(1 / self.seconds), each, "end")

    def end(self, each: str, now: float) -> None:
        is_whole = self.source.random() < 0.8
        self.places.end(each, now, is_whole)
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

    def test_under_a_load_that_never_ends_nobody_is_refused_for_ever(self):
        for seed in range(3):
            with self.subTest(seed=seed):
                # Twice as many want to download as there is room for, and most come each minute.
                fleet = Fleet(seed, limit=3, seconds=10.0, devices=40, again=True)
                fleet.run(72 * 3600.0)
                self.assertEqual(len(fleet.served), 40)
                self.assertLess(max(fleet.longest.values()), 60)
