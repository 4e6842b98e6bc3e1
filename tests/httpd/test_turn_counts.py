"""Replies and their durations are counted once a turn."""

import unittest

from ota_server.httpd.turn_counts import BUCKET_SECONDS, TurnCounts


class TurnCountsTest(unittest.TestCase):
    def test_a_turn_counts_once_for_each_of_its_replies(self):
        counts = TurnCounts()
        counts.note(3, 2, 0.0002)
        counts.note(1, 0, 0.0002)
        self.assertEqual(counts.buckets[BUCKET_SECONDS.index(0.00025)], 4)
        self.assertEqual((sum(counts.buckets), counts.quick), (4, 2))
        self.assertAlmostEqual(counts.seconds, 0.0008)

    def test_a_bound_belongs_to_the_bucket_below_it(self):
        for index, bound in enumerate(BUCKET_SECONDS):
            counts = TurnCounts()
            counts.note(1, 0, bound)
            with self.subTest(bound):
                self.assertEqual(counts.buckets.index(1), index)

    def test_what_takes_longer_than_all_bounds_is_in_the_last_bucket(self):
        counts = TurnCounts()
        counts.note(1, 0, 1e9)
        self.assertEqual(counts.buckets[-1], 1)

    def test_counts_of_two_drivers_add_up(self):
        one, other = TurnCounts(), TurnCounts()
        one.note(2, 2, 0.001)
        other.note(1, 0, 0.002)
        one.add(other)
        self.assertEqual((one.quick, sum(one.buckets)), (2, 3))
        self.assertAlmostEqual(one.seconds, 0.004)
