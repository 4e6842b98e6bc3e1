"""What became of the devices of rollouts that are on, for other threads than the one that counts.

Files have it too, but to load a checkpoint and to read the journal from there takes seconds of a
large fleet, for each answer. The thread that moves rollouts has all of it in memory. So:

1. Who wants to know asks, and waits if there is nothing here yet.
2. Whoever counts looks after each count whether somebody has asked lately, and puts the outcomes
   here then. Where somebody waits it counts at once.
3. What nobody has asked for in a while is dropped.

Where a rollout cannot be counted now, such as while its fold is behind, who waits gets nothing
after the next look at all rollouts, and reads the files. I/O: waits.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Condition
from typing import NamedTuple

from ota_server.evaluation.outcome_groups import WaveOutcomes
from ota_server.evaluation.silence import GAPS
from ota_server.model.version import same_version
from ota_server.policy.device_state import GRACE_MS
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan

# A count of a million devices that were all offered a release takes some seconds; by the files it
# takes longer.
_WAIT_SECONDS = 10.0
# For so long after a question each count is kept.
_ASKED_SECONDS = 60.0
# An older count is of a fold that does not go on.
_MOST_AGE_SECONDS = 60.0


class ListingRules(NamedTuple):
    """By what devices are listed."""

    plan: RolloutPlan
    policy: Policy

    def is_release(self, reported: str) -> bool:
        """Return whether what a device reports is what is rolled out."""
        return same_version(self.policy.release_of(reported), self.plan.version)

    def quiet_seconds(self, gap_ms: float) -> float:
        """Return for how long a device that has the image may say nothing.

        Args:
            gap_ms: the longest time that it goes without a poll; 0: that is not known.
        """
        heard_ms = GAPS * gap_ms if gap_ms else GRACE_MS
        return max(self.plan.grace_seconds, round(heard_ms / 1000, 1))


class CountedRollout(NamedTuple):
    """A rollout as it was counted last.

    Attributes:
        key_of: returns the key of a device by its number; any thread may call it.
    """

    outcomes: WaveOutcomes
    key_of: Callable[[int], str]
    rules: ListingRules
    now_ms: int


class RolloutMemory:
    """The rollouts that somebody has asked about, by their ids. Safe for use by many threads.

    Attributes:
        data_dir: whose rollouts are counted in this process; those of others are not.
    """

    def __init__(self, data_dir: Path, wait_seconds: float = _WAIT_SECONDS) -> None:
        """Begin with none.

        Args:
            wait_seconds: for so long somebody waits for the next count.
        """
        self.data_dir = data_dir
        self._wait_seconds = wait_seconds
        self._changed = Condition()
        self._asked: dict[str, float] = {}
        self._counted: dict[str, tuple[float, CountedRollout]] = {}
        # How often a rollout was looked at without a count, which ends all waits for it.
        self._passed: Counter[str] = Counter()
        self._is_closed = False

    def close(self) -> None:
        """Let nobody wait any longer: nothing is counted from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def ask(self, rollout_id: str) -> CountedRollout | None:
        """Return a rollout as it was counted last, perhaps after a wait; None: it is not now."""
        with self._changed:
            self._drop()
            self._asked[rollout_id] = time.monotonic()
            before = self._passed[rollout_id]

            def is_over() -> bool:
                is_passed = self._passed[rollout_id] != before
                return rollout_id in self._counted or is_passed or self._is_closed

            self._changed.wait_for(is_over, self._wait_seconds)
            _, counted = self._counted.get(rollout_id, (0.0, None))
            return counted

    def _drop(self) -> None:
        now = time.monotonic()
        for rollout_id, asked_at in list(self._asked.items()):
            if now - asked_at > _ASKED_SECONDS:
                self._asked.pop(rollout_id)
                self._counted.pop(rollout_id, None)
        for rollout_id, (put_at, _) in list(self._counted.items()):
            if now - put_at > _MOST_AGE_SECONDS:
                del self._counted[rollout_id]

    def is_asked_for(self, rollout_id: str) -> bool:
        """Return whether somebody has asked lately about a rollout."""
        with self._changed:
            self._drop()
            return rollout_id in self._asked

    def is_awaited(self, rollout_id: str) -> bool:
        """Return whether somebody has asked about a rollout of which nothing is here."""
        with self._changed:
            return rollout_id in self._asked and rollout_id not in self._counted

    def awaited(self) -> frozenset[str]:
        """Return the rollouts that somebody has asked about and of which nothing is here."""
        with self._changed:
            return frozenset(self._asked.keys() - self._counted.keys())

    def pass_by(self, rollout_ids: Collection[str]) -> None:
        """Let nobody wait for those of some rollouts that are not here.

        Args:
            rollout_ids: were awaited before a look at all rollouts, which is over.
        """
        with self._changed:
            self._passed.update(each for each in rollout_ids if each not in self._counted)
            self._changed.notify_all()

    def put(self, rollout_id: str, counted: CountedRollout) -> None:
        """Put a rollout here that was just counted."""
        with self._changed:
            self._counted[rollout_id] = time.monotonic(), counted
            self._changed.notify_all()

    def forget(self, rollout_id: str) -> None:
        """Drop a rollout that nobody counts any longer."""
        with self._changed:
            self._asked.pop(rollout_id, None)
            self._counted.pop(rollout_id, None)
            self._passed[rollout_id] += 1
            self._changed.notify_all()
