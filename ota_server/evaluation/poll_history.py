"""When each device of a fleet was heard from, and how often it polls. Pure.

A column for each thing that is known, so that a device takes some fifty bytes with its entry in the
index; a fleet of a million has a row for each.
"""

import math
from array import array
from collections.abc import Iterable
from typing import Any

from ota_server.evaluation.int_index import IntIndex
from ota_server.model.identity import KeyNames

NEVER = -1
NO_WAVE = 255  # a device that the rollout does not reach
FORGOTTEN = 254  # one that an operator had forgotten, until it is heard from again
# Of a gap, one byte: six steps for each doubling, up to a month in steps of an eighth.
_STEPS = 6
_GAPS = 8
_ALL_GAPS = (1 << 8 * _GAPS) - 1
# With fewer gaps than these on record, a device is taken to be like the others.
_GAPS_TO_KNOW = 3

_DAY_MS = 24 * 3600 * 1000

_KINDS = {"seen": "q", "polled": "q", "gaps": "Q", "source": "Q", "home": "Q", "_codes": "Q"}
_NAMES = (*_KINDS, "wave", "counts", "was_away")
# A device that polls less than once in so many soaks is a slow poller. They are judged apart: how
# the others do with a release says nothing of them.
SLOW_SOAKS = 12
# So many of its longest gaps without a poll, and a device has missed one.
GAPS_TO_MISS = 1.5
_MS = [0.0, *(2 ** (code / _STEPS) for code in range(1, 256))]


