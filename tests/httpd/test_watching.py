"""The deadlines of the loop."""

import unittest
from typing import Any

from ota_server.httpd.watching import Timers


class Waiting:
    """What the timers need of a channel."""

    timer_at: float | None = None

    def __lt__(self, other: "Waiting") -> bool:
        return id(self) < id(other)


def channel() -> Any:
    return Waiting()


class TimersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.timers = Timers()

    def due(self, now: float) -> list[Any]:
        return list(self.timers.due(now))

    def test_what_is_due_comes_in_order_and_once(self):
        first, second, third = channel(), channel(), channel()
        for due, each in ((2.0, second), (1.0, first), (9.0, third)):
            self.timers.add(due, each)
        self.assertEqual(self.timers.next_due(), 1.0)
        self.assertEqual(self.due(5.0), [first, second])
        self.assertEqual(self.due(5.0), [])
        self.assertEqual(self.timers.next_due(), 9.0)

    def test_a_sooner_deadline_takes_the_place_of_a_later_one_and_not_the_other_way_round(self):
        one = channel()
        self.timers.add(5.0, one)
        self.timers.add(2.0, one)
        self.timers.add(8.0, one)
        self.assertEqual(self.due(3.0), [one])
        self.assertEqual(self.due(9.0), [])

    def test_what_is_due_again_at_once_comes_the_next_time(self):
        one = channel()
        self.timers.add(1.0, one)
        for each in self.timers.due(2.0):
            self.timers.add(2.0, each)
        self.assertEqual(self.due(2.0), [one])

    def test_a_dropped_one_never_comes(self):
        one = channel()
        self.timers.add(1.0, one)
        self.timers.drop(one)
        self.assertEqual(self.due(2.0), [])

    def test_dropped_ones_do_not_stay_in_memory(self):
        kept = channel()
        self.timers.add(3.0, kept)
        for _ in range(10_000):
            one = channel()
            self.timers.add(1.0, one)
            self.timers.drop(one)
        self.assertLess(len(self.timers._heap), 2_500)
        self.assertEqual(self.due(3.0), [kept])
