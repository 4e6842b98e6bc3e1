"""What became of the devices of a rollout, asked for by one thread and counted by another."""

from pathlib import Path
from threading import Thread
from unittest import TestCase

from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.scope import RolloutScope
from ota_server.policy.policy import Policy
from ota_server.rollouts.rollout_memory import CountedRollout, ListingRules, RolloutMemory
from tests.support import TIMEOUT_SECONDS, until
from tests.support.story import PLAN, START_MS

HERE = Path("data")


def counted(now_ms: int) -> CountedRollout:
    """Return a rollout without devices, as it was counted at a time."""
    feedback = Feedback(PLAN, RolloutScope(), 0, START_MS)
    outcomes = feedback.count(now_ms)[0].outcomes()
    return CountedRollout(outcomes, feedback.names.key_of, ListingRules(PLAN, Policy()), now_ms)


class RolloutMemoryTest(TestCase):
    def test_who_asks_waits_for_the_next_count_and_later_gets_the_last_one(self):
        memory, found = RolloutMemory(HERE), list[CountedRollout | None]()
        asking = Thread(target=lambda: found.append(memory.ask("id")))
        asking.start()
        self.assertTrue(until(lambda: memory.is_awaited("id")))
        self.assertFalse(memory.is_awaited("other"))
        memory.put("id", first := counted(START_MS))
        asking.join()
        self.assertEqual(found, [first])
        self.assertEqual((memory.is_awaited("id"), memory.is_asked_for("id")), (False, True))
        memory.put("id", second := counted(START_MS + 1))
        self.assertIs(memory.ask("id"), second)

    def test_who_asks_about_what_is_not_counted_gets_nothing(self):
        memory = RolloutMemory(HERE, wait_seconds=0.0)
        self.assertIsNone(memory.ask("id"))
        memory.put("id", counted(START_MS))
        memory.forget("id")
        self.assertIsNone(memory.ask("id"))

    def asked(self, memory: RolloutMemory) -> tuple[Thread, list[CountedRollout | None]]:
        """Ask in a thread, and return once it waits."""
        found = list[CountedRollout | None]()
        asking = Thread(target=lambda: found.append(memory.ask("id")))
        asking.start()
        self.addCleanup(asking.join)
        self.assertTrue(until(lambda: memory.is_awaited("id")))
        return asking, found

    def test_nobody_waits_for_what_a_look_has_not_counted(self):
        ends = {
            "passed by": lambda memory: memory.pass_by(memory.awaited()),
            "over": lambda memory: memory.forget("id"),
            "the process ends": RolloutMemory.close,
        }
        for name, end in ends.items():
            with self.subTest(name):
                memory = RolloutMemory(HERE, wait_seconds=3600.0)
                asking, found = self.asked(memory)
                end(memory)
                asking.join(TIMEOUT_SECONDS)
                self.assertEqual(found, [None])

    def test_who_asks_at_the_end_waits_for_nothing(self):
        memory = RolloutMemory(HERE, wait_seconds=3600.0)
        memory.close()
        self.assertIsNone(memory.ask("id"))

    def test_what_was_counted_in_a_look_is_not_passed_by(self):
        memory = RolloutMemory(HERE, wait_seconds=3600.0)
        _, found = self.asked(memory)
        awaited = memory.awaited()
        memory.put("id", first := counted(START_MS))
        memory.pass_by(awaited)
        self.assertTrue(until(lambda: found == [first]))

    def test_nobody_counts_for_others_before_somebody_asks(self):
        self.assertFalse(RolloutMemory(HERE).is_asked_for("id"))
