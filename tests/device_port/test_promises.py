"""Promises: how long a device gets the image of its digest, and how many devices have one."""

import unittest

from ota_server.device_port.promises import Promises
from ota_server.model.device import Download

IMAGE = Download("v1", "0" * 64, 100, 0)


class PromisesTest(unittest.TestCase):
    def setUp(self):
        self.promises = Promises()
        self.promises.make("first", "v0", IMAGE, 1000)

    def test_one_is_kept_for_a_minute(self):
        self.assertEqual(self.promises.of("first", "v0", 60_999), IMAGE)
        self.assertIsNone(self.promises.of("first", "v0", 61_000))
        self.assertIsNone(self.promises.of("other", "v0", 1000))

    def test_one_of_a_clock_that_was_ahead_is_not(self):
        self.assertIsNone(self.promises.of("first", "v0", 999))

    def test_of_ten_thousand_devices_and_more_those_that_asked_last_have_one(self):
        self.promises.make("second", "v0", IMAGE, 1000)
        self.promises.make("first", "v0", IMAGE, 1000)
        for number in range(9_998):
            self.promises.make(f"{number}", "v0", IMAGE, 1000)
        self.assertEqual(self.promises.of("second", "v0", 1000), IMAGE)
        self.promises.make("last", "v0", IMAGE, 1000)
        self.assertIsNone(self.promises.of("second", "v0", 1000))
        self.assertEqual(self.promises.of("first", "v0", 1000), IMAGE)


if __name__ == "__main__":
    unittest.main()
