"""The garbage collector makes full collections when they are quick, and at no other time."""

import gc
import unittest
import weakref

from ota_server.system.garbage import Collector, hold_back


class Cycle:
    """An object that counting references does not free."""

    def __init__(self) -> None:
        self.myself = self


class CollectorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        hold_back()

    def dead(self) -> "weakref.ref[Cycle]":
        """Return a reference to an old object that nothing else refers to."""
        cycle = Cycle()
        gc.collect(0)
        gc.collect(1)
        return weakref.ref(cycle)

    def test_what_has_no_reference_goes_once_a_minute(self):
        collector = Collector()
        for now, goes in ((100.0, True), (159.0, False), (160.5, True)):
            dead = self.dead()
            self.assertEqual(collector.look_after(now), goes)
            self.assertEqual(dead() is None, goes)

    def test_nothing_is_collected_while_there_is_much_to_look_at(self):
        collector = Collector()
        much = [[number] for number in range(30_000)]
        gc.collect(1)
        self.assertFalse(collector.look_after(100.0))
        much.clear()
        self.assertTrue(collector.look_after(160.1))

    def test_no_full_collection_comes_by_itself(self):
        generations: list[int] = []

        def note(phase: str, facts: dict[str, int]) -> None:
            generations.append(facts["generation"])

        gc.callbacks.append(note)
        self.addCleanup(gc.callbacks.remove, note)
        much = [[number] for number in range(200_000)]
        self.assertEqual(len(much), 200_000)
        self.assertNotIn(2, generations)


if __name__ == "__main__":
    unittest.main()
