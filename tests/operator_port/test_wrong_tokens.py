"""Wrong tokens are counted for each source address, and for no longer than a minute."""

import unittest

from ota_server.operator_port.wrong_tokens import MOST_IN_A_MINUTE, WrongTokens


class WrongTokensTest(unittest.TestCase):
    def setUp(self) -> None:
        self.wrong = WrongTokens()

    def count(self, times: int, source: int = 1, now: float = 100.0) -> list[int]:
        return [self.wrong.count(source, now) for _ in range(times)]

    def test_ten_in_a_minute_are_let_be_and_further_ones_wait_for_its_end(self):
        self.assertEqual(self.count(MOST_IN_A_MINUTE), [0] * 10)
        self.assertEqual(self.count(1), [60])
        self.assertEqual(self.count(1, now=159.5), [1])
        self.assertEqual(self.count(11, now=160.0), [0] * 10 + [60])

    def test_one_address_does_not_hold_back_another(self):
        self.count(20)
        self.assertEqual(self.count(1, source=2), [0])

    def test_a_clock_that_is_set_back_begins_a_new_minute(self):
        self.count(20)
        self.assertEqual(self.count(1, now=-1e9), [0])

    def test_many_addresses_take_no_more_memory(self):
        for source in range(10_000):
            self.wrong.count(source, 100.0)
        self.assertLessEqual(len(self.wrong), 4096)

    def test_the_address_that_is_forgotten_is_the_one_whose_minute_began_first(self):
        self.count(20, source=-1, now=99.0)
        for source in range(4095):
            self.wrong.count(source, 100.0)
        self.assertNotEqual(self.count(1, source=-1), [0])
        self.wrong.count(5000, 100.0)
        self.assertEqual(self.count(1, source=-1), [0])
