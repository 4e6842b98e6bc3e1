"""The devices of a rollout that are not updated, in groups with one reason each. I/O.

What became of them is in the memory of the process that moves the rollout (`RolloutMemory`). Where
that is another process, or it does not count just now, it is folded from the checkpoint and from
the journal after that. What they report is in the index; without a whole one, in the journal.

So that a fleet does not become as many objects, devices are numbers until they are to be named.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import NamedTuple

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.outcome_groups import GroupedDevice, OutcomeGroup
from ota_server.evaluation.outcomes import WORST_FIRST
from ota_server.evaluation.poll_history import known_ms
from ota_server.model.address import address_of
from ota_server.model.identity import key_of_name, name_of
from ota_server.model.timestamp import format_time
from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.operations.index_reports import IndexReports
from ota_server.rollouts.find_rollout import RolloutOnFile
from ota_server.rollouts.outcome_list import (
    ListedDevice,
    counted_by_checkpoint,
    devices_by_checkpoint,
)
from ota_server.rollouts.rollout_memory import CountedRollout, RolloutMemory
from ota_server.system.data_dir import product_at

_PLACES: dict[str, int] = {state: place for place, state in enumerate(WORST_FIRST)}


class ListedGroup(NamedTuple):
    """Devices with the same state and reason.

    Attributes:
        total: how many there are.
        devices: the first of them by their keys.
    """

    state: str
    reason: str
    total: int
    devices: Sequence[ListedDevice]


class LiveRollouts(NamedTuple):
    """What a process knows of the rollouts that are on.

    Attributes:
        memory: what became of their devices; None: it moves none.
        reported: what devices report.
    """

    memory: RolloutMemory | None
    reported: DeviceIndex


def live_groups(
    data_dir: Path, rollout: RolloutOnFile, now_ms: int, most: int | None, live: LiveRollouts
) -> tuple[list[ListedGroup], int]:
    """Return the groups of a rollout that is on, the worst first, and as of when they are.

    Args:
        most: so many devices of each are named; None: all.

    Raises:
        BadPolicy, OSError: a file cannot be used or read.
    """
    try:
        with live.reported.reports():  # before a long wait, or a long work
            pass
        counted = None
        # Before a wave is open nothing is counted.
        if rollout.progress is not None and live.memory and live.memory.data_dir == data_dir:
            counted = live.memory.ask(rollout.plan.id)
        if counted is None:
            counted = counted_by_checkpoint(data_dir, rollout, now_ms)
        with live.reported.reports() as reports:
            return _Listing(counted, reports, product_at(data_dir), most).groups(), counted.now_ms
    except IndexAway:
        return grouped(devices_by_checkpoint(data_dir, rollout, now_ms), most), now_ms


def grouped(devices: Iterable[ListedDevice], most: int | None) -> list[ListedGroup]:
    """Return the groups of devices that come in order."""
    found: dict[tuple[str, str], list[ListedDevice]] = {}
    for each in devices:
        found.setdefault((each.state, each.reason), []).append(each)
    return [ListedGroup(*how, len(some), some[:most]) for how, some in found.items()]


def in_order(data_dir: Path, groups: Iterable[ListedGroup]) -> list[ListedDevice]:
    """Return the named devices of all groups of a product, the worst first."""
    product = product_at(data_dir)
    devices = (device for group in groups for device in group.devices)
    return sorted(devices, key=lambda each: (_PLACES[each.state], key_of_name(product, each.mac)))


class _Listing:
    """Lists the devices of one rollout, as it was counted."""

    def __init__(
        self, counted: CountedRollout, reports: IndexReports, product: str, most: int | None
    ) -> None:
        self._counted = counted
        self._reports = reports
        self._product = product
        self._most = most

    def groups(self) -> list[ListedGroup]:
        """Return all groups in order."""
        counts: dict[tuple[str, str], int] = {}
        first: dict[tuple[str, str], list[GroupedDevice]] = {}
        for group in self._counted.outcomes.groups():
            for reason, count, devices in self._by_reason(group):
                how = str(group.like.state), reason
                counts[how] = counts.get(how, 0) + count
                first[how] = self._first((*first.get(how, ()), *self._first(devices)))
        listed = (
            ListedGroup(*how, counts[how], self._named(*how, some)) for how, some in first.items()
        )
        key_of = self._counted.key_of
        begin = {how: min(key_of(number) for number, _, _ in some) for how, some in first.items()}
        return sorted(listed, key=lambda each: (_PLACES[each.state], begin[each[:2]]))

    def _first(self, devices: Iterable[GroupedDevice]) -> list[GroupedDevice]:
        return [*devices] if self._most is None else nsmallest(self._most, devices)

    def _by_reason(self, group: OutcomeGroup) -> Iterator[tuple[str, int, Iterable[GroupedDevice]]]:
        """Yield the devices of a group by their reasons: the reason, how many, which."""
        like = group.like
        if like.state == DeviceState.NOT_HEARD_FROM:
            # Some have updated in an earlier wave, or before the rollout.
            updated = self._on_release(group)
            if len(updated) < len(group.numbers):
                devices = group.devices()
                left = (each for each in devices if each[0] not in updated) if updated else devices
                yield like.in_words(""), len(group.numbers) - len(updated), left
        elif like.in_words("one") == like.in_words("another"):
            if group.numbers:
                yield like.in_words(""), len(group.numbers), group.devices()
        else:
            reported = {number: version for number, version, _ in self._reports.of(group.numbers)}
            parts: dict[str, list[GroupedDevice]] = {}
            for each in group.devices():
                parts.setdefault(reported.get(each[0], ""), []).append(each)
            for version, some in parts.items():
                yield like.in_words(version), len(some), some

    def _on_release(self, group: OutcomeGroup) -> set[int]:
        """Return which devices of a group report the release."""
        is_release = self._counted.rules.is_release
        versions = [each for each in self._reports.versions(self._product) if is_release(each)]
        if not versions:
            return set()
        among = set(group.numbers)
        return among.intersection(
            number for version in versions for number in self._reports.reporting(version)
        )

    def _named(
        self, state: str, reason: str, devices: Sequence[GroupedDevice]
    ) -> list[ListedDevice]:
        key_of, rules = self._counted.key_of, self._counted.rules
        numbers = (number for number, _, _ in devices)
        reports = {
            number: (version, format_time(seen_ms))
            for number, version, seen_ms in self._reports.of(numbers)
        }
        named = []
        for key, number, source, gaps in sorted((key_of(each[0]), *each) for each in devices):
            version, seen = reports.get(number, ("", ""))
            quiet_seconds = rules.quiet_seconds(known_ms(gaps))
            seen_at = version, seen, address_of(source)
            named.append(ListedDevice(name_of(key), state, reason, *seen_at, quiet_seconds))
        return named
