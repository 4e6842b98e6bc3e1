"""The waves that a rollout gets where an operator names none."""

import unittest
from collections.abc import Callable

from ota_server.evaluation.proposal import propose_waves
from ota_server.policy.decision import cohort_percent


def spread(devices: int, is_slow: Callable[[int], bool | None] = lambda _: False):
    """Return devices that stand at even distances, each in the middle of its share."""
    return [((number + 0.5) * 100 / devices, is_slow(number)) for number in range(devices)]


def hashed(devices: int, version: str = "v2.0.0", slow_of_ten: int = 0):
    """Return devices that stand where a real rollout has them."""
    macs = (f"02:00:00:{number.to_bytes(3).hex(':')}" for number in range(devices))
    stands = (cohort_percent(version, mac) for mac in macs)
    return [(stand, number % 10 < slow_of_ten) for number, stand in enumerate(stands)]


def added(stands, waves: tuple[float, ...]) -> list[int]:
    """Return how many devices each wave adds."""
    within = [sum(stand < percent for stand, _ in stands) for percent in waves]
    return [count - before for count, before in zip(within, [0, *within[:-1]], strict=True)]


class ProposalTest(unittest.TestCase):
    def test_waves_fit_the_size_of_the_fleet(self):
        for devices, waves, counts in (
            (0, (100.0,), [0]),
            (1, (100.0,), [1]),
            (2, (26.0, 100.0), [1, 1]),
            (3, (17.0, 100.0), [1, 2]),
            (12, (5.0, 100.0), [1, 11]),
            (20, (3.0, 100.0), [1, 19]),
            (21, (31.0, 100.0), [7, 14]),
            (89, (33.0, 100.0), [29, 60]),
            (90, (33.0, 100.0), [30, 60]),
            (150, (20.0, 50.0, 100.0), [30, 45, 75]),
            (300, (10.0, 50.0, 100.0), [30, 120, 150]),
            (1000, (3.0, 10.0, 50.0, 100.0), [30, 70, 400, 500]),
            (3000, (1.0, 10.0, 50.0, 100.0), [30, 270, 1200, 1500]),
            (10_000, (1.0, 10.0, 50.0, 100.0), [100, 900, 4000, 5000]),
            (100_000, (1.0, 10.0, 50.0, 100.0), [1000, 9000, 40_000, 50_000]),
        ):
            with self.subTest(devices=devices):
                stands = spread(devices)
                self.assertEqual(propose_waves(stands), waves)
                self.assertEqual(added(stands, waves), counts)

    def test_no_wave_of_a_real_fleet_is_empty_and_the_first_one_is_as_large_as_it_should_be(self):
        for devices in (*range(2, 130), 299, 300, 600, 2999, 3000, 3100, 5000):
            for version in ("v1.0.1", "v2.0.0"):
                with self.subTest(devices=devices, version=version):
                    stands = hashed(devices, version)
                    waves = propose_waves(stands)
                    counts = added(stands, waves)
                    self.assertEqual((list(waves), waves[-1]), (sorted(set(waves)), 100.0))
                    self.assertTrue(all(counts), counts)
                    if devices <= 20:
                        self.assertEqual(counts, [1, devices - 1])
                    else:
                        self.assertGreaterEqual(counts[0], min(30, devices // 3))
                        self.assertLessEqual(counts[0], max(devices // 3, 2 * devices // 100))

    def test_where_all_stand_at_one_place_they_are_one_wave(self):
        for devices in (2, 12, 100, 5000):
            with self.subTest(devices=devices):
                self.assertEqual(propose_waves([(7.25, False)] * devices), (100.0,))

    def test_devices_at_the_same_place_are_in_the_same_wave(self):
        stands = [*[(4.5, False)] * 3, *[(70.25, False)] * 9]
        self.assertEqual(added(stands, propose_waves(stands)), [3, 9])

    def test_neighbours_at_the_last_digit_are_told_apart(self):
        stands = [(50.0, False), (50.00000000000001, False)]
        self.assertEqual(added(stands, propose_waves(stands)), [1, 1])

    def test_a_fleet_of_one_kind_is_waved_by_its_size_whatever_the_kind(self):
        for is_slow in (True, False, None):
            with self.subTest(is_slow=is_slow):
                waves = propose_waves(spread(300, lambda _, kind=is_slow: kind))
                self.assertEqual(waves, (10.0, 50.0, 100.0))

    def test_the_first_wave_is_made_larger_until_both_kinds_are_in_it(self):
        for what, devices, is_slow, first in (
            ("the slow ones stand late", 300, lambda at: at >= 40, 69),
            ("two kinds in a small fleet", 12, lambda at: at >= 2, 3),
            ("a kind that stands in the second third", 60, lambda at: 28 <= at < 32, 29),
            ("a fleet that goes by percent", 10_000, lambda at: at >= 150, 294),
            ("one kind stands beyond a third of the fleet", 12, lambda at: at >= 6, 1),
            ("a kind of one device in 300", 300, lambda at: at == 299, 30),
        ):
            with self.subTest(what):
                stands = spread(devices, is_slow)
                self.assertEqual(added(stands, propose_waves(stands))[0], first)

    def test_devices_of_which_nobody_knows_the_kind_do_not_decide(self):
        stands = spread(6000, lambda at: None if at >= 400 else at % 20 > 0)
        self.assertEqual(propose_waves(stands), (1.0, 10.0, 50.0, 100.0))

    def test_both_kinds_of_a_real_fleet_go_first(self):
        for devices in (50, 300, 3000, 20_000):
            for slow_of_ten in (1, 5, 9):
                with self.subTest(devices=devices, slow_of_ten=slow_of_ten):
                    stands = hashed(devices, slow_of_ten=slow_of_ten)
                    waves = propose_waves(stands)
                    first = [is_slow for stand, is_slow in stands if stand < waves[0]]
                    self.assertEqual(set(first), {True, False})
