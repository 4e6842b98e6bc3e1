"""Times as text: how long ago one was."""

import unittest

from ota_server.model.timestamp import ago, format_time

NOW_MS = 1_795_435_200_123


class AgoTest(unittest.TestCase):
    def test_it_is_told_in_the_largest_unit(self):
        for seconds, text in ((0, "now"), (59, "59s ago"), (3600, "1h ago"), (200_000, "2d ago")):
            with self.subTest(seconds=seconds):
                self.assertEqual(ago(format_time(NOW_MS - seconds * 1000), NOW_MS), text)

    def test_a_time_by_a_clock_that_was_ahead_is_now(self):
        self.assertEqual(ago(format_time(NOW_MS + 10**11), NOW_MS), "now")


if __name__ == "__main__":
    unittest.main()
