"""What is on record of a rollout under way, and whether that could be written. I/O."""

import logging
from pathlib import Path

from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
)
from ota_server.policy.rollout_text import state_text
from ota_server.rollouts import files
from ota_server.rollouts.files import Checkpoint
from ota_server.system.data_dir import log_dir
from ota_server.system.hints import hints

log = logging.getLogger(__name__)


class ProgressRecord:
    """The progress and the checkpoint of one rollout. Used by one thread.

    Attributes:
        progress: as it was read or written last; None: there is none yet.
    """

    def __init__(self, data_dir: Path, plan: RolloutPlan) -> None:
        """Begin with what the last controller wrote.

        Raises:
            OSError: it cannot be read.
        """
        self._data_dir = data_dir
        self._plan = plan
        self._unwritten: set[str] = set()
        self.progress = files.read_progress(data_dir, plan)

    @property
    def is_written(self) -> bool:
        """Whether what was to be written last could be written."""
        return not self._unwritten

    @property
    def is_paused(self) -> bool:
        """Whether devices are told, by what is on record, that it is paused."""
        return self.progress is not None and self.progress.state == RolloutState.PAUSED

    def is_changed_by_others(self) -> bool:
        """Return whether somebody deleted or changed the progress, which the controller writes.

        Raises:
            OSError: it cannot be read.
        """
        return files.read_progress(self._data_dir, self._plan) != self.progress

    def write_progress(self, progress: RolloutProgress) -> None:
        """Replace the progress.

        Raises:
            OSError: it cannot be written.
        """
        self._unwritten.add("progress")
        files.write_progress(self._data_dir, self._plan.group, progress)
        self._unwritten.discard("progress")
        self.progress = progress

    def pause_to_halt(self, progress: RolloutProgress) -> None:
        """Replace the progress by a pause until the halt of the rollout is on record.

        Raises:
            OSError: it cannot be written.
        """
        self.write_progress(progress._replace(state=RolloutState.PAUSED, is_halting=True))

    def write_checkpoint(self, checkpoint: Checkpoint) -> int:
        """Replace the checkpoint; return how many bytes it has.

        Raises:
            OSError: it cannot be written.
        """
        self._unwritten.add("checkpoint")
        size = files.write_checkpoint(log_dir(self._data_dir), self._plan.group, checkpoint)
        self._unwritten.discard("checkpoint")
        return size


def is_same_state(one: RolloutProgress, other: RolloutProgress | None) -> bool:
    """Return whether two are the same, but for the counts and the texts that tell them."""
    if other is None:
        return False
    return other == one._replace(counts=other.counts, waiting=other.waiting, notes=other.notes)


def log_state(plan: RolloutPlan, progress: RolloutProgress) -> None:
    """Write to the log how far a rollout is."""
    is_well = progress.state in (RolloutState.RUNNING, RolloutState.DONE) and not progress.asks
    log.log(
        logging.INFO if is_well else logging.WARNING, "%s", hints.paste(state_text(plan, progress))
    )
