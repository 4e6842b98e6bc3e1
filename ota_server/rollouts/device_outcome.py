"""What became of one device under a rollout, by its own records alone. I/O.

The controller sees other devices too, and so which ones fell silent for another reason; all else is
the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.feedback import Feedback
from ota_server.journal.record_fields import key_in
from ota_server.journal.search import oldest_first
from ota_server.model.timestamp import parse_time
from ota_server.model.version import same_version
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, begun_by
from ota_server.rollouts.audience import scope_of
from ota_server.rollouts.files import read_checkpoint, read_plan, read_progress
from ota_server.system.data_dir import journal_dir, log_dir

# Before the first one, lines repeat what was known when the oldest file that is kept was begun.
MARKER = b'"event":"snapshot"'


class DeviceFold:
    """What one rollout makes of the records of one device, the oldest first."""

    def __init__(self, data_dir: Path, key: str, group: str, policy: Policy, now_ms: int) -> None:
        """Begin with the rollout to a group; "" is the whole fleet.

        Raises:
            BadPolicy, OSError: the plan cannot be used or read.
        """
        self._key = key
        self._policy = policy
        self._now_ms = now_ms
        self._plan = plan = read_plan(data_dir, group)
        progress = None if plan is None else read_progress(data_dir, plan)
        self._feedback: Feedback | None = None
        self._reported = ""
        if plan is not None and progress is not None:
            self._feedback = _begin(data_dir, plan, progress, policy, now_ms)

    @property
    def needs_records(self) -> bool:
        """Whether its records say anything: whether a wave has opened."""
        return self._feedback is not None

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take a record of the device, or a marker."""
        if self._feedback is not None:
            self._feedback.observe(record)
            if key_in(record) == self._key:
                self._reported = str(record.get("firmware_version"))

    def outcome(self) -> tuple[str, str] | None:
        """Return what it counts as, as `outcome_of`."""
        if self._feedback is None or self._plan is None:
            return None
        found = next(self._feedback.outcomes(self._now_ms), None)
        if found is None or found.state == DeviceState.WAITING:
            return None
        has_it = same_version(self._policy.release_of(self._reported), self._plan.version)
        if found.state == DeviceState.NOT_HEARD_FROM and has_it:
            return None
        return found.state, found.in_words(self._reported)


def outcome_of(
    data_dir: Path, key: str, group: str, policy: Policy, now_ms: int
) -> tuple[str, str] | None:
    """Return what a device counts as under the rollout to a group, in one word and in several.

    None: it does not count yet, since the rollout has not offered it anything.

    Args:
        group: "" is the whole fleet.

    Raises:
        BadPolicy, OSError: the plan or the journal cannot be used or read.
    """
    fold = DeviceFold(data_dir, key, group, policy, now_ms)
    if fold.needs_records:
        for _, record in oldest_first(journal_dir(data_dir), key, once=MARKER):
            fold.observe(record)
    return fold.outcome()


def _begin(
    data_dir: Path, plan: RolloutPlan, progress: RolloutProgress, policy: Policy, now_ms: int
) -> Feedback:
    checkpoint = read_checkpoint(log_dir(data_dir), plan) if plan.is_revert else None
    members = None if checkpoint is None else checkpoint.members
    known = scope_of(plan, policy, members, now_ms)
    opened_ms = min(parse_time(progress.wave_time), now_ms)
    return Feedback(begun_by(plan, now_ms), known, progress.wave, opened_ms)
