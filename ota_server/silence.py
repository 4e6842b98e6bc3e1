"""Silence: which devices are not heard from any more, and whose fault that is. Pure.

A device that a release has bricked says nothing; nor does one whose house has no power. They are
told apart by those that did not get the release.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from ota_server.polls import Polls

# Of its longest poll gaps: so many without a word is silence.
_GAPS = 3
# A share needs no more devices than these; a fleet of a million is looked at in steps.
_SAMPLE = 4096


class Quiet:
    """Says who is silent at one moment. Times are milliseconds of `Uptime`."""

    def __init__(
        self, polls: Polls, now_ms: int, since_ms: int, anew_ms: int, soak_ms: float
    ) -> None:
        """Take a moment.

        Args:
            since_ms: devices that were silent before are nobody's business.
            anew_ms: silence counts from here at the earliest.
        """
        self._polls = polls
        self._now_ms = now_ms
        self._since_ms = since_ms
        self._anew_ms = anew_ms
        self._soak_ms = soak_ms
        # A fleet's fast devices poll the most, and whose gaps are not known is a slow one.
        self._usual_ms = polls.usual_ms(0.99)

    def gap_ms(self, row: int) -> float:
        """Return how long a device goes without a poll at most."""
        return self._polls.longest_ms(row, self._usual_ms)

    def patience_ms(self, row: int) -> float:
        """Return how long a device may say nothing."""
        return max(self._soak_ms, _GAPS * self.gap_ms(row))

    def is_silent(self, row: int) -> bool:
        """Say whether a device says nothing any more."""
        heard_ms = max(self._polls.seen[row], self._anew_ms)
        quiet_ms = self._now_ms - heard_ms
        return quiet_ms > self._soak_ms and quiet_ms > self.patience_ms(row)

    def is_heard(self, row: int) -> bool:
        """Say whether a device was heard from since the moment that it is about."""
        return self._polls.seen[row] >= self._since_ms

    def is_expected(self, row: int) -> bool:
        """Say whether a device was heard from since then, or had to be."""
        seen_ms = self._polls.seen[row]
        return seen_ms >= 0 and seen_ms + self.patience_ms(row) >= self._since_ms

    def shares(self, excepted: set[int]) -> Callable[[int], float]:
        """Return how likely a device is silent: the share of those that poll as it does.

        A device that polls often is found silent sooner, and gets a release sooner too: all others
        together would be no measure.

        Args:
            excepted: devices that are on their way to the release, and no others to compare with.
        """
        expected: Counter[int] = Counter()
        silent: Counter[int] = Counter()
        polls = self._polls
        for row in range(0, len(polls), max(len(polls) // _SAMPLE, 1)):
            if row not in excepted and polls.counts[row] and self.is_expected(row):
                band = self._band(row)
                expected[band] += 1
                silent[band] += self.is_silent(row)
        overall = silent.total() / max(expected.total(), 1)

        def share(row: int) -> float:
            band = self._band(row)
            return silent[band] / expected[band] if expected[band] else overall

        return share

    def _band(self, row: int) -> int:
        return int(self.patience_ms(row)).bit_length()

    def blamed(self, silent: list[int], excepted: set[int]) -> list[int]:
        """Return those of these silent devices whose silence the release may have caused.

        Where the others at an address are silent too, it is the site and nobody's fault. Where
        there are no others, devices that fell silent there count once.

        Args:
            excepted: devices that are on their way to the release: no others to compare with.
        """
        rows_at: dict[int, list[int]] = defaultdict(list)
        for row in silent:
            rows_at[self._polls.site[row]].append(row)
        others = self._others(set(rows_at), excepted)
        blamed: list[int] = []
        for site, rows in rows_at.items():
            if site not in others:
                blamed.append(rows[0])
                continue
            for row in rows:
                due_ms = max(self._polls.seen[row], self._anew_ms) + self.gap_ms(row)
                if others[site].is_alive_after(due_ms):
                    blamed.append(row)
        return blamed

    def _others(self, sites: set[int], excepted: set[int]) -> dict[int, "_Others"]:
        heard: dict[int, list[int]] = defaultdict(list)
        overdue: dict[int, list[int]] = defaultdict(list)
        polls = self._polls
        for row, site in enumerate(polls.site):
            if site not in sites or row in excepted or not polls.counts[row]:
                continue
            seen_ms = polls.seen[row]
            if not self.is_expected(row):
                continue
            heard[site].append(seen_ms)
            if self._now_ms - seen_ms > self.gap_ms(row):
                overdue[site].append(seen_ms)
        return {site: _Others(sorted(heard[site]), sorted(overdue[site])) for site in heard}


class _Others(NamedTuple):
    """When the others at a site were heard from last; of those that are overdue once more."""

    heard: list[int]
    overdue: list[int]

    def is_alive_after(self, due_ms: float) -> bool:
        """Say whether no less than half of those that had to be heard from by now were."""
        alive = len(self.heard) - bisect_right(self.heard, due_ms)
        dark = bisect_right(self.overdue, due_ms)
        # Nobody had to be heard from yet: then there is nothing to excuse it.
        return alive >= dark
