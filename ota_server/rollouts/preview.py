"""A fleet before a rollout: which devices are active, which count, how often each polls. I/O.

A device takes nine bytes here, since a fleet may have a million of them.
"""

from array import array
from collections.abc import Iterator
from heapq import heappush, heappushpop
from pathlib import Path
from typing import NamedTuple

from ota_server.evaluation.rhythm import Rhythms, SampledDevice
from ota_server.evaluation.scope import RolloutScope
from ota_server.journal.files import CURRENT_NAME, journal_files
from ota_server.journal.record import BadRecord, parse_fields
from ota_server.journal.replay import replay
from ota_server.model.device import Device
from ota_server.model.timestamp import parse_time
from ota_server.model.updater import SAYS_ITS_END, family_of
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.system.files import open_regular

DAY_MS = 86400 * 1000
ACTIVE_MS = 7 * DAY_MS
_LINE_BYTES = 64 * 1024
# Where a member of the first group stands: before all others.
_IN_FIRST_GROUP = -1.0
# So many devices tell the share of slow pollers to 2 %, and are more than a first wave needs.
_SAMPLE = 4000
# Some 800,000 records, which takes two seconds: a day and more of a fleet that polls once an hour.
_MOST_BYTES = 256 * 1024 * 1024
_BLOCK_BYTES = 4 * 1024 * 1024


class ReachedDevices(NamedTuple):
    """The devices that a rollout reaches.

    Attributes:
        stands: where each active device stands in the rollout (`cohort_percent`).
        counts: for each of these, 1 where it counts as evidence: it was known a day ago.
        inactive: how many devices were not heard from for a week.
        sample: of the active devices the first ones, by where they stand.
        unseen: how many of the active devices report no version, nor how an update ends.
        snapshot_end: up to where the journal's current file repeats what is known, in bytes.
    """

    stands: "array[float]"
    counts: bytearray
    inactive: int
    sample: tuple[SampledDevice, ...] = ()
    snapshot_end: int = 0
    unseen: int = 0

    def added(self, plan: RolloutPlan) -> tuple[int, ...]:
        """Return how many active devices each wave adds."""
        return self._per_wave(plan, b"\1" * len(self.stands))

    def counting(self, plan: RolloutPlan) -> tuple[int, ...]:
        """Return how many of the devices that each wave adds count."""
        return self._per_wave(plan, self.counts)

    def _per_wave(self, plan: RolloutPlan, weights: bytes | bytearray) -> tuple[int, ...]:
        per_wave = [0] * plan.wave_count
        last, waves = plan.wave_count - 1, plan.waves_at(self.stands)
        for stand, wave, weight in zip(self.stands, waves, weights, strict=True):
            per_wave[0 if stand < 0 else min(wave, last)] += weight
        return tuple(per_wave)

    def counting_stands(self) -> Iterator[float]:
        """Yield where the devices stand that count, those of the first group not among them."""
        for stand, counts in zip(self.stands, self.counts, strict=True):
            if counts and stand >= 0:
                yield stand


class _Sample:
    """The devices that stand first, which is a sample at random: they stand where a hash says."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, SampledDevice]] = []

    def add(self, stand: float, key: str, device: Device) -> None:
        """Take a device, unless the sample is full of devices that stand before it."""
        if len(self._heap) == _SAMPLE and -stand <= self._heap[0][0]:
            return
        entry = -stand, SampledDevice(stand, key, device.last_seen_ms, device.first_seen_ms)
        push = heappush if len(self._heap) < _SAMPLE else heappushpop
        push(self._heap, entry)

    def devices(self) -> tuple[SampledDevice, ...]:
        """Return those that stand first."""
        return tuple(each for _, each in self._heap)


def find_reached(
    log_dir: Path, plan: RolloutPlan, scope: RolloutScope, now_ms: int
) -> ReachedDevices:
    """Find the devices that a rollout reaches.

    Raises:
        OSError: the journal cannot be read.
    """
    stands, counts, sample = array("d"), bytearray(), _Sample()
    inactive = unseen = 0
    oldest_ms = _oldest_record_ms(log_dir, now_ms)
    found = replay(log_dir)
    try:
        for key, device in found.devices(scope.product):
            if not scope.reaches(key):
                continue
            if now_ms - device.last_seen_ms > ACTIVE_MS:
                inactive += 1
                continue
            says_end = family_of(device.updater) == SAYS_ITS_END
            unseen += device.firmware_version == UNKNOWN_VERSION and not says_end
            stand = cohort_percent(plan.version, key)
            sample.add(stand, key, device)
            stands.append(_IN_FIRST_GROUP if key in scope.first_group else stand)
            first_ms = oldest_ms if device.first_seen_ms is None else device.first_seen_ms
            counts.append(plan.count_new or now_ms - first_ms >= DAY_MS)
    finally:
        found.close()
    end = found.marker_end or 0
    return ReachedDevices(stands, counts, inactive, sample.devices(), end, unseen)


def intervals_ms(log_dir: Path, found: ReachedDevices, now_ms: int) -> dict[float, float]:
    """Return how often the devices of the sample poll, by where they stand.

    Raises:
        OSError: the journal cannot be read.
    """
    rhythms = Rhythms(found.sample)
    for lines in _newest_lines(log_dir, found.snapshot_end):
        rhythms.take(lines)
    return rhythms.intervals_ms(now_ms)


def _newest_lines(log_dir: Path, snapshot_end: int) -> Iterator[bytes]:
    """Yield the newest lines of the journal, the oldest of them first, in blocks."""
    parts: list[tuple[Path, int]] = []
    left = _MOST_BYTES
    for path in reversed(journal_files(log_dir)):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            break  # a running server deletes old files
        begin = snapshot_end if path.name == CURRENT_NAME and snapshot_end <= size else 0
        start = max(begin, size - left)
        parts.append((path, start))
        left -= size - start
        if left <= 0:
            break
    for path, start in reversed(parts):
        try:
            descriptor = open_regular(path)
        except FileNotFoundError:
            continue
        with open(descriptor, "rb") as file:
            if start:
                file.seek(start - 1)
                file.readline(_LINE_BYTES)
            while block := file.read(_BLOCK_BYTES):
                yield block + file.readline(_LINE_BYTES)


def _oldest_record_ms(log_dir: Path, now_ms: int) -> int:
    """Return when the journal that is kept begins; `now_ms` where nothing is in it."""
    for path in journal_files(log_dir):
        descriptor = open_regular(path)
        with open(descriptor, "rb") as file:
            line = file.readline(_LINE_BYTES)
        try:
            return parse_time(str(parse_fields(line).get("time")))
        except (BadRecord, ValueError):
            continue
    return now_ms
