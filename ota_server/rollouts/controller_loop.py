"""Moves all rollouts of a data directory, one look after another. I/O.

Between two looks it does a little of what else is to be done in this process (`SideWork`).
"""

import logging
import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

from ota_server.model.refusal import BadPolicy
from ota_server.policy.files import PolicyFiles
from ota_server.policy.lease import lines_of_a_look
from ota_server.policy.rollout_plan import RolloutPlan, is_over
from ota_server.rollouts.files import groups_with_plan, read_plan, read_progress
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.keeper import LOCK_NAME
from ota_server.rollouts.mover import RolloutMover
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.hints import hints
from ota_server.system.locks import Busy
from ota_server.system.new_files import if_allowed

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
# A clock that is set by hand jumps; one that is slewed does not.
_JUMP_MS = 5 * 60 * 1000
# The same problem is logged again only after this time.
_SAY_EVERY_SECONDS = 60.0
# How often the lock is touched: `rollout status` sees by its time that a controller works.
_TOUCH_SECONDS = 5.0


class SideWork(Protocol):
    """What else the process does."""

    def step(self, now_ms: int) -> bool:
        """Work for a short time, and raise nothing; return whether there is more to do at once."""

    def close(self) -> None:
        """End."""


class Controller:
    """Moves the rollouts of one data directory."""

    def __init__(
        self,
        data_dir: Path,
        tick_seconds: float,
        server: ServerFacts,
        lock: int | None = None,
        heartbeat: int | None = None,
        keeps_ungrouped: bool = False,
        side_work: SideWork | None = None,
        memory: RolloutMemory | None = None,
    ) -> None:
        """Begin without rollouts; the first `look` finds them.

        Args:
            lock: the descriptor of the lock that this controller holds.
            heartbeat: the descriptor of a pipe, to write to after each look; see `lease`.
            keeps_ungrouped: as in a `Policy`.
            side_work: what is done between looks; with it the controller runs on.
            memory: where others ask how the devices of rollouts are.
        """
        self._side_work = side_work
        self._memory = memory
        self._lock = lock
        self._heartbeat = heartbeat
        self._touch_at = 0.0
        self._is_sound = True
        self._data_dir = data_dir
        self._tick_seconds = tick_seconds
        self._server = server
        self._policies = PolicyFiles(data_dir, keeps_ungrouped)
        self._movers: dict[str, RolloutMover] = {}
        self._said: dict[str, float] = {}
        self._is_ending = False
        self._clocks = (time.time_ns(), time.monotonic_ns())

    def end(self, _signum: int, _frame: FrameType | None) -> None:
        """Make `run` return soon; a signal handler."""
        self._is_ending = True

    def run(self, parent: int) -> None:
        """Work until nothing is left to do, `end` is called, or the pipe `parent` is closed."""
        try:
            while not self._is_ending:
                wait_seconds = self.look()
                if wait_seconds is None:
                    break
                ready, _, _ = select.select([parent], [], [], wait_seconds)
                if ready and not os.read(parent, 1024):
                    break
            if self._memory is not None:
                self._memory.close()
            for mover in self._movers.values():
                self._close(mover)
        finally:
            if self._side_work is not None:
                self._side_work.close()

    def look(self) -> float | None:
        """Look at each rollout once; return the seconds until the next look, None: all is done.

        A rollout that has much to read gets a short step in each look; then the next look follows
        at once.
        """
        self._is_sound = True
        self._policies.look_after()
        self._update()
        if not self._movers and self._is_sound and self._side_work is None:
            return None
        now_ms = self._look_at_clock()
        awaited = frozenset[str]() if self._memory is None else self._memory.awaited()
        behind = {group for group, each in self._movers.items() if self._step(each, now_ms)}
        if self._memory is not None and awaited:
            self._memory.pass_by(awaited)
        self._beat([group for group in self._movers if group not in behind])
        has_more = self._side_work is not None and self._side_work.step(now_ms)
        return 0.0 if behind or has_more else self._tick_seconds

    def _beat(self, up_to_date: Sequence[str]) -> None:
        """Tell the server of this look, and for which rollouts the whole journal has been read."""
        self._touch(is_behind=not up_to_date)
        if self._heartbeat is None:
            return
        try:
            # If the pipe is full, the server has enough to read.
            with suppress(BlockingIOError):
                for line in lines_of_a_look(up_to_date, self._is_sound):
                    os.write(self._heartbeat, line)
        except BrokenPipeError:
            self._is_ending = True

    def _touch(self, is_behind: bool) -> None:
        """Show `rollout status`, by the time of the lock, whether rollouts are looked after.

        Args:
            is_behind: all rollouts are. If only some are, their status says so in another way.
        """
        now = time.monotonic()
        if self._lock is None or (self._is_sound and (is_behind or now < self._touch_at)):
            return
        self._touch_at = now + _TOUCH_SECONDS if self._is_sound else 0.0
        try:
            with if_allowed("a time stamp", log_dir(self._data_dir) / LOCK_NAME):
                os.utime(self._lock, None if self._is_sound else (0, 0))
        except OSError as problem:
            # Only `rollout status` misses it.
            self._say(f"the time of {LOCK_NAME} cannot be set: {problem}", is_sound=True)

    def _update(self) -> None:
        """Begin new rollouts, apply changed plans, and close rollouts that are over."""
        plans = self._plans()
        for group in list(self._movers):
            mover = self._movers[group]
            plan = plans.get(group)
            if plan is not None and plan.id == mover.plan.id and not mover.is_over:
                mover.change(plan)
                continue
            self._close(mover)
            del self._movers[group]
        for group, plan in plans.items():
            if group not in self._movers:
                self._begin(plan)

    def _begin(self, plan: RolloutPlan) -> None:
        try:
            if not is_over(plan, read_progress(self._data_dir, plan)):
                files = self._data_dir, plan, self._policies
                mover = RolloutMover(*files, self._server, clock.now_ms(), self._memory)
                self._movers[plan.group] = mover
        except OSError as problem:
            self._say(f"the rollout of {plan.version} cannot begin: {problem}")

    def _close(self, mover: RolloutMover) -> None:
        try:
            mover.close(clock.now_ms())
        except OSError as problem:
            self._say(f"the checkpoint of {mover.plan.version} cannot be written: {problem}")

    def _plans(self) -> dict[str, RolloutPlan]:
        before = {group: mover.plan for group, mover in self._movers.items()}
        try:
            groups = groups_with_plan(self._data_dir)
        except OSError as problem:
            self._say(f"rollouts stand still: {problem}")
            return before
        plans = {}
        for group in groups:
            try:
                plan = read_plan(self._data_dir, group)
            except (BadPolicy, OSError) as problem:
                plan = before.get(group)
                self._say(f"{problem}; what it held before applies", is_sound=plan is not None)
            if plan is not None and plan.group == group:
                plans[group] = plan
        return plans

    def _look_at_clock(self) -> int:
        """Return the time; tell all rollouts first if the clock jumped."""
        before, self._clocks = self._clocks, (time.time_ns(), time.monotonic_ns())
        passed_ms = (self._clocks[1] - before[1]) // 1_000_000
        jump_ms = (self._clocks[0] - before[0]) // 1_000_000 - passed_ms
        now_ms = self._clocks[0] // 1_000_000
        if abs(jump_ms) > _JUMP_MS:
            log.warning("the clock jumped by %d s", jump_ms // 1000)
            for mover in self._movers.values():
                mover.note_clock_jump(now_ms)
        return now_ms

    def _step(self, mover: RolloutMover, now_ms: int) -> bool:
        try:
            has_more = mover.step(now_ms, time.monotonic())
        except (OSError, BadPolicy, Busy) as problem:
            self._say(f"the rollout of {mover.plan.version} stands still: {problem}")
            return False
        self._is_sound = self._is_sound and mover.is_on_record
        return has_more

    def _say(self, problem: str, is_sound: bool = False) -> None:
        self._is_sound = self._is_sound and is_sound
        now = time.monotonic()
        if now >= self._said.get(problem, 0.0):
            self._said[problem] = now + _SAY_EVERY_SECONDS
            log.error("%s", hints.paste(problem))
