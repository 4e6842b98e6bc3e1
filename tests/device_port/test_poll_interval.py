"""When a device should ask again: spread over time, and within what clients take."""

import unittest

from ota_server.device_port.poll_interval import LEAST_SECONDS, MOST_SECONDS, poll_seconds

KEYS = [f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(2000)]


class PollIntervalTest(unittest.TestCase):
    def test_a_fleet_is_spread_over_half_of_the_interval(self):
        found = [poll_seconds(key, 1000.0) for key in KEYS]
        self.assertTrue(750 <= min(found) < 760 and 1240 < max(found) <= 1250)
        for quarter in range(4):
            share = sum(750 + 125 * quarter <= each < 875 + 125 * quarter for each in found)
            self.assertTrue(400 < share < 600, share)

    def test_a_device_always_has_the_same_interval(self):
        self.assertEqual(len({poll_seconds("/gw-1", 300.0) for _ in range(10)}), 1)

    def test_devices_that_wait_for_slots_make_it_longer_up_to_four_times(self):
        calm = poll_seconds("/gw-1", 1000.0)
        self.assertAlmostEqual(poll_seconds("/gw-1", 1000.0, 1.0), 2 * calm, delta=1)
        self.assertAlmostEqual(poll_seconds("/gw-1", 1000.0, 1e9), 4 * calm, delta=3)

    def test_it_is_never_shorter_or_longer_than_clients_take(self):
        self.assertEqual({poll_seconds(key, 1.0) for key in KEYS[:50]}, {LEAST_SECONDS})
        self.assertEqual({poll_seconds(key, 1e9, 9.0) for key in KEYS[:50]}, {MOST_SECONDS})
        self.assertLess(MOST_SECONDS, 24 * 3600)
