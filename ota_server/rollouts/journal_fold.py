"""What the journal says of one rollout: read, folded, and gone on with from a checkpoint. I/O.

`RolloutMover` asks it before each decision. It writes nothing.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.evaluation.checkpoint import BadCheckpoint
from ota_server.evaluation.counting import WaveCounter
from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.scope import RolloutScope
from ota_server.evaluation.tally import Tally
from ota_server.journal.follow import Follower, Position
from ota_server.model.timestamp import parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    begun_by,
)
from ota_server.policy.rollout_text import name_of
from ota_server.rollouts.audience import scope_of, who_runs
from ota_server.rollouts.files import Checkpoint, read_checkpoint
from ota_server.rollouts.rollout_memory import CountedRollout, ListingRules, RolloutMemory
from ota_server.system.data_dir import journal_dir, log_dir

log = logging.getLogger(__name__)

# A step begins no other block of the journal after that: other rollouts wait for their steps.
_READ_SECONDS = 0.05
# A pin that ends at a time changes no file.
_PINS_SECONDS = 60.0
_NOBODY = RolloutScope(members=frozenset())


class ServerFacts(NamedTuple):
    """What is known of the server that writes the journal.

    Attributes:
        started_ms: since when it answers, in milliseconds since the epoch.
        completion_unknown: it stands behind something that buffers whole images.
        devices_proven: it believes no device that does not prove who it is (`contested`).
    """

    started_ms: int
    completion_unknown: bool = False
    devices_proven: bool = False


class JournalFold:
    """Reads the journal for one rollout. Used by one thread.

    Attributes:
        feedback: what has been read, folded.
        policy: what operators had decided at the last look.
        progress: how far the rollout was at the checkpoint, or by the progress that is on record.
    """

    def __init__(
        self,
        data_dir: Path,
        plan: RolloutPlan,
        policies: PolicyFiles,
        server: ServerFacts,
        progress: RolloutProgress | None,
        now_ms: int,
        memory: RolloutMemory | None = None,
    ) -> None:
        """Go on where the last controller was, or begin with the oldest line of the journal.

        Args:
            progress: what is on record of it.
            memory: where others ask how its devices are; None: nobody does.
        """
        self._memory = memory
        self.progress = progress
        self.policy = policies.current()
        self._now_ms = now_ms  # when it began
        self._plan = begun_by(plan, now_ms)
        self._policies = policies
        self._server = server
        self._log_dir = log_dir(data_dir)
        self._journal_dir = journal_dir(data_dir)
        self._members: frozenset[str] | None = None
        self._outage_from_ms: int | None = None
        self._losses = 0
        self._scope_at = 0.0
        checkpoint = read_checkpoint(self._log_dir, plan)
        if checkpoint is None or not self._resume(checkpoint):
            self._begin(now_ms)
        self._jumps = self.feedback.clock_jumps

    def _begin(self, now_ms: int) -> None:
        if self._plan.reverts:
            self._members = who_runs(self._journal_dir, self.policy, self._plan.reverts)
        self._scope = self._find_scope(now_ms)
        progress = self.progress
        opened_ms = now_ms if progress is None else min(parse_time(progress.wave_time), now_ms)
        wave = 0 if progress is None else progress.wave
        self.feedback = self._make_feedback(self._scope, wave, opened_ms)
        self._follower = Follower(self._journal_dir)
        if progress is not None:
            name = name_of(self._plan)
            log.warning("%s: no checkpoint; the journal is read from its oldest line", name)
            # Such as after a restore: nobody could ask between its newest line and this server.
            self._outage_from_ms = 0

    def _resume(self, checkpoint: Checkpoint) -> bool:
        """Go on from a checkpoint; False where it cannot be used."""
        if checkpoint.progress is not None:
            self.progress = checkpoint.progress
        self._members = checkpoint.members
        self._scope = self._find_scope(checkpoint.alive_ms)
        # As if nobody was reached up to now: groups and pins may have changed meanwhile.
        self.feedback = self._make_feedback(_NOBODY, 0, 0)
        try:
            self.feedback.load(checkpoint.fold)
        except BadCheckpoint as problem:
            log.warning("%s: %s", name_of(self._plan), problem)
            return False
        self.feedback.change(self._plan, self._scope)
        self._follower = Follower(self._journal_dir, checkpoint.position)
        if checkpoint.alive_ms < self._server.started_ms:
            self._outage_from_ms = checkpoint.alive_ms
        return True

    def _make_feedback(self, scope: RolloutScope, wave: int, opened_ms: int) -> Feedback:
        proven = self._server.devices_proven
        return Feedback(self._plan, scope, wave, opened_ms, devices_proven=proven)

    def change(self, plan: RolloutPlan) -> None:
        """Take the plan as it is now."""
        self._plan = begun_by(plan, self._now_ms)
        self.feedback.change(self._plan, self._scope)
        self._scope_at = 0.0  # whom it reaches may have changed with it

    @property
    def rules(self) -> ListingRules:
        """By what its devices are listed."""
        return ListingRules(self._plan, self.policy)

    def is_awaited(self) -> bool:
        """Return whether somebody waits until the devices are counted."""
        return self._memory is not None and self._memory.is_awaited(self._plan.id)

    def tally(self, now_ms: int, accepted: Sequence[str]) -> Tally:
        """Count the devices, for others too if they ask.

        Args:
            accepted: names of devices that a person goes on without.
        """
        counter, tally = self.feedback.count(now_ms, accepted)
        if self._memory is not None and self._memory.is_asked_for(self._plan.id):
            if accepted:  # those are listed all the same
                counter, _ = self.feedback.count(now_ms)
            self._memory.put(self._plan.id, self.counted(counter, now_ms))
        return tally

    def counted(self, counter: WaveCounter, now_ms: int) -> CountedRollout:
        """Return what was counted at a time, without the devices that are updated."""
        outcomes = counter.outcomes(but=DeviceState.UPDATED)
        return CountedRollout(outcomes, self.feedback.names.key_of, self.rules, now_ms)

    @property
    def position(self) -> Position | None:
        """Up to where the journal is folded."""
        return self._follower.position

    def checkpoint(self, progress: RolloutProgress | None, now_ms: int) -> Checkpoint:
        """Return all that another controller needs to go on from here."""
        fold, unknown = self.feedback.dump(), self._server.completion_unknown
        return Checkpoint(
            self._plan.id, progress, self.position, now_ms, self._members, fold, unknown
        )

    def close(self) -> None:
        """Close the journal."""
        if self._memory is not None:
            self._memory.forget(self._plan.id)
        self._follower.close()

    # What is new in the journal

    def read(self) -> bool:
        """Fold what is new, for a short time; True when all of it is folded."""
        end_at = time.monotonic() + _READ_SECONDS
        while records := self._follower.read():
            for record in records:
                if self._outage_from_ms is not None:
                    self._look_for_outage(self._outage_from_ms, record.get("time"))
                self.feedback.observe(record)
            if time.monotonic() >= end_at:
                return False
        if self._outage_from_ms is not None:
            self._note_outage(self._outage_from_ms)
        return True

    def read_to(self, end: Position | None) -> None:
        """Fold what is new up to a position, or a little further.

        Not to the end of the journal: where devices ask faster than this reads, it would never
        come there.

        Args:
            end: None: there is no journal yet.
        """
        while not self.read():
            now = self.position
            if end is None or (now and (now.number, now.offset) >= (end.number, end.offset)):
                return

    def _look_for_outage(self, from_ms: int, time: object) -> None:
        """Leave out the time between two servers, before what the second one recorded."""
        try:
            time_ms = parse_time(str(time))
        except ValueError:
            return
        if time_ms < self._server.started_ms:
            self._outage_from_ms = max(from_ms, time_ms)
        else:
            self._note_outage(from_ms)

    def _note_outage(self, from_ms: int) -> None:
        self._outage_from_ms = None
        self.feedback.note_outage(from_ms, self._server.started_ms)

    def has_lost_records(self) -> bool:
        """Return whether a part of the journal was gone before it was read, since the last call."""
        before, self._losses = self._losses, self._follower.losses
        return self._losses != before

    def has_jumped(self) -> bool:
        """Return whether the clock jumped since the last call."""
        before, self._jumps = self._jumps, self.feedback.clock_jumps
        return self._jumps != before

    def note_standstill(self, progress: RolloutProgress, now_ms: int) -> None:
        """Give devices all their time from now on where a hold or a pause keeps them from moving.

        Not once a person was asked about some: they are late whatever happens then.
        """
        is_paused = progress.state == RolloutState.PAUSED and not progress.lifts
        is_paused = is_paused or self._plan.wanted == RolloutWish.PAUSE
        if (is_paused or self.policy.is_held) and not progress.asks:
            self.feedback.free_since_ms = now_ms

    # Whom the rollout reaches

    def look_at_policy(self, now_ms: int, now: float) -> None:
        """Take up what operators have decided since the last look.

        Args:
            now: in seconds of a monotonic clock.
        """
        before, self.policy = self.policy, self._policies.current()
        policy = self.policy
        is_as_it_was = (
            policy.groups is before.groups
            and policy.pins is before.pins
            and policy.group_pins is before.group_pins
            and policy.group_targets == before.group_targets
            and policy.rollouts.keys() == before.rollouts.keys()
            and (policy.images, policy.aliases) == (before.images, before.aliases)
            and policy.manifests == before.manifests
        )
        if is_as_it_was and now < self._scope_at:
            return
        self._scope_at = now + _PINS_SECONDS
        scope = self._find_scope(now_ms)
        if scope != self._scope:
            self._scope = scope
            self.feedback.change(self._plan, scope)

    def _find_scope(self, now_ms: int) -> RolloutScope:
        scope = scope_of(self._plan, self.policy, self._members, now_ms)
        return scope._replace(completion_unknown=self._server.completion_unknown)
