"""Silence: which devices are not heard from any more, and whose fault that is. Pure.

A device that a release has bricked says nothing; nor does one whose house has no power. They are
told apart by those that did not get the release.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ota_server.evaluation.contested import QUARTER, capped, most_of_each
from ota_server.evaluation.poll_history import GAPS_TO_MISS, PollHistory

# Of its longest poll gaps: so many without a word is silence.
_GAPS = 3
# A share needs no more devices than these; a fleet of a million is looked at in steps.
_SAMPLE = 4096
# Of those that poll alike, fewer than these say little: the rest is taken to be as all others are.
_LEAST_ALIKE = 12

_Bands = dict[int, Counter[int]]  # devices by how long they may be silent, and by source


class Silence:
    """Says who is silent at one moment. Times are milliseconds of `Uptime`."""

    def __init__(
        self,
        polls: PollHistory,
        now_ms: int,
        since_ms: int,
        restarted_ms: int,
        soak_ms: float,
        unheard_ms: int = 0,
    ) -> None:
        """Take a moment.

        Args:
            since_ms: when the wave opened; what was silent before is not counted.
            restarted_ms: silence counts from here at the earliest.
            unheard_ms: for how long nobody at all was heard from, by the clock on the wall.
        """
        self.unheard_ms = unheard_ms
        self._polls = polls
        self._now_ms = now_ms
        self.since_ms = since_ms
        self._restarted_ms = restarted_ms
        self._soak_ms = soak_ms
        # A fleet's fast devices poll the most, and whose gaps are not known is a slow one.
        self._usual_ms = polls.usual_ms(0.99)

    def gap_ms(self, row: int) -> float:
        """Return how long a device goes without a poll at most."""
        return self._polls.longest_ms(row, self._usual_ms)

    def patience_ms(self, row: int) -> float:
        """Return how long a device may say nothing."""
        return max(self._soak_ms, _GAPS * self.gap_ms(row))

    def is_silent(self, row: int, seen_ms: int) -> bool:
        """Say whether a device that was heard from last at a time says nothing any more."""
        quiet_ms = self._now_ms - max(seen_ms, self._restarted_ms)
        return quiet_ms > self._soak_ms and quiet_ms > self.patience_ms(row)

    def has_missed(self, row: int, seen_ms: int) -> bool:
        """Return whether a device should have been heard from again since a time."""
        return self._now_ms - max(seen_ms, self._restarted_ms) > GAPS_TO_MISS * self.gap_ms(row)

    def is_heard(self, row: int) -> bool:
        """Say whether a device was heard from since the moment that it is about."""
        return self._polls.seen[row] >= self.since_ms

    def is_expected(self, row: int) -> bool:
        """Say whether a device was heard from since then, or had to be."""
        seen_ms = self._polls.seen[row]
        return seen_ms >= 0 and seen_ms + self.patience_ms(row) >= self.since_ms

    def shares(self, excepted: set[int], at_risk: Counter[int]) -> Callable[[int], float]:
        """Return how likely a device is silent: the share of those that poll as it does.

        A device that polls often is found silent sooner, and gets a release sooner too: all others
        together would be no measure. Of them, no address gives more than a quarter, and no more
        than that of those that are silent, unless more than a quarter of those at risk are there:
        else made-up devices that stop would excuse real ones.

        Args:
            excepted: devices that are on their way to the release, and no others to compare with.
            at_risk: how many of those whose silence is to be compared are at each source.
        """
        expected: _Bands = defaultdict(Counter)
        silent: _Bands = defaultdict(Counter)
        polls = self._polls
        for row in range(0, len(polls), max(len(polls) // _SAMPLE, 1)):
            if row not in excepted and polls.counts[row] and self.is_expected(row):
                band, source = self._band(row), polls.source[row]
                expected[band][source] += 1
                # Sooner than those at risk, or the first of them to be silent would have no excuse.
                if self.has_missed(row, polls.seen[row]):
                    silent[band][source] += 1
        risk = at_risk.total()
        free = {source for source, count in at_risk.items() if count * QUARTER > risk}
        all_expected, all_silent = _together(expected), _together(silent)
        for source, count in list(all_expected.items()):
            is_large = count * QUARTER > all_expected.total() and source not in free
            if is_large and all_silent[source] * 2 > count:
                # It is dark, and says nothing of devices elsewhere.
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

        Where the others at an address are silent too, it is the source and nobody's fault. Where
        there are no others, devices that fell silent there count once.

        Args:
            silent: the source where each was heard from last, and when.
            excepted: devices that are on their way to the release: no others to compare with.
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
    """Return the share of silent ones; where they are few, others are as usual.

    Args:
        free: sources that may give more than a quarter.
        least: so many they have to be.
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
    """When the others at a source were heard from last; of those that are overdue once more."""

    heard: list[int]
    overdue: list[int]

    def is_alive_after(self, due_ms: float) -> bool:
        """Say whether no less than half of those that had to be heard from by now were."""
        alive = len(self.heard) - bisect_right(self.heard, due_ms)
        dark = bisect_right(self.overdue, due_ms)
        # Nobody had to be heard from yet: then there is nothing to excuse it.
        return alive >= dark
