"""Polls: when each device of a fleet was heard from, and how often it asks. Pure.

A column for each thing that is known, so that a device takes some forty bytes beside its place in
the table; a fleet of a million has a row for each.
"""

import math
from array import array
from collections.abc import Iterable

from ota_server.numbering import Numbering

NEVER = -1
NO_WAVE = 255  # a device that the rollout does not reach
FORGOTTEN = 254  # one that an operator took from the table, up to its next word
# Of a gap, one byte: six steps for each doubling, up to a month in steps of an eighth.
_STEPS = 6
_GAPS = 8
_ALL_GAPS = (1 << 8 * _GAPS) - 1
# With fewer gaps than these on record, a device is taken to be like the others.
_GAPS_TO_KNOW = 3

_KINDS = {"seen": "q", "polled": "q", "gaps": "Q", "site": "Q", "_codes": "Q"}
_NAMES = (*_KINDS, "wave", "counts", "home")
# A device that polls less than once in so many soaks is a slow poller, and a kind of its own: what
# the others say of a release says nothing of it.
SLOW_SOAKS = 12
# Of a site, seven bits are kept as a device's home; the eighth: another was measured since.
_SITES = 0x7F
_IS_AWAY = 0x80
# So many of its longest gaps without a poll, and a device has another home.
_GAPS_TO_MOVE = 1.5
_MS = [0.0, *(2 ** (code / _STEPS) for code in range(1, 256))]


class Polls:
    """A row for each device. Times are in milliseconds of `Uptime`, or NEVER.

    Attributes:
        rows: the row of a device, by its MAC as a number.
        seen: when it was heard from last.
        polled: when it asked for the version last (or for the image, if it asks for nothing else).
        gaps: the times between its last eight polls, a byte each, the newest one lowest.
        site: where it asked from last, as `sites.site_of` has it.
        wave: the first wave that holds it.
        counts: 1 where it is known for long enough to be evidence.
        home: of the site that its polls are measured at, a few bits.
    """

    def __init__(self, salt: int = 0) -> None:
        """Begin without a device. The `salt` is for `Numbering`."""
        self.rows = Numbering(salt)
        self.seen = array("q")
        self.polled = array("q")
        self.gaps = array("Q")
        self.site = array("Q")
        self.wave = bytearray()
        self.counts = bytearray()
        self.home = bytearray()
        self._codes = array("Q", bytes(8 * 256))

    def __len__(self) -> int:
        """Return the number of devices."""
        return len(self.seen)

    def add(self, number: int, site: int, wave: int, counts: bool) -> int:
        """Return the row of a device that had none, not heard from yet."""
        row = self.rows.add(number)
        self.seen.append(NEVER)
        self.polled.append(NEVER)
        self.gaps.append(0)
        self.site.append(site)
        self.wave.append(wave)
        self.counts.append(counts)
        self.home.append(site % _SITES)
        return row

    def forget(self, row: int) -> None:
        """Let a device be nobody, as if it had never been heard from."""
        self.seen[row] = self.polled[row] = NEVER
        self.gaps[row] = self.counts[row] = 0
        self.wave[row] = FORGOTTEN

    def poll(self, row: int, now_ms: int, site: int = 0) -> None:
        """Note that a device polled.

        Anybody can poll in its name, as often as they like, to have it thought silent too soon. So
        of the polls from elsewhere there counts one for each from its home, and that only where it
        is no sooner than half of its usual interval.
        """
        before, home = self.polled[row], site % _SITES
        if self.home[row] & _SITES != home and before >= 0:
            gap_ms = now_ms - before
            if gap_ms <= self.longest_ms(row, 0.0) * _GAPS_TO_MOVE:
                if not self.home[row] & _IS_AWAY and gap_ms * 2 >= self.interval_ms(row):
                    self.home[row] |= _IS_AWAY
                    self._measure(row, gap_ms)
                return
            if self.home[row] & _IS_AWAY:
                before = NEVER  # the gap was measured when it was first heard from elsewhere
        self.home[row], self.polled[row] = home, now_ms
        if before >= 0:
            self._measure(row, now_ms - before)

    def _measure(self, row: int, gap_ms: int) -> None:
        code = min(int(math.log2(gap_ms + 1) * _STEPS) + 1, 255)
        self.gaps[row] = (self.gaps[row] << 8 | code) & _ALL_GAPS
        self._codes[code] += 1

    def longest_ms(self, row: int, usual_ms: float) -> float:
        """Return the 90th percentile of a device's poll gaps: of eight, that is the longest.

        Args:
            usual_ms: what is taken where too few are known, as `usual_ms` has it.
        """
        gaps = self.gaps[row]
        longest = _MS[max(gaps.to_bytes(_GAPS, "big"))]
        return longest if gaps >> 8 * (_GAPS_TO_KNOW - 1) else max(longest, usual_ms)

    def interval_ms(self, row: int) -> float:
        """Return how often a device polls: the median of its gaps."""
        gaps = self.gaps[row]
        if not gaps:
            return self.usual_ms(0.9)
        codes = sorted(code for code in gaps.to_bytes(_GAPS, "big") if code)
        return _MS[codes[len(codes) // 2]]

    def usual_ms(self, share: float) -> float:
        """Return the gap that this share of all polls does not exceed, 0 where none is known."""
        rest = share * sum(self._codes)
        for code, count in enumerate(self._codes):
            rest -= count
            if rest <= 0:
                return _MS[code]
        return 0.0

    def state(self) -> tuple[bytes, ...]:
        """Return all of it, for `restore`."""
        columns = (getattr(self, name) for name in _NAMES)
        return (self.rows.state(), *(bytes(column) for column in columns))

    def restore(self, state: Iterable[bytes]) -> None:
        """Be what `state` was taken from."""
        numbers, *columns = state
        self.rows.restore(numbers)
        for name, column in zip(_NAMES, columns, strict=True):
            kind = _KINDS.get(name)
            setattr(self, name, array(kind, column) if kind else bytearray(column))
