"""A revert: the rollout that takes devices back from one that was aborted or halted. I/O."""

import secrets
from pathlib import Path

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
from ota_server.rollouts.preview import ReachedDevices, find_reached
from ota_server.system.data_dir import log_dir


def check_revert(data_dir: Path, group: str | None) -> tuple[RolloutPlan, bool]:
    """Return the plan that a revert would undo, and whether its rollout is still on.

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
        raise Refused("it is done; `release rollback` goes back to the target before it")
    if plan.instead_of is None:
        raise Refused("there was no target when it began; roll out the release that you want")
    base = read_base(data_dir, plan.group)
    if is_same_target(plan.instead_of, plan.version) or is_same_target(base, plan.version):
        if plan.group:
            raise Refused(
                f"{plan.version} is the target itself; roll out to {plan.group} the release that "
                "you want"
            )
        raise Refused(
            f"{plan.version} is the target itself; `release rollback` goes back to the target "
            "before it, `release activate VERSION` to any other"
        )
    if not is_same_target(base, plan.instead_of):
        raise Refused(
            f"the target is {base or 'nothing'} now, not {plan.instead_of}: no device is kept on "
            f"{plan.version}, all get the target"
        )
    release_here(data_dir, plan.instead_of)
    return plan, found.is_on


def plan_revert(
    data_dir: Path, plan: RolloutPlan, now_ms: int, now: str
) -> tuple[RolloutPlan, ReachedDevices]:
    """Return the plan that takes devices back from the release of another, and whom it reaches."""
    assert plan.instead_of is not None
    policy = PolicyFiles(data_dir).current()
    members = who_runs(log_dir(data_dir), policy, plan.version)
    back = plan._replace(
        id=secrets.token_hex(6),
        version=plan.instead_of,
        time=now,
        first_group=None,
        wanted=RolloutWish.RUN,
        promoted=-1,
        resumed=0,
        is_revert=True,
        reverts=plan.version,
    )
    scope = scope_of(back, policy, members, now_ms)
    reached = find_reached(log_dir(data_dir), back, scope, now_ms)
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
        plan, is_still_on = check_revert(data_dir, back.group)
        if plan.version != back.reverts:
            raise Refused("another rollout has begun meanwhile; `rollout status` shows it")
        if is_still_on:
            edits.write_abort(data_dir, plan, now)
        edits.note(data_dir, "rollout revert", back, to=back.version)
        write_plan(data_dir, back)
