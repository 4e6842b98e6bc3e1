"""A revert: the rollout that takes devices back from one that was aborted or halted. I/O."""

import secrets
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import Refused
from ota_server.policy import edits as policy_edits
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutWish
from ota_server.policy.targets import is_same_target, read_base, release_here
from ota_server.rollouts import edits
from ota_server.rollouts.audience import scope_of, who_runs
from ota_server.rollouts.files import write_plan
from ota_server.rollouts.find_rollout import find_rollout
from ota_server.rollouts.history import note_replaced
from ota_server.rollouts.preview import ReachedDevices, find_reached
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir

# Devices go back to what they ran before, so less has to be shown than by a new release.
_FIRST_WAVE_PERCENT = 10.0
_SOAK_SECONDS = 300.0


class ToRevert(NamedTuple):
    """The rollout that a revert would undo.

    Attributes:
        is_on: it is not over.
        nothing: why no device has to be taken back; "": some may have to be.
    """

    plan: RolloutPlan
    is_on: bool
    nothing: str = ""


def check_revert(data_dir: Path, group: str | None) -> ToRevert:
    """Return the rollout that a revert would undo.

    Raises:
        Refused: it cannot be reverted.
        BadPolicy, OSError: a file cannot be used or read.
    """
    found = find_rollout(data_dir, group, or_over=True)
    plan, progress = found
    if plan.is_revert:
        raise Refused(
            "this rollout is a revert itself; abort it without --revert, and roll out what you want"
        )
    if progress is not None and progress.state == RolloutState.DONE:
        if plan.group:
            raise Refused(f"it is done; {plan.command('start VERSION')} brings the group another")
        raise Refused("it is done; `release rollback` goes back to the target before it")
    if plan.instead_of is None:
        raise Refused("there was no target when it began; roll out the release that you want")
    base = read_base(data_dir, plan.group)
    if is_same_target(plan.instead_of, plan.version) or is_same_target(base, plan.version):
        if plan.group:
            raise Refused(
                f"{plan.version} is the target itself; {plan.command('start VERSION')} brings the "
                "group another"
            )
        raise Refused(
            f"{plan.version} is the target itself; `release rollback` goes back to the target "
            "before it, `release activate VERSION` to any other"
        )
    if not is_same_target(base, plan.instead_of):
        now = f"the target is {base or 'nothing'} now, not {plan.instead_of}"
        return ToRevert(plan, found.is_on, f"{now}: no device is kept on {plan.version}")
    release_here(data_dir, plan.instead_of)
    return ToRevert(plan, found.is_on)


def plan_revert(
    data_dir: Path, plan: RolloutPlan, now_ms: int, now: str
) -> tuple[RolloutPlan, ReachedDevices]:
    """Return the plan that takes devices back from the release of another, and whom it reaches.

    It is quick: two waves, the first one of 10 % or more, and a soak of five minutes; or less.
    """
    assert plan.instead_of is not None
    first = [percent for percent in plan.waves if _FIRST_WAVE_PERCENT <= percent < 100]
    first = first or list(plan.waves)
    policy = PolicyFiles(data_dir).current()
    members = who_runs(journal_dir(data_dir), policy, plan.version)
    back = plan._replace(
        id=secrets.token_hex(6),
        version=plan.instead_of,
        time=now,
        waves=tuple(sorted({first[0], 100.0})),
        soak_seconds=min(plan.soak_seconds, _SOAK_SECONDS),
        first_group=None,
        wanted=RolloutWish.RUN,
        promoted=-1,
        resumed=0,
        is_revert=True,
        is_mixed=False,
        reverts=plan.version,
        note="",
    )
    scope = scope_of(back, policy, members, now_ms)
    reached = find_reached(journal_dir(data_dir), back, scope, now_ms)
    # The rollout may have come to a few devices alone, so that some waves hold none.
    added = zip(back.waves, reached.added(back), strict=True)
    kept = [percent for percent, count in added if count]
    back = back._replace(waves=(*kept[:-1], 100.0))
    # Devices that the release bricked were heard from too, and will not come: wait for none.
    return back._replace(counted=()), reached


def revert(data_dir: Path, back: RolloutPlan, now: str) -> None:
    """Abort a rollout where it is on, and begin the revert that `plan_revert` has made.

    Raises:
        Refused, Busy, BadPolicy, OSError: that is not done.
    """
    with policy_edits.changing(data_dir):
        plan, is_still_on, nothing = check_revert(data_dir, back.group)
        if plan.version != back.reverts or nothing:
            raise Refused(
                nothing or "another rollout has begun meanwhile; `rollout status` shows it"
            )
        if is_still_on:
            edits.write_abort(data_dir, plan, now)
        with edits.noted(data_dir, "rollout revert", back, to=back.version):
            note_replaced(data_dir, back.group, clock.now_ms())
            write_plan(data_dir, back)
