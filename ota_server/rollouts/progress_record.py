"""What is on record of a rollout under way, and whether that could be written. I/O."""

import logging
from pathlib import Path

from ota_server.policy.rollout_plan import Plan, Progress
from ota_server.rollouts.files import Checkpoint, read_progress, write_checkpoint, write_progress
from ota_server.system.data_dir import log_dir

log = logging.getLogger(__name__)


class OnRecord:
    """The progress and the checkpoint of one rollout. Used by one thread.

    Attributes:
        progress: as it was read or written last; None: there is none yet.
    """

    def __init__(self, data_dir: Path, plan: Plan) -> None:
        """Begin with what the last controller wrote.

        Raises:
            OSError: it cannot be read.
        """
        self._data_dir = data_dir
        self._plan = plan
        self._unwritten: set[str] = set()
        self.progress = read_progress(data_dir, plan)

    @property
    def is_right(self) -> bool:
        """Whether what was to be written last could be written."""
        return not self._unwritten

    def is_gone(self) -> bool:
        """Say whether somebody deleted or changed the progress, which the controller alone writes.

        Raises:
            OSError: it cannot be read.
        """
        return read_progress(self._data_dir, self._plan) != self.progress

    def put(self, progress: Progress) -> None:
        """Replace the progress.

        Raises:
            OSError: it cannot be written.
        """
        self._unwritten.add("progress")
        write_progress(self._data_dir, self._plan.group, progress)
        self._unwritten.discard("progress")
        self.progress = progress

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        self._unwritten.add("checkpoint")
        write_checkpoint(log_dir(self._data_dir), self._plan.group, checkpoint)
        self._unwritten.discard("checkpoint")


def is_same_state(one: Progress, other: Progress | None) -> bool:
    """Say whether all is the same but what changes all the time: the counts, and what they say."""
    if other is None:
        return False
    return other == one._replace(counts=other.counts, waiting=other.waiting, notes=other.notes)


def name_of(plan: Plan) -> str:
    """Return what the log calls a rollout."""
    return f"rollout of {plan.version}{f' to {plan.group}' * bool(plan.group)}"


def say(plan: Plan, progress: Progress) -> None:
    """Tell the log how far a rollout is."""
    name = name_of(plan)
    if progress.state == "running":
        percent = plan.percent(progress.wave)
        whom = f"{percent:g} %" if percent else f"the group {plan.first_group}"
        wave, waves = progress.wave + 1, plan.wave_count
        log.info("%s: wave %d of %d is open, %s", name, wave, waves, whom)
    elif progress.state == "done":
        log.info("%s is done", name)
    else:
        log.warning("%s is %s: %s", name, progress.state, progress.reason)
