"""The rollouts that one device was in, and what it counted as. I/O."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.device_port.admission_status import read_server_state
from ota_server.evaluation.device_case import DeviceState
from ota_server.journal.record_fields import time_in
from ota_server.journal.search import oldest_first
from ota_server.model.identity import name_of
from ota_server.model.timestamp import parse_time
from ota_server.model.version import same_version
from ota_server.operations.rollout_words import state_of, title_of
from ota_server.policy.files import PolicyFiles
from ota_server.rollouts.audience import scope_of
from ota_server.rollouts.device_outcome import MARKER, DeviceFold
from ota_server.rollouts.find_rollout import all_rollouts
from ota_server.rollouts.history import EndedRollout, ended_rollouts
from ota_server.system.data_dir import journal_dir, log_dir

_WAITING = "its turn has not come, or it has not asked since"
_UPDATED = "it reported the release while the rollout was on"
# A device may report a release a while after its rollout has ended.
_LATER_MS = 3600 * 1000


class DeviceRollout(NamedTuple):
    """A rollout that a device was in.

    Attributes:
        title: what the rollout is called.
        state: that of the rollout.
        end_time: None: it is on.
        counts_as: the value of a `DeviceState`.
        reason: why, in words.
    """

    id: str
    title: str
    state: str
    start_time: str
    end_time: str | None
    counts_as: str
    reason: str


class RolloutsOfDevice:
    """Finds the rollouts that a device was in, by its records.

    Of those that are over, the ones whose devices are on record, or to whose release the kept
    journal shows the device change.
    """

    def __init__(self, data_dir: Path, key: str, now_ms: int) -> None:
        """Begin without a record.

        Raises:
            Refused, BadPolicy, OSError: a file cannot be used or read.
        """
        server = read_server_state(log_dir(data_dir))
        self._policy = PolicyFiles(data_dir, server.keeps_ungrouped, server.unserved).current()
        self._key = key
        self._now_ms = now_ms
        self._ended = ended_rollouts(data_dir, now_ms)
        self._changes: list[tuple[int, str]] = []  # when it came to run which release
        self._current = [
            (each, DeviceFold(data_dir, key, each.plan.group, self._policy, now_ms))
            for each in all_rollouts(data_dir)
            if each.is_on
        ]

    @property
    def needs_records(self) -> bool:
        """Whether the records of the device say anything of a rollout."""
        return bool(self._ended) or any(fold.needs_records for _, fold in self._current)

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take a record of the device, or a marker; the oldest first."""
        for _, fold in self._current:
            fold.observe(record)
        time_ms = time_in(record.get("time"))
        if time_ms is not None and "previous_version" in record:
            release = self._policy.release_of(str(record.get("firmware_version")))
            self._changes.append((time_ms, release))

    def found(self, limit: int = 20) -> list[DeviceRollout]:
        """Return them, the newest first."""
        found = [*self._found_current()]
        for entry in reversed(self._ended):
            if len(found) < limit and (case := _case_in(entry, self._key, self._changes)):
                title = title_of(entry.version, entry.group, entry.reverts)
                times = entry.start_time, entry.end_time
                found.append(DeviceRollout(entry.id, title, entry.state, *times, *case))
        return found[:limit]

    def _found_current(self) -> Iterator[DeviceRollout]:
        for (plan, progress), fold in self._current:
            case = fold.outcome()
            # Whom a revert is for is known to the controller alone.
            if case is None and (
                plan.is_revert
                or not scope_of(plan, self._policy, None, self._now_ms).reaches(self._key)
            ):
                continue
            title = title_of(plan.version, plan.group, plan.reverts)
            case = case or (str(DeviceState.WAITING), _WAITING)
            yield DeviceRollout(plan.id, title, state_of(plan, progress), plan.time, None, *case)


def rollouts_of(data_dir: Path, key: str, now_ms: int, limit: int = 20) -> list[DeviceRollout]:
    """Return the rollouts that a device was in, the newest first.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    rollouts = RolloutsOfDevice(data_dir, key, now_ms)
    if rollouts.needs_records:
        for _, record in oldest_first(journal_dir(data_dir), key, once=MARKER):
            rollouts.observe(record)
    return rollouts.found(limit)


def _case_in(
    entry: EndedRollout, key: str, changes: list[tuple[int, str]]
) -> tuple[str, str] | None:
    name = name_of(key)
    for device in entry.devices or ():
        if device.mac == name:
            return device.state, device.reason
    start_ms, end_ms = parse_time(entry.start_time), parse_time(entry.end_time) + _LATER_MS
    for time_ms, version in changes:
        if start_ms <= time_ms <= end_ms and same_version(version[:64], entry.version):
            return str(DeviceState.UPDATED), _UPDATED
    return None
