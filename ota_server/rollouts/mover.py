"""One rollout under way, as the controller moves it: folds the journal, decides, writes. I/O.

What decides is pure (`feedback`, `waves`). A checkpoint goes before what follows from it, so that
whoever is killed at any moment goes on by the same evidence.
"""

import logging
import time
from pathlib import Path

from ota_server.evaluation.feedback import BadCheckpoint, Feedback, Known
from ota_server.evaluation.waves import advance
from ota_server.journal.follow import Follower
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import Plan, Progress
from ota_server.rollouts import ending
from ota_server.rollouts.audience import what_is_known, who_runs
from ota_server.rollouts.ending import Obstacles
from ota_server.rollouts.files import Checkpoint, read_checkpoint
from ota_server.rollouts.progress_record import OnRecord, is_same_state, name_of, say
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import Busy

log = logging.getLogger(__name__)

BY_OPERATOR = "paused by an operator"
# A step begins no other block of the journal after that: other rollouts wait for their steps.
_READ_SECONDS = 0.05
_CHECKPOINT_SECONDS = 5.0
# Each write of the progress has the server look at its policy anew.
_COUNTS_SECONDS = 1.0
# A pin that ends at a time moves no file.
_PINS_SECONDS = 60.0
# A tally of a million devices takes seconds: most of the time is for other things.
_REST_FOR_WORK = 4.0
_OVER = ("halted", "done", "aborted")
_NOBODY = Known(members=frozenset())