class PollHistory:
    """A row for each device. Times are in milliseconds of `Uptime`, or NEVER.

    Attributes:
        rows: the row of a device, by its MAC as a number.
        seen: when it was heard from last.
        polled: when it asked for the version last (or for the image, if it asks for nothing else),
            from its home.
        gaps: the times between its last eight polls, a byte each, the newest one lowest.
        source: the address from which it was heard last, as `source_of` has it.
        home: the address that it polls from.
        was_away: 1 where it has polled from elsewhere since it last did from its home.
        wave: the first wave that holds it.
        counts: 1 where it is known for long enough to be evidence.
        watched_ms: for how long the fold had seen the fleet when the rollout began.
        moved: the homes that were taken for others' new addresses (`contested`, rule 5).
    """

    def __init__(self, salt: int = 0) -> None:
        """Begin without a device. The `salt` is for the index."""
        self.rows = IntIndex(salt)
        self.names = KeyNames()
        self.seen = array("q")
        self.polled = array("q")
        self.gaps = array("Q")
        self.source = array("Q")
        self.home = array("Q")
        self.wave = bytearray()
        self.counts = bytearray()
        self.watched_ms = 0
        self.was_away = bytearray()
        self.moved: set[int] = set()
        # How many devices have each longest gap. A few quick devices have most of all gaps.
        self._codes = array("Q", bytes(8 * 256))

    def __len__(self) -> int:
        """Return the number of devices."""
        return len(self.seen)

    def add(self, number: int, source: int, wave: int, counts: bool) -> int:
        """Return the row of a device that had none, not heard from yet."""
        row = self.rows.add(number)
        self.seen.append(NEVER)
        self.polled.append(NEVER)
        self.gaps.append(0)
        self.source.append(source)
        self.wave.append(wave)
        self.counts.append(counts)
        self.home.append(source)
        self.was_away.append(0)
        return row

    def in_waves(self, last: int) -> bytes:
        """Return for each row 1 where the device counts and is in a wave up to the last one."""
        # By bits, since a loop over a million devices would take as long as all the rest.
        is_in = int.from_bytes(self.wave.translate(bytes(wave <= last for wave in range(256))))
        return (is_in & int.from_bytes(self.counts)).to_bytes(len(self.wave))

    def rows_in_wave(self, wave: int, most: int) -> tuple[list[int], int]:
        """Return the rows of one wave, and how many they are; where they are more, a sample."""
        rows = [row for row, each in enumerate(self.wave) if each == wave]
        return rows[:: max(len(rows) // most, 1)], len(rows)

    def forget(self, row: int) -> None:
        """Forget a device, as if it had never been heard from."""
        longest = _longest(self.gaps[row])
        self._codes[longest] -= longest > 0
        self.seen[row] = self.polled[row] = NEVER
        self.gaps[row] = self.counts[row] = self.was_away[row] = 0
        self.wave[row] = FORGOTTEN

    def poll(self, row: int, now_ms: int) -> None:
        """Record that a device polled from its home."""
        before = self.polled[row]
        self.polled[row], self.was_away[row] = now_ms, 0
        if before >= 0:
            self.measure(row, now_ms - before)

    def measure(self, row: int, gap_ms: int) -> None:
        """Record the time between two polls of a device."""
        code = min(int(math.log2(gap_ms + 1) * _STEPS) + 1, 255)
        before = self.gaps[row]
        after = self.gaps[row] = (before << 8 | code) & _ALL_GAPS
        was, longest = _longest(before), _longest(after)
        if was != longest:
            self._codes[was] -= was > 0
            self._codes[longest] += 1

    def trusted_ms(self, row: int) -> float:
        """Return how long a device goes without a poll before another address can be its home.

        Where little is known of it, as long as others do; where nothing is known of any, a day.
        """
        longest = _MS[_longest(self.gaps[row])]
        return self.known_gap_ms(row) or max(longest, self.usual_ms(0.9)) or _DAY_MS

    def known_gap_ms(self, row: int) -> float:
        """Return the longest of a device's poll gaps; 0.0 where too few are known."""
        return known_ms(self.gaps[row])

    def longest_ms(self, row: int, usual_ms: float) -> float:
        """Return the 90th percentile of a device's poll gaps: of eight, that is the longest.

        Args:
            usual_ms: what is taken at least where too few are known, as `usual_ms` has it.
        """
        gaps = self.gaps[row]
        longest = _MS[_longest(gaps)]
        if gaps >> 8 * (_GAPS_TO_KNOW - 1):
            return longest
        return max(longest, usual_ms, self._unknown_ms(gaps))

    def interval_ms(self, row: int) -> float:
        """Return how often a device polls: the median of its gaps."""
        gaps = self.gaps[row]
        if not gaps:
            return max(self.usual_ms(0.9), self._unknown_ms(gaps))
        codes = sorted(code for code in gaps.to_bytes(_GAPS, "big") if code)
        return _MS[codes[len(codes) // 2]]

    def is_slow(self, row: int, soak_ms: float) -> bool:
        """Return whether a device is a slow poller."""
        return self.interval_ms(row) > SLOW_SOAKS * max(soak_ms, 1)

    def _unknown_ms(self, gaps: int) -> float:
        """Return how long a gap has to be where so few fit into the time before the rollout.

        Devices of which little is known are slow ones, not like the quick ones that are known: but
        they poll once a day, or else more would be known of them some days later.
        """
        known = sum(code > 0 for code in gaps.to_bytes(_GAPS, "big"))
        return min(self.watched_ms / (known + 1), _DAY_MS)

    def usual_ms(self, share: float) -> float:
        """Return what the longest gaps of this share of devices do not exceed; 0: none is known."""
        rest = share * sum(self._codes)
        for code, count in enumerate(self._codes):
            rest -= count
            if rest <= 0:
                return _MS[code]
        return 0.0

    def key_at(self, row: int) -> str:
        """Return the key of the device in a row."""
        return self.names.key_of(self.rows.number_at(row))

    def state(self) -> tuple[Any, ...]:
        """Return all that is known, for `restore`."""
        columns = (getattr(self, name) for name in _NAMES)
        kept = self.rows.state(), self.names.hashed, self.watched_ms, sorted(self.moved)
        return (*kept, *(bytes(column) for column in columns))

    def restore(self, state: Iterable[Any]) -> None:
        """Take all that `state` returned, in place of what is known here."""
        numbers, self.names.hashed, self.watched_ms, moved, *columns = state
        self.rows.restore(numbers)
        self.moved = set(moved)
        for name, column in zip(_NAMES, columns, strict=True):
            kind = _KINDS.get(name)
            setattr(self, name, array(kind, column) if kind else bytearray(column))


def known_ms(gaps: int) -> float:
    """Return the longest of the poll gaps of a device; 0.0 where too few are known."""
    return _MS[_longest(gaps)] if gaps >> 8 * (_GAPS_TO_KNOW - 1) else 0.0


def _longest(gaps: int) -> int:
    return max(gaps.to_bytes(_GAPS, "big"))
