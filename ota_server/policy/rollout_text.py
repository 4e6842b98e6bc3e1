"""What people are told about rollouts: in the log, in events, by commands. Pure."""

from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, waits_for_person


def name_of(plan: RolloutPlan) -> str:
    """Return what the log calls a rollout."""
    if plan.is_revert:
        return f"revert to {plan.version}{f' for {plan.group}' * bool(plan.group)}"
    return f"rollout of {plan.version}{f' to {plan.group}' * bool(plan.group)}"


def state_text(plan: RolloutPlan, progress: RolloutProgress, is_resumed: bool = False) -> str:
    """Return how far a rollout is, in a sentence."""
    name = name_of(plan)
    to_do = f"; {what_to_do(plan, progress)}" if progress.asks or progress.is_blocked else ""
    if progress.state == RolloutState.RUNNING and waits_for_person(plan, progress):
        return f"{name} waits for a person: {progress.waiting}{to_do}"
    if progress.state == RolloutState.RUNNING:
        percent = plan.percent(progress.wave)
        whom = f"{percent:g} %" if percent else f"the group {plan.first_group}"
        name += " goes on" * is_resumed
        return f"{name}: wave {progress.wave + 1} of {plan.wave_count} is open, {whom}"
    if progress.state == RolloutState.DONE:
        return f"{name} is done"
    asks = " and waits for a person" * bool(progress.asks)
    return f"{name} is {progress.state}{asks}: {progress.reason}{to_do}"


def what_to_do(plan: RolloutPlan, progress: RolloutProgress) -> str:
    """Return what a person can do about the devices that a rollout asks about, or its image."""
    if progress.is_blocked:
        return f"it goes on by itself when that is fixed; {plan.command('abort')} ends it"
    group = plan.group or (plan.first_group if progress.wave == 0 else None)
    mac, them = (progress.asks[0], "it") if len(progress.asks) == 1 else ("MAC", "one")
    out = f"`group remove {group} {mac}` takes {them} out of the group"
    if group is None:
        out = f"`device forget {mac}` removes {them} if it was scrapped"
    without = mac if them == "it" else f"these {len(progress.asks)} devices"
    return (
        f"{plan.command('promote')} goes on without {without}, {out}, "
        f"{plan.command('abort')} ends the rollout"
    )


def who_stays(plan: RolloutPlan) -> str:
    """Return which devices stay on a release whose rollout was stopped, and for how long."""
    # The fleet's rollout leaves a group alone only while that has a rollout or a target of its own.
    until = " until a rollout to the fleet or another target takes them on" * bool(plan.group)
    return f"devices that have it stay on it{until}"


def after_halt(plan: RolloutPlan) -> str:
    """Return what to do about a rollout that was halted, the quickest way back first."""
    back = (
        f"{plan.command('abort --revert')} takes them back to {plan.instead_of}, in quick waves; "
    )
    stays = f"{plan.version} is withdrawn, and {who_stays(plan)}"
    another = f"{plan.command('start VERSION')} brings a fixed release, under another version"
    return f"{stays}. {back * plan.has_way_back}{another}"
