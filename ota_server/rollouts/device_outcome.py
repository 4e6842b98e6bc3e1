"""What became of one device under a rollout, by its own records alone. I/O.

The controller sees other devices too, and so which ones fell silent for another reason; all else is
the same.
"""

from collections.abc import Iterator
from pathlib import Path

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.feedback import Feedback
from ota_server.journal.record_fields import key_in, whose
from ota_server.journal.search import oldest_first
from ota_server.model.timestamp import parse_time
from ota_server.model.version import same_version
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, begun_by
from ota_server.rollouts.audience import scope_of
from ota_server.rollouts.files import read_checkpoint, read_plan, read_progress
from ota_server.system.data_dir import journal_dir, log_dir


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
    plan = read_plan(data_dir, group)
    progress = None if plan is None else read_progress(data_dir, plan)
    if plan is None or progress is None:
        return None
    feedback = _begin(data_dir, plan, progress, policy, now_ms)
    reported = ""
    for record in _records(journal_dir(data_dir), key):
        feedback.observe(record)
        if key_in(record) == key:
            reported = str(record.get("firmware_version"))
    found = next(feedback.outcomes(now_ms), None)
    if found is None or found.state == DeviceState.WAITING:
        return None
    has_it = same_version(policy.release_of(reported), plan.version)
    if found.state == DeviceState.NOT_HEARD_FROM and has_it:
        return None
    return found.state, found.in_words(reported)


def _begin(
    data_dir: Path, plan: RolloutPlan, progress: RolloutProgress, policy: Policy, now_ms: int
) -> Feedback:
    checkpoint = read_checkpoint(log_dir(data_dir), plan) if plan.is_revert else None
    members = None if checkpoint is None else checkpoint.members
    known = scope_of(plan, policy, members, now_ms)
    opened_ms = min(parse_time(progress.wave_time), now_ms)
    return Feedback(begun_by(plan, now_ms), known, progress.wave, opened_ms)


def _records(logs: Path, key: str) -> Iterator[dict[str, object]]:
    """Yield the records of a device, and the markers, before which lines repeat what was known."""
    for record in oldest_first(logs, [whose(key).encode("ascii"), b'"event":"snapshot"']):
        if key_in(record) in (key, None):
            yield record
