"""Which devices are no longer heard from, and whether a release may be the cause. Pure.

A device that a release has bricked says nothing, and neither does one whose house has no power.
The devices that did not get the release tell them apart.
"""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ota_server.evaluation.contested import QUARTER, capped, most_of_each
from ota_server.evaluation.poll_history import GAPS_TO_MISS, PollHistory

# A device that says nothing for so many of its longest poll gaps is silent.
GAPS = 3
# A share needs no more devices than these: of a larger fleet a sample is taken.
_SAMPLE = 4096
# Fewer devices than these that poll alike say little: all others make up the rest.
_LEAST_ALIKE = 12

_Bands = dict[int, Counter[int]]  # devices by how long they may be silent, and by address


class Silence:
    """Who is silent at one moment. Times are milliseconds of `Uptime`."""

    def __init__(
        self,
        polls: PollHistory,
        now_ms: int,
        since_ms: int,
        restarted_ms: int,
        soak_ms: float,
        unheard_ms: int = 0,
        free_ms: float = math.inf,
    ) -> None:
        """Take a moment.

        Args:
            since_ms: when the wave opened; what was silent before is not counted.
            restarted_ms: silence counts from here at the earliest.
            unheard_ms: for how long nobody at all was heard from, by the clock on the wall.
            free_ms: for how long devices may have moved, by that clock: no hold, no pause.
        """
        self._unheard_ms = min(unheard_ms, free_ms)
        self._free_ms = free_ms
        self._polls = polls
        self._now_ms = now_ms
        self.since_ms = since_ms
        self._restarted_ms = restarted_ms
        self._soak_ms = soak_ms
        # Most gaps are those of devices that poll often; where a device has few, it polls seldom.
        self._usual_ms = polls.usual_ms(0.99)

    def gap_ms(self, row: int) -> float:
        """Return the longest time that a device usually goes without a poll."""
        return self._polls.longest_ms(row, self._usual_ms)

    def patience_ms(self, row: int) -> float:
        """Return how long a device may say nothing."""
        return max(self._soak_ms, GAPS * self.gap_ms(row))

    def is_silent(self, row: int, seen_ms: int) -> bool:
        """Return whether a device that was heard from last at a time is silent by now."""
        quiet_ms = self._now_ms - max(seen_ms, self._restarted_ms)
        return quiet_ms > self._soak_ms and quiet_ms > self.patience_ms(row)

    def is_late(self, row: int, last_ms: int = 0, is_soaking: bool = False) -> bool:
        """Return whether a device of the open wave had time for its next step, and for the soak.

        Args:
            last_ms: when it took its last step.
            is_soaking: it need not be heard from before the soak is over.
        """
        since_ms = max(self.since_ms, self._restarted_ms, last_ms)
        gap_ms, quiet_ms = self.gap_ms(row), self._soak_ms * is_soaking
        is_late = min(self._now_ms - since_ms, self._free_ms) > 2 * gap_ms + self._soak_ms
        return is_late or self._unheard_ms > 3 * gap_ms + quiet_ms

    def has_missed(self, row: int, seen_ms: int) -> bool:
        """Return whether a device should have been heard from again since a time."""
        return self._now_ms - max(seen_ms, self._restarted_ms) > GAPS_TO_MISS * self.gap_ms(row)

    def is_heard(self, row: int) -> bool:
        """Return whether a device was heard from since the wave opened."""
        return self._polls.seen[row] >= self.since_ms

    def is_expected(self, row: int) -> bool:
        """Return whether a device was heard from since the wave opened, or had to be."""
        seen_ms = self._polls.seen[row]
        return seen_ms >= 0 and seen_ms + self.patience_ms(row) >= self.since_ms

    def shares(self, excepted: set[int], at_risk: Counter[int]) -> Callable[[int], float]:
        """Return how likely a device is silent: the share of those that poll as it does.

        A device that polls often is found silent sooner, and gets a release sooner too, so that it
        cannot be compared with all others. No address gives more than a quarter of those that poll
        as it does, or of the silent ones among them, unless more than a quarter of the devices at
        risk are there: its devices lose their power together, and made-up ones that stop would
        excuse real ones.

        Args:
            excepted: devices that are on their way to the release: they are not compared with.
            at_risk: how many of the devices that may be silent because of the release are at each
                address.
        """
        expected: _Bands = defaultdict(Counter)
        silent: _Bands = defaultdict(Counter)
        polls = self._polls
        for row in range(0, len(polls), max(len(polls) // _SAMPLE, 1)):
            if row not in excepted and polls.counts[row] and self.is_expected(row):
                band, source = self._band(row), polls.source[row]
                expected[band][source] += 1
                # Sooner than those at risk: otherwise the first of them would have no excuse.
                if self.has_missed(row, polls.seen[row]):
                    silent[band][source] += 1
        risk = at_risk.total()
        free = {source for source, count in at_risk.items() if count * QUARTER > risk}
        all_expected, all_silent = _together(expected), _together(silent)
        for source, count in list(all_expected.items()):
            is_large = count * QUARTER > all_expected.total() and source not in free
            if is_large and all_silent[source] * 2 > count:
                # It has no power, and says nothing of devices elsewhere.
                for devices in (all_expected, all_silent, *expected.values(), *silent.values()):
                    del devices[source]
        overall = _share(all_expected, all_silent, free)
        shares = {
            band: _share(each, silent[band], free, _LEAST_ALIKE, overall)
            for band, each in expected.items()
        }
        return lambda row: shares.get(self._band(row), overall)

    def _band(self, row: int) -> int:
        return int(self.patience_ms(row)).bit_length()

    def blamed(self, silent: Mapping[int, tuple[int, int]], excepted: set[int]) -> set[int]:
        """Return those of these silent devices whose silence the release may have caused.

        Where the others at an address are silent too, it has lost its power or its network.
        Where there are no others, devices that fell silent there count once.

        Args:
            silent: from which address each was heard last, and when.
            excepted: devices that are on their way to the release: they are not compared with.
        """
        rows_at: dict[int, list[int]] = defaultdict(list)
        for row, (source, _) in silent.items():
            rows_at[source].append(row)
        others = self._others(set(rows_at), excepted)
        blamed: set[int] = set()
        for source, rows in rows_at.items():
            if source not in others:
                blamed.add(rows[0])
                continue
            for row in rows:
                due_ms = max(silent[row][1], self._restarted_ms) + self.gap_ms(row)
                if others[source].is_alive_after(due_ms):
                    blamed.add(row)
        return blamed

    def _others(self, sources: set[int], excepted: set[int]) -> dict[int, "_Others"]:
        heard: dict[int, list[int]] = defaultdict(list)
        overdue: dict[int, list[int]] = defaultdict(list)
        polls = self._polls
        for row, source in enumerate(polls.source):
            if source not in sources or row in excepted or not polls.counts[row]:
                continue
            seen_ms = polls.seen[row]
            if not self.is_expected(row):
                continue
            heard[source].append(seen_ms)
            if self._now_ms - seen_ms > self.gap_ms(row):
                overdue[source].append(seen_ms)
        return {source: _Others(sorted(heard[source]), sorted(overdue[source])) for source in heard}


def _share(
    expected: Counter[int],
    silent: Counter[int],
    free: Collection[int],
    least: int = 0,
    usual: float = 0.0,
) -> float:
    """Return the share of silent devices; where they are few, with others that are as usual.

    Args:
        free: addresses that may give more than a quarter.
        least: so many devices it has to be of.
    """
    most = most_of_each(expected, free)
    weighed = sum(
        count if source in free else count * min(1, most / expected[source])
        for source, count in silent.items()
    )
    known = capped(expected, free)
    others = max(least - known, 0)
    bad = min(weighed, capped(silent, free)) + others * usual
    return bad / max(known + others, 1)


def _together(bands: _Bands) -> Counter[int]:
    total: Counter[int] = Counter()
    for devices in bands.values():
        total += devices
    return total


class _Others(NamedTuple):
    """When the others at an address were heard from last; `overdue`: those that are overdue."""

    heard: list[int]
    overdue: list[int]

    def is_alive_after(self, due_ms: float) -> bool:
        """Return whether at least half of those that had to be heard from by now were."""
        alive = len(self.heard) - bisect_right(self.heard, due_ms)
        dark = bisect_right(self.overdue, due_ms)
        # Where no other had to be heard from yet, nothing excuses it.
        return alive >= dark
