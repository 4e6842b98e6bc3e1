"""What became of one device under a rollout, by its own records alone. I/O.

The controller sees other devices too, and so which ones fell silent for another reason; all else is
the same.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.tally import Tally
from ota_server.journal.replay import records_with
from ota_server.model.timestamp import parse_time
from ota_server.model.version import same_version
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.rollouts.audience import scope_of
from ota_server.rollouts.files import read_checkpoint, read_plan, read_progress
from ota_server.system.data_dir import log_dir

# The first state that `Tally` has counted is told. {0}: the version that the device reports.
WORDS = {
    "displaced": "it is heard only from an address that is not its home, and not believed",
    "too_new": "it was not known for a day before the start; it is not counted (--count-new)",
    "failed": "it had the whole image, and reports {0} still",
    "mislabelled": "it has the image, and reports {0}, which is not a release (--reports-as)",
    "silent": "it has the image, and has not been heard from since",
    "updated": "it reports the release",
    "undecided": "it has the image, and has not reported the release yet",
    "downloading": "it is downloading the image",
    "cut": "its download was cut, which is the network's fault",
    "offered": "it was told of the release, and has not asked for the image yet",
}
_WENT_BACK = "it ran the release, and went back to {0}"


def outcome_of(
    data_dir: Path, mac: str, group: str, policy: Policy, now_ms: int
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
    has_run_it, reported = False, ""
    for record in _records(log_dir(data_dir), mac):
        feedback.observe(record)
        if record.get("mac") == mac:
            reported = str(record.get("firmware_version"))
            has_run_it = has_run_it or (
                same_version(policy.release_of(reported), plan.version)
                and str(record.get("time")) >= plan.time
            )
    name = _name(feedback.tally(now_ms))
    if name is None:
        return None
    words = _WENT_BACK if name == "failed" and has_run_it else WORDS[name]
    return name, words.format(reported)


def _begin(
    data_dir: Path, plan: RolloutPlan, progress: RolloutProgress, policy: Policy, now_ms: int
) -> Feedback:
    checkpoint = read_checkpoint(log_dir(data_dir), plan) if plan.is_revert else None
    members = None if checkpoint is None else checkpoint.members
    known = scope_of(plan, policy, members, now_ms)
    return Feedback(plan, known, progress.wave, parse_time(progress.wave_time))


def _records(logs: Path, mac: str) -> Iterator[dict[str, object]]:
    """Yield the records of a device, and the markers, before which lines repeat what was known."""
    pattern = re.compile(rb'"%b"|"event":"snapshot"' % mac.encode("ascii"))
    for record in records_with(logs, pattern):
        if record.get("mac") in (mac, None):
            yield record


def _name(tally: Tally) -> str | None:
    return next((name for name in WORDS if getattr(tally, name)), None)
