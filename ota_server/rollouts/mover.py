"""One rollout under way, as the controller moves it: reads the journal, decides, writes. I/O.

What decides is pure (`feedback`, `waves`). The order of the writes is such that a controller may be
killed between any two of them, and the next one goes on by the same evidence:

A wave opens, or the rollout pauses or goes on

    1. checkpoint     how far the rollout is now, and all that was read of the journal
    2. progress.json  what devices are told

    killed before 1: the next controller reads the same records again and decides the same;
    before 2: it finds the new state in the checkpoint, and writes it to progress.json.
    The other way round, devices would get a release by evidence that is no longer known.

The rollout ends: halted, done or aborted

    1. progress.json  where it is halted: "paused". At once nobody is offered the release any more;
                      nobody else writes this file, so nothing can be in the way
    2. checkpoint     how it ends
    3. stopped.json, targets.json, version.txt: what this end changes (`ending`)
    4. rollouts.jsonl a line for people (`history`)
    5. progress.json  how it ended: now the rollout is over

    killed before 2: the same records are read again, and end it again;
    later: the checkpoint says how it ends, so 3 is done, or found done; of two lines one is shown.
    Where 3 cannot be done now (a command holds the lock, a file is broken), progress.json says
    "paused" and what it waits for, and each step tries again.

Counts alone go to progress.json, at most once a second: they are counted again by anybody.
"""

import logging
import time
from pathlib import Path

from ota_server.evaluation.uptime import JUMP_MS
from ota_server.evaluation.waves import advance
from ota_server.journal.follow import Position
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    GOING_ON,
    OVER,
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
)
from ota_server.policy.rollout_text import name_of
from ota_server.rollouts import ending, history
from ota_server.rollouts.ending import Obstacles
from ota_server.rollouts.files import devices_command
from ota_server.rollouts.journal_fold import JournalFold, ServerFacts
from ota_server.rollouts.outcome_list import all_bad, devices_at_end, worst_named
from ota_server.rollouts.progress_record import ProgressRecord, is_same_state, log_state
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system.hints import hints
from ota_server.system.locks import Busy

log = logging.getLogger(__name__)

_BY_OPERATOR = "paused by an operator"
# A checkpoint is all that is known of each device, 16 MB of 100,000: written no faster than so many
# bytes a second, and seldom while nothing happens. What came later is read from the journal again.
_CHECKPOINT_SECONDS, _IDLE_SECONDS, _MOST_CHECKPOINT_SECONDS = 5.0, 60.0, 600.0
_CHECKPOINT_BYTES_A_SECOND = 50_000
# Each write of the progress has the server read its policy again.
_COUNTS_SECONDS = 1.0
# To count a million devices takes seconds: most of the time is for other things.
_REST_FOR_WORK = 4.0
_MOST_TOLD = 100  # devices that a notice names


