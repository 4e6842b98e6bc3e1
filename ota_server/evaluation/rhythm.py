"""How often devices poll, each for itself, by a sample of the fleet. Pure.

The interval of a device, by what the newest part of the journal covers:

1. It polled twice or more: the median of its last gaps.
2. It polled once: it does so no more often than once in the time covered, which is taken. That time
   begins when the device was first seen, if that is later.
3. It did not poll: this moment lies somewhere in a longer gap, on average in the middle. So that is
   twice the time since it was heard from last.

A median over all gaps would be that of the quick devices: one that polls each minute has as many
gaps as 1,440 that poll once a day.
"""

import re
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from ota_server.journal.record_fields import whose
from ota_server.model.timestamp import parse_time

_GAPS = 30
# As the server writes a poll. Devices that ask for nothing but the image poll by that.
_POLL = re.compile(
    rb'^\{"time":"([^"]{20,30})","event":"(?:check|begin(?=[^\n]*,"image_only":true))"'
    rb',("product":"[a-z0-9_\-]*+","(?:mac|id)":"(?:[^"\\]|\\.)*+")',
    re.MULTILINE,
)


class SampledDevice(NamedTuple):
    """A device of the sample; times in milliseconds since the epoch.

    Attributes:
        stand: where it stands in the rollout (`cohort_percent`).
        first_seen_ms: None where that is not on record.
    """

    stand: float
    key: str
    last_seen_ms: int
    first_seen_ms: int | None


class Rhythms:
    """The polls of the devices of a sample; take the lines of the journal in their order."""

    def __init__(self, sample: Iterable[SampledDevice]) -> None:
        self._sample = {whose(each.key).encode("ascii"): each for each in sample}
        self._polled_ms: dict[bytes, int] = {}
        self._gaps_ms: dict[bytes, deque[int]] = {}
        self._from_ms: int | None = None

    def take(self, lines: bytes) -> None:
        """Take whole lines of the journal."""
        for time, device in _POLL.findall(lines):
            if device not in self._sample and self._from_ms is not None:
                continue
            try:
                time_ms = parse_time(time.decode("ascii"))
            except ValueError:
                continue
            if self._from_ms is None:
                self._from_ms = time_ms
            if device in self._sample:
                self._poll(device, time_ms)

    def _poll(self, device: bytes, time_ms: int) -> None:
        before_ms = self._polled_ms.get(device)
        if before_ms is not None and time_ms > before_ms:
            self._gaps_ms.setdefault(device, deque(maxlen=_GAPS)).append(time_ms - before_ms)
        self._polled_ms[device] = time_ms

    def intervals_ms(self, now_ms: int) -> dict[float, float]:
        """Return the intervals of the devices whose interval is known, by where they stand."""
        found = (
            (each.stand, self._interval_ms(device, now_ms)) for device, each in self._sample.items()
        )
        return {stand: interval_ms for stand, interval_ms in found if interval_ms > 0}

    def _interval_ms(self, device: bytes, now_ms: int) -> float:
        """Return how often a device polls; 0 where that is not known."""
        if device in self._gaps_ms:
            return median(self._gaps_ms[device])
        sampled = self._sample[device]
        if device not in self._polled_ms:
            return 2 * (now_ms - sampled.last_seen_ms)
        return now_ms - max(self._from_ms or 0, sampled.first_seen_ms or 0)