class Rolling:
    """Moves one rollout. Used by one thread.

    Attributes:
        plan: what operators want of it, as it was read last.
        is_over: there is nothing more to do about it.
    """

    def __init__(
        self,
        data_dir: Path,
        plan: Plan,
        policies: PolicyFiles,
        server_started_ms: int,
        now_ms: int,
        completion_unknown: bool = False,
    ) -> None:
        """Go on where the last controller was, or begin with the oldest line of the journal."""
        self.plan = plan
        self.is_over = False
        self._data_dir = data_dir
        self._log_dir = log_dir(data_dir)
        self._policies = policies
        self._server_started_ms = server_started_ms
        self._completion_unknown = completion_unknown
        self._obstacles = Obstacles(data_dir)
        self._record = OnRecord(data_dir, plan)
        self._progress = self._record.progress
        self._members: frozenset[str] | None = None
        self._outage_from_ms: int | None = None
        self._losses = 0
        self._is_caught_up = False
        self._checkpoint_at = self._counts_at = self._tally_at = self._known_at = 0.0
        checkpoint = read_checkpoint(self._log_dir, plan)
        if checkpoint is None or not self._resume(checkpoint):
            self._begin(now_ms)
        self._jumps = self._feedback.clock_jumps

    def _begin(self, now_ms: int) -> None:
        self._policy = self._policies.current()
        if self.plan.reverts:
            self._members = who_runs(self._log_dir, self._policy, self.plan.reverts)
        self._known = self._find_known(now_ms)
        progress = self._progress
        opened_ms = now_ms if progress is None else parse_time(progress.wave_time)
        wave = 0 if progress is None else progress.wave
        self._feedback = Feedback(self.plan, self._known, wave, opened_ms)
        self._follower = Follower(self._log_dir)
        if progress is not None:
            log.warning("%s: no checkpoint; the journal is read from its oldest line", self._name)

    def _resume(self, checkpoint: Checkpoint) -> bool:
        """Go on from a checkpoint; False where it cannot be used."""
        progress = checkpoint.progress
        if progress is not None:
            self._progress = progress
        self._members = checkpoint.members
        self._policy = self._policies.current()
        self._known = self._find_known(checkpoint.alive_ms)
        # As if nobody was concerned up to now: groups and pins may have changed meanwhile.
        self._feedback = Feedback(self.plan, _NOBODY, 0, 0)
        try:
            self._feedback.load(checkpoint.fold)
        except BadCheckpoint as problem:
            log.warning("%s: %s", self._name, problem)
            return False
        self._feedback.change(self.plan, self._known)
        self._follower = Follower(self._log_dir, checkpoint.position)
        if checkpoint.alive_ms < self._server_started_ms:
            self._outage_from_ms = checkpoint.alive_ms
        return True

    @property
    def _name(self) -> str:
        return name_of(self.plan)

    @property
    def is_on_record(self) -> bool:
        """Whether what was to be written last could be written."""
        return self._record.is_right

    def change(self, plan: Plan) -> None:
        """Take the plan as it is now."""
        if plan != self.plan:
            self.plan = plan
            self._feedback.change(plan, self._known)
            self._known_at = 0.0  # whom it reaches may have changed with it

    def note_clock_jump(self, now_ms: int) -> None:
        """Begin soak and silence anew."""
        self._feedback.note_clock_jump(now_ms)

    def close(self, now_ms: int) -> None:
        """Write a last checkpoint, unless it is over, and let go of the journal."""
        try:
            if not self.is_over:
                self._save(self._progress, now_ms)
        finally:
            self._follower.close()

    def step(self, now_ms: int, now: float) -> bool:
        """Read what is new and decide; True where there is more to read at once.

        Args:
            now: in seconds of a monotonic clock.

        Raises:
            OSError, BadPolicy, Busy: a file cannot be read or written; try again later.
        """
        self._look_at_policy(now_ms, now)
        if self._progress is not None and self._progress.state in _OVER:
            # Something kept that from being done, or the last controller was killed before.
            is_undone = self._progress.state == "done" and self.plan.wanted == "abort"
            self._end(self._aborted(now_ms) if is_undone else self._progress, now_ms)
            return False
        if not self._read():
            if self.plan.wanted == "abort":
                self._go_to(self._aborted(now_ms), now_ms, now)
            self._save_at_times(now_ms, now)
            return not self.is_over
        if self._outage_from_ms is not None:
            self._note_outage(self._outage_from_ms)
        if not self._is_caught_up:
            self._catch_up(now_ms)
        if now >= self._tally_at:
            self._look(now_ms, now)
        self._save_at_times(now_ms, now)
        return False

    # Reading

    def _read(self) -> bool:
        """Fold what is new; True when all of it is."""
        end_at = time.monotonic() + _READ_SECONDS
        while records := self._follower.read():
            for record in records:
                if self._outage_from_ms is not None:
                    self._look_for_outage(record.get("time"))
                self._feedback.observe(record)
            if time.monotonic() >= end_at:
                return False
        return True

    def _look_for_outage(self, time: object) -> None:
        """Tell the fold of the time between two servers, before what the second one recorded."""
        assert self._outage_from_ms is not None
        try:
            time_ms = parse_time(str(time))
        except ValueError:
            return
        if time_ms < self._server_started_ms:
            self._outage_from_ms = max(self._outage_from_ms, time_ms)
        else:
            self._note_outage(self._outage_from_ms)

    def _note_outage(self, from_ms: int) -> None:
        self._outage_from_ms = None
        self._feedback.note_outage(from_ms, self._server_started_ms)

    def _catch_up(self, now_ms: int) -> None:
        """Open the first wave, now that all that went before is on record."""
        self._is_caught_up = True
        progress = self._progress
        if progress is None:
            self._feedback.open_wave(0, now_ms)
            progress = Progress(self.plan.id, "running", 0, format_time(now_ms))
        # It is written once what follows from it was looked at: the last controller may have been
        # killed between its checkpoint and a halt.
        self._progress = progress

    def _save_at_times(self, now_ms: int, now: float) -> None:
        if self.is_over or now < self._checkpoint_at:
            return
        self._checkpoint_at = now + _CHECKPOINT_SECONDS
        self._save(self._progress, now_ms)

    def _save(self, progress: Progress | None, now_ms: int) -> None:
        checkpoint = Checkpoint(
            self.plan.id,
            progress,
            self._follower.position,
            now_ms,
            self._members,
            self._feedback.dump(),
        )
        self._record.save(checkpoint)

    # Deciding

    def _look(self, now_ms: int, now: float) -> None:
        assert self._progress is not None
        began = time.monotonic()
        before = self._anew_after_loss(self._resumed(self._progress, now_ms), now_ms)
        before = self._anew_after_jump(before, now_ms)
        tally = self._feedback.tally(now_ms, before.accepted)
        after = advance(self.plan, before, tally, now_ms)
        if self._policy.is_withdrawn(self.plan.version):
            reason = ending.withdrawn_for(self._data_dir, self.plan.version)
            after = before._replace(state="halted", reason=reason, counts=after.counts, waiting="")
        elif after.state in ("running", "paused", "done") and self._obstacles.is_target(self.plan):
            # Somebody did by hand what this was for.
            after = before._replace(state="done", reason="", counts=after.counts, waiting="")
        elif after.state in ("running", "done"):
            after = self._unless_paused(before, after, now)
        self._go_to(after, now_ms, now)
        self._tally_at = now + (time.monotonic() - began) * _REST_FOR_WORK

    def _resumed(self, progress: Progress, now_ms: int) -> Progress:
        """End a pause where an operator wants it; a wave whose time is over begins anew."""
        if self.plan.wanted != "run" or self.plan.resumed <= progress.resumed:
            return progress
        progress = progress._replace(state="running", reason="", resumed=self.plan.resumed)
        open_ms = now_ms - parse_time(progress.wave_time)
        if open_ms < self.plan.wave_timeout_seconds * 1000:
            return progress
        self._feedback.open_wave(progress.wave, now_ms)
        return progress._replace(wave_time=format_time(now_ms))

    def _anew_after_loss(self, progress: Progress, now_ms: int) -> Progress:
        """Begin the soak anew where a part of the journal was gone before it was read."""
        if self._follower.losses == self._losses:
            return progress
        self._losses = self._follower.losses
        log.warning(
            "%s: a part of the journal was moved, cut or deleted before it was read; the soak of "
            "wave %d begins anew",
            self._name,
            progress.wave + 1,
        )
        self._feedback.open_wave(progress.wave, now_ms)
        return progress._replace(wave_time=format_time(now_ms))

    def _anew_after_jump(self, progress: Progress, now_ms: int) -> Progress:
        """Begin the time of a wave anew where the clock that it is measured by jumped."""
        if self._feedback.clock_jumps == self._jumps:
            return progress
        self._jumps = self._feedback.clock_jumps
        log.warning("%s: the clock jumped; soak, silence and wave time begin anew", self._name)
        return progress._replace(wave_time=format_time(now_ms))

    def _unless_paused(self, before: Progress, after: Progress, now: float) -> Progress:
        """Return what follows, or a pause where an operator or the files stand against it."""
        if self.plan.wanted == "pause":
            reason: str | None = BY_OPERATOR
        else:
            reason = self._obstacles.reason(self.plan, self._policy, now)
        if reason == "":
            return after
        # It had not gone on if it had been looked at first.
        before = before._replace(
            counts=after.counts, waiting=after.waiting if reason is None else ""
        )
        if reason is None:
            return before
        return before._replace(state="paused", reason=reason, lifts=False, asks=())

    def _aborted(self, now_ms: int) -> Progress:
        progress = self._progress or Progress(self.plan.id, "aborted", 0, format_time(now_ms))
        return progress._replace(state="aborted", reason="aborted by an operator")

    # Writing

    def _go_to(self, after: Progress, now_ms: int, now: float) -> None:
        before = self._progress
        if is_same_state(after, before) and is_same_state(after, self._record.progress):
            self._progress = after
            if now >= self._counts_at:
                self._counts_at = now + _COUNTS_SECONDS
                if after != self._record.progress or self._record.is_gone():
                    self._record.put(after)
            return
        if before is not None and after.wave != before.wave:
            closed = (after.counts,) * (after.wave - len(after.before))
            after = after._replace(before=(*after.before, *closed)[: after.wave])
            self._feedback.open_wave(after.wave, now_ms)
        if after.state in _OVER:
            self._end(after, now_ms)
        else:
            self._write(after, now_ms)

    def _end(self, progress: Progress, now_ms: int) -> None:
        """Do what the end of a rollout changes, on record before and after that.

        What others may keep from being changed (a lock that somebody holds, a file that is broken)
        is tried again at each step, and meanwhile nobody new is offered the release.
        """
        is_halt = progress.state == "halted" and not self.plan.is_revert
        if is_halt and (self._record.progress is None or self._record.progress.state != "paused"):
            # First of all, by a file that nobody else writes: nobody is offered it any more.
            self._record.put(progress._replace(state="paused"))
        if progress is not self._progress:
            self._keep(progress, now_ms, is_halt)
        try:
            problem = ending.bring_about(self._data_dir, self.plan, progress, now_ms)
        except (BadPolicy, Busy, OSError) as trouble:
            self._wait(progress, str(trouble))
            return
        if problem:
            self._write(progress._replace(state="paused", reason=problem), now_ms)
            return
        self._record.put(progress)
        say(self.plan, progress)
        self.is_over = True

    def _keep(self, progress: Progress, now_ms: int, is_halt: bool) -> None:
        """Bring to the disk how it ends; that this fails must not keep a bad release going."""
        try:
            self._save(progress, now_ms)
        except OSError as problem:
            if not is_halt:
                raise
            log.error("%s: the checkpoint cannot be written: %s", self._name, problem)
        self._progress = progress

    def _wait(self, progress: Progress, problem: str) -> None:
        """Offer nothing new until the end can be brought about, and say what it waits for."""
        is_done = progress.state == "done"
        what = "it has reached all, and is not the target yet" if is_done else "not withdrawn yet"
        paused = progress._replace(state="paused", waiting=f"{what}: {problem}")
        if paused != self._record.progress:
            self._record.put(paused)
            log.error(
                "%s: %s", self._name, "; ".join(filter(None, (paused.reason, paused.waiting)))
            )

    def _write(self, progress: Progress, now_ms: int) -> None:
        """Bring a state to the disk: the checkpoint first, since it is gone on from."""
        self._save(progress, now_ms)
        self._progress = progress
        if progress == self._record.progress:
            return
        self._record.put(progress)
        say(self.plan, progress)

    # What the fold has to know

    def _look_at_policy(self, now_ms: int, now: float) -> None:
        before, self._policy = self._policy, self._policies.current()
        policy = self._policy
        is_as_it_was = (
            policy.groups is before.groups
            and policy.pins is before.pins
            and policy.group_pins is before.group_pins
            and policy.group_targets == before.group_targets
            and policy.rollouts.keys() == before.rollouts.keys()
            and (policy.images, policy.aliases) == (before.images, before.aliases)
        )
        if is_as_it_was and now < self._known_at:
            return
        self._known_at = now + _PINS_SECONDS
        known = self._find_known(now_ms)
        if known != self._known:
            self._known = known
            self._feedback.change(self.plan, known)

    def _find_known(self, now_ms: int) -> Known:
        known = what_is_known(self.plan, self._policy, self._members, now_ms)
        return known._replace(completion_unknown=self._completion_unknown)