class RolloutMover:
    """Moves one rollout. Used by one thread.

    Attributes:
        plan: what operators want of it, as it was read last.
        is_over: there is nothing more to do about it.
    """

    def __init__(
        self,
        data_dir: Path,
        plan: RolloutPlan,
        policies: PolicyFiles,
        server: ServerFacts,
        now_ms: int,
        memory: RolloutMemory | None = None,
    ) -> None:
        """Go on where the last controller was, or begin with the oldest line of the journal."""
        self.plan = plan
        self.is_over = False
        self._data_dir = data_dir
        self._obstacles = Obstacles(data_dir)
        self._record = ProgressRecord(data_dir, plan)
        found = self._record.progress
        self._fold = JournalFold(data_dir, plan, policies, server, found, now_ms, memory)
        self._progress = self._fold.progress
        self._is_caught_up = False
        self._checkpoint_at = self._counts_at = self._tally_at = 0.0
        self._written_up_to: Position | None = None

    @property
    def is_on_record(self) -> bool:
        """Whether what was to be written last could be written."""
        return self._record.is_written

    def change(self, plan: RolloutPlan) -> None:
        """Take the plan as it is now."""
        if plan != self.plan:
            self.plan = plan
            self._fold.change(plan)

    def note_clock_jump(self, now_ms: int) -> None:
        """Begin soak and silence again."""
        self._fold.feedback.note_clock_jump(now_ms)

    def close(self, now_ms: int) -> None:
        """Write a last checkpoint, unless the rollout is over, and close the journal."""
        try:
            if not self.is_over:
                self._write_checkpoint(self._progress, now_ms)
        finally:
            self._fold.close()

    def step(self, now_ms: int, now: float) -> bool:
        """Read what is new and decide; True where there is more to read at once.

        Args:
            now: in seconds of a monotonic clock.

        Raises:
            OSError, BadPolicy, Busy: a file cannot be read or written; try again later.
        """
        self._fold.look_at_policy(now_ms, now)
        is_aborted = self.plan.wanted == RolloutWish.ABORT
        if self._progress is not None and self._progress.state in OVER:
            # The end could not be brought about, or the last controller was killed before it was.
            is_undone = is_aborted and self._progress.state == RolloutState.DONE
            self._write_end(self._aborted(now_ms) if is_undone else self._progress, now_ms)
            return False
        if not self._fold.read():
            if is_aborted:
                self._record_move(self._aborted(now_ms), now_ms, now)
            self._write_checkpoint_at_times(now_ms, now)
            return not self.is_over
        if not self._is_caught_up:
            self._open_first_wave(now_ms)
        if now >= self._tally_at or self._fold.is_awaited():
            self._decide(now_ms, now)
        self._write_checkpoint_at_times(now_ms, now)
        return False

    def _open_first_wave(self, now_ms: int) -> None:
        """Open the first wave, unless one is open, now that all that went before has been read."""
        self._is_caught_up = True
        if self._progress is None:
            self._fold.feedback.open_wave(0, now_ms)
            # It is written after the first decision: the last controller may have been killed
            # between its checkpoint and a halt.
            self._progress = RolloutProgress(
                self.plan.id, RolloutState.RUNNING, 0, format_time(now_ms)
            )

    # Deciding

    def _decide(self, now_ms: int, now: float) -> None:
        assert self._progress is not None
        began = time.monotonic()
        before = self._restarted_after_loss(self._resumed(self._progress, now_ms), now_ms)
        before = self._restarted_after_jump(before, now_ms)
        self._fold.note_standstill(before, now_ms)
        tally = self._fold.tally(now_ms, before.accepted)
        after = advance(self.plan, before, tally, now_ms)
        ended = before._replace(reason="", counts=after.counts, waiting="")
        if self._fold.policy.is_withdrawn(self.plan.version):
            reason = ending.withdrawn_for(self._data_dir, self.plan.version)
            after = ended._replace(state=RolloutState.HALTED, reason=reason)
        elif after.state in (*GOING_ON, RolloutState.DONE) and self._obstacles.is_target(self.plan):
            # Somebody did by hand what this was for.
            after = ended._replace(state=RolloutState.DONE)
        elif after.state in (RolloutState.RUNNING, RolloutState.DONE):
            after = self._unless_paused(before, after, now)
        self._record_move(after, now_ms, now)
        self._tally_at = now + (time.monotonic() - began) * _REST_FOR_WORK

    def _resumed(self, progress: RolloutProgress, now_ms: int) -> RolloutProgress:
        """End a pause where an operator wants it or its image is back; a late wave begins again."""
        has_image = progress.is_blocked and not self._obstacles.image_problem(
            self.plan, self._fold.policy
        )
        is_over = has_image or self.plan.resumed > progress.resumed
        if self.plan.wanted != RolloutWish.RUN or not is_over:
            return progress
        progress = progress._replace(
            state=RolloutState.RUNNING, reason="", resumed=self.plan.resumed, is_blocked=False
        )
        open_ms = now_ms - parse_time(progress.wave_time)
        if open_ms < self.plan.wave_timeout_seconds * 1000:
            return progress
        self._fold.feedback.open_wave(progress.wave, now_ms)
        return progress._replace(wave_time=format_time(now_ms))

    def _restarted_after_loss(self, progress: RolloutProgress, now_ms: int) -> RolloutProgress:
        """Begin the soak again where a part of the journal was gone before it was read."""
        if not self._fold.has_lost_records():
            return progress
        log.warning(
            "%s: a part of the journal was moved, cut or deleted before it was read; the soak of "
            "wave %d begins again",
            name_of(self.plan),
            progress.wave + 1,
        )
        self._fold.feedback.open_wave(progress.wave, now_ms)
        return progress._replace(wave_time=format_time(now_ms))

    def _restarted_after_jump(self, progress: RolloutProgress, now_ms: int) -> RolloutProgress:
        """Begin the time of a wave again where the clock that it is measured by jumped."""
        is_to_come = parse_time(progress.wave_time) > now_ms + JUMP_MS
        if not self._fold.has_jumped() and not is_to_come:
            return progress
        name = name_of(self.plan)
        log.warning("%s: the clock jumped; soak, silence and wave time begin again", name)
        return progress._replace(wave_time=format_time(now_ms))

    def _unless_paused(
        self, before: RolloutProgress, after: RolloutProgress, now: float
    ) -> RolloutProgress:
        """Return what follows, or a pause where an operator or the files do not let it go on."""
        by_operator, policy = self.plan.wanted == RolloutWish.PAUSE, self._fold.policy
        reason = _BY_OPERATOR if by_operator else self._obstacles.reason(self.plan, policy, now)
        if reason == "":
            return after
        before = before._replace(counts=after.counts)
        if reason is None:
            return before._replace(waiting=after.waiting)
        is_blocked = reason == self._obstacles.image_problem(self.plan, policy)
        paused = before._replace(state=RolloutState.PAUSED, reason=reason, is_blocked=is_blocked)
        return paused._replace(waiting="", lifts=False, asks=())

    def _aborted(self, now_ms: int) -> RolloutProgress:
        state = RolloutState.ABORTED
        progress = self._progress or RolloutProgress(self.plan.id, state, 0, format_time(now_ms))
        return progress._replace(state=state, reason="aborted by an operator")

    # Writing, in the order that the head of this file explains

    def _record_move(self, after: RolloutProgress, now_ms: int, now: float) -> None:
        """Write what was decided; where that is nothing new, the counts alone."""
        before = self._progress
        if is_same_state(after, before) and is_same_state(after, self._record.progress):
            self._progress = after
            self._write_counts(after, now)
            return
        if before is not None and after.wave != before.wave:
            closed = (after.counts,) * (after.wave - len(after.before))
            after = after._replace(before=(*after.before, *closed)[: after.wave])
            self._fold.feedback.open_wave(after.wave, now_ms)
        if after.state in OVER:
            self._write_end(after, now_ms)
        else:
            self._write_checkpoint_then_progress(after, now_ms)

    def _write_counts(self, progress: RolloutProgress, now: float) -> None:
        if now >= self._counts_at:
            self._counts_at = now + _COUNTS_SECONDS
            if progress != self._record.progress or self._record.is_changed_by_others():
                self._record.write_progress(progress)

    def _write_checkpoint_then_progress(self, progress: RolloutProgress, now_ms: int) -> None:
        self._write_checkpoint(progress, now_ms)
        self._progress = progress
        if progress == self._record.progress:
            return
        self._record.write_progress(progress)
        log_state(self.plan, progress)

    def _write_end(self, progress: RolloutProgress, now_ms: int) -> None:
        """Write that the rollout ends, what that changes, then that it has ended."""
        is_halt = progress.state == RolloutState.HALTED and not self.plan.is_revert
        if is_halt and not self._record.is_paused:
            self._record.pause_to_halt(progress)
        if progress is not self._progress:
            self._write_checkpoint_of_end(progress, now_ms, is_halt)
        try:
            problem = ending.bring_about(self._data_dir, self.plan, progress, now_ms)
        except (BadPolicy, Busy, OSError) as trouble:
            self._write_paused_until_ended(progress, str(trouble))
            return
        if problem:
            paused = progress._replace(state=RolloutState.PAUSED, reason=problem)
            self._write_checkpoint_then_progress(paused, now_ms)
            return
        devices = devices_at_end(self._fold, self._data_dir, self.plan, now_ms)
        history.note_end(self._data_dir, self.plan, progress, devices, now_ms)
        bad = all_bad(devices or ()) if progress.state == RolloutState.HALTED else []
        macs = tuple(device.mac for device in bad[:_MOST_TOLD])
        self._record.write_progress(progress._replace(bad=macs))
        log_state(self.plan, progress)
        if bad:
            command = devices_command(self._data_dir, self.plan.group)
            said = f"%s: %s; {command} has the reason of each"
            log.warning(said, name_of(self.plan), worst_named(bad))
        self.is_over = True

    def _write_checkpoint_of_end(
        self, progress: RolloutProgress, now_ms: int, is_halt: bool
    ) -> None:
        """Write how it ends. Where a disk is full, a bad release is withdrawn all the same."""
        try:
            self._write_checkpoint(progress, now_ms)
        except OSError as problem:
            if not is_halt:
                raise
            log.error("%s: the checkpoint cannot be written: %s", name_of(self.plan), problem)
        self._progress = progress

    def _write_paused_until_ended(self, progress: RolloutProgress, problem: str) -> None:
        """Offer it to nobody new until the end can be brought about; say what it waits for."""
        is_done = progress.state == RolloutState.DONE
        what = "it has reached all, and is not the target yet" if is_done else "not withdrawn yet"
        paused = progress._replace(state=RolloutState.PAUSED, waiting=f"{what}: {problem}")
        if paused != self._record.progress:
            self._record.write_progress(paused)
            said = "; ".join(filter(None, (paused.reason, paused.waiting)))
            log.error("%s: %s", name_of(self.plan), hints.paste(said))

    def _write_checkpoint_at_times(self, now_ms: int, now: float) -> None:
        is_idle = self._fold.position == self._written_up_to
        if self.is_over or now < self._checkpoint_at + is_idle * _IDLE_SECONDS:
            return
        # Before it is written: a disk that fails is not tried at each step.
        self._checkpoint_at = now + _CHECKPOINT_SECONDS
        size = self._write_checkpoint(self._progress, now_ms)
        pause = max(size / _CHECKPOINT_BYTES_A_SECOND, _CHECKPOINT_SECONDS)
        self._checkpoint_at = now + min(pause, _MOST_CHECKPOINT_SECONDS)

    def _write_checkpoint(self, progress: RolloutProgress | None, now_ms: int) -> int:
        """Write all that another controller needs; return how many bytes that is."""
        size = self._record.write_checkpoint(self._fold.checkpoint(progress, now_ms))
        self._written_up_to = self._fold.position
        return size
