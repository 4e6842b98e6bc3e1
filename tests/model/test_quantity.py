"""Durations and sizes: what operators may write, and how both are shown."""

import unittest

from ota_server.model.quantity import (
    count_of,
    first_of,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


class DurationTest(unittest.TestCase):
    def test_a_number_with_a_unit_is_a_duration(self):
        for text, seconds in (("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604800), ("0s", 0)):
            with self.subTest(text):
                self.assertEqual(parse_duration(text), seconds)

    def test_a_blank_may_stand_before_the_unit(self):
        for text, seconds in (("5 s", 5), ("1.5 h", 5400), ("7 d", 604800)):
            with self.subTest(text):
                self.assertEqual(parse_duration(text), seconds)

    def test_anything_else_is_refused(self):
        wrong = ("", "5", "m", "-5m", "+5m", "5  m", "5m ", "5\tm", "5M", "1.h", "1e3s", "٣m")
        for text in (*wrong, "1_0s", "5m5s"):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_duration(text)

    def test_a_duration_is_shown_in_its_largest_whole_unit(self):
        for seconds, text in ((0, "0s"), (0.5, "0.5s"), (90, "90s"), (5400, "90m"), (86400, "1d")):
            with self.subTest(seconds):
                self.assertEqual(format_duration(seconds), text)


class SizeTest(unittest.TestCase):
    def test_a_number_with_or_without_a_unit_is_a_size(self):
        for text, size in (("512", 512), ("64K", 65536), ("10m", 10485760), ("2G", 2147483648)):
            with self.subTest(text):
                self.assertEqual(parse_size(text), size)

    def test_anything_else_is_refused(self):
        for text in ("", "0", "K", "-1K", "1.5M", "1KB", "1 K", "٣K", "1_0"):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_size(text)

    def test_a_size_is_shown_in_its_largest_whole_unit(self):
        for size, text in ((1023, "1023"), (1024, "1K"), (1536, "1536"), (10485760, "10M")):
            with self.subTest(size):
                self.assertEqual(format_size(size), text)


class ListTest(unittest.TestCase):
    def test_a_count_is_a_plural_unless_it_is_one(self):
        counts = [count_of(count, "device") for count in (0, 1, 1200)]
        self.assertEqual(counts, ["0 devices", "1 device", "1,200 devices"])
        self.assertEqual(count_of(2, "address", "es"), "2 addresses")

    def test_a_list_that_is_too_long_says_how_much_is_left_out(self):
        for size, text in ((0, ""), (1, "0"), (3, "0, 1, 2"), (1203, "0, 1, 2 and 1,200 more")):
            with self.subTest(size):
                self.assertEqual(first_of(list(map(str, range(size))), 3), text)
