"""What `rollout status` shows: how far a rollout has come, as text. Pure."""

from collections.abc import Mapping
from typing import Any

from ota_server.device_port.window import Standing
from ota_server.model.timestamp import ago
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    NOT_BEGUN,
    OVER,
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
)

_BAR = 24
_RESUMING = "resuming"  # `rollout resume` was run; the controller has not seen it
_ENDING = "ending"  # it is decided how it ends
_ASKING = "asking"  # the reason for the pause says what to do; `resume` does not help
_HELD = "everything is on hold: no device is offered anything; `unhold` ends that"
_UNATTENDED = (
    "no further devices are offered it: the controller, which moves rollouts, does not answer or "
    "cannot write; the server's log says why"
)
# In the order in which a device goes through them, then what can go wrong.
_SHOWN = ("updated", "downloading", "undecided", "cut", "failed", "silent", "mislabelled")
_MORE = {
    "too_new": "known for less than a day at the start: not counted (see --count-new)",
    "displaced": "heard from only at an address other than their usual one: not counted",
    "surplus": "more than one address may have in the wave: not counted",
}


def state_of(plan: RolloutPlan, progress: RolloutProgress | None) -> str:
    """Return the state of a rollout in one word, as an operator knows it."""
    if plan.wanted == RolloutWish.ABORT:
        return RolloutState.ABORTED
    if progress is None:
        return NOT_BEGUN
    if progress.state == RolloutState.RUNNING and plan.wanted == RolloutWish.PAUSE:
        return RolloutState.PAUSED
    if (
        progress.state == RolloutState.PAUSED
        and plan.wanted == RolloutWish.RUN
        and plan.resumed > progress.resumed
    ):
        return _RESUMING
    return progress.state


def status_fields(
    plan: RolloutPlan, progress: RolloutProgress | None, standing: Standing
) -> dict[str, Any]:
    """Return the status of a rollout for programs."""
    return {
        **plan._asdict(),
        "state": state_of(plan, progress),
        "reason": progress.reason if progress else "",
        "waiting": progress.waiting if progress else "",
        "wave": progress.wave + 1 if progress else None,
        "wave_time": progress.wave_time if progress else None,
        "counts": progress.counts if progress else {},
        "counts_before": progress.before if progress else (),
        "asks": progress.asks if progress else (),
        "notes": progress.notes if progress else (),
        "unmet": standing.unmet,
    }


def status_lines(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    now_ms: int,
    is_served: bool = True,
    standing: Standing | None = None,
    is_attended: bool = True,
    is_held: bool = False,
) -> list[str]:
    """Return the status of a rollout for people.

    Args:
        is_attended: the controller is looking after it.
        is_held: everything is on hold.
        standing: which devices the running server lets in; None: all.
    """
    lines = [_headline(plan, progress, now_ms)]
    state = state_of(plan, progress)
    if is_held and state not in OVER:
        lines.append(f"  {_HELD}")
    if progress is not None and progress.reason and state == progress.state:
        lines.append(f"  {progress.reason}")
    if progress is not None and progress.waiting and state == RolloutState.RUNNING:
        lines.append(f"  wave {progress.wave + 1} waits: {progress.waiting}")
    elif progress is not None and progress.waiting and progress.state == RolloutState.PAUSED:
        lines.append(f"  {progress.waiting}")
        state = _ENDING
    if state == RolloutState.PAUSED and progress is not None and (progress.lifts or progress.asks):
        state = _ASKING
    if hint := _hint(plan, state, is_served):
        lines.append(f"  {hint}")
    elif state in (RolloutState.RUNNING, _RESUMING) and not is_attended:
        lines.append(f"  {_UNATTENDED}")
    lines.append("")
    lines += [_wave_line(plan, progress, wave, now_ms) for wave in range(plan.wave_count)]
    counts = progress.counts if progress else {}
    for name, meaning in _MORE.items():
        if counts.get(name):
            lines.append(f"  {counts[name]} {meaning}")
    if progress is not None:
        lines += [f"  {note}" for note in progress.notes]
    if standing is not None and standing.unmet:
        lines.append(
            f"  {standing.unmet} never ask within the window {standing.window} and have waited for "
            "more than a day (`serve --window-overdue` lets them in)"
        )
    return lines


def _headline(plan: RolloutPlan, progress: RolloutProgress | None, now_ms: int) -> str:
    whom = f"the group {plan.group}" if plan.group else "the fleet"
    whom = f"{'for' if plan.is_revert else 'to'} {whom}"
    what = "revert" if plan.is_revert else "rollout"
    since = f", begun {ago(plan.time, now_ms)}"
    instead = f", instead of {plan.instead_of}" if plan.instead_of and not plan.is_revert else ""
    instead = f" from {plan.reverts}" if plan.reverts else instead
    to = "to" if plan.is_revert else "of"
    return f"{what} {to} {plan.version} {whom}{instead}: {state_of(plan, progress)}{since}"


def _hint(plan: RolloutPlan, state: str, is_served: bool) -> str:
    if state in (RolloutState.RUNNING, NOT_BEGUN, _RESUMING) and not is_served:
        return "no server runs on this data directory; start it, or the rollout does not move"
    if state == NOT_BEGUN:
        return "the controller has not seen it yet, or is still reading the journal"
    if state == _ENDING:
        return "no further devices are offered it; it ends when that is no longer the case"
    if state == _ASKING:
        return ""
    if state == RolloutState.PAUSED:
        return "no further devices are offered it; `rollout resume` goes on"
    if state == RolloutState.HALTED and not plan.is_revert:
        return (
            f"{plan.version} is withdrawn; devices that run it stay on it. Publish a fixed "
            "release, or go back with `rollout abort --revert`"
        )
    if plan.is_revert and state in (RolloutState.HALTED, RolloutState.ABORTED):
        stays = f"devices that went back stay on {plan.version}, the others on {plan.reverts}"
        return f"{stays}; `rollout start` rolls out what you want"
    if state == RolloutState.ABORTED:
        return "devices that have it stay on it; `rollout abort --revert` goes back"
    return ""


def _wave_line(plan: RolloutPlan, progress: RolloutProgress | None, wave: int, now_ms: int) -> str:
    percent = plan.percent(wave)
    whom = f"{percent:g} %" if percent else str(plan.first_group)
    name = f"  wave {wave + 1}  {whom:>6}"
    if progress is None or wave > progress.wave:
        is_over = state_of(plan, progress) in OVER
        return f"{name}  {_bar(0.0)}  {'not opened' if is_over else 'to come'}"
    if wave < progress.wave:
        counts = progress.before[wave] if wave < len(progress.before) else {}
        is_whole = counts.get("updated", 0) >= _devices(counts)
        how = "done" if is_whole else "passed"
    else:
        counts = progress.counts
        how = f"since {ago(progress.wave_time, now_ms).removesuffix(' ago')}"
        if progress.state == RolloutState.DONE:
            how = "done"
    share = counts.get("updated", 0) / max(_devices(counts), 1)
    return f"{name}  {_bar(share)}  {how}: {_counted(counts)}".rstrip(": ")


def _devices(counts: Mapping[str, int]) -> int:
    """Return how many devices on record a wave and those before it have."""
    return max(counts.get("reach", 0), counts.get("active", 0))


def _counted(counts: Mapping[str, int]) -> str:
    """Return how many devices are in each state that has any."""
    if not counts:
        return ""
    first = f"{counts.get('updated', 0)} of {_devices(counts)} updated"
    others = [f"{counts[name]} {name}" for name in _SHOWN[1:] if counts.get(name)]
    if (unheard := _devices(counts) - counts.get("active", 0) - counts.get("displaced", 0)) > 0:
        others.append(f"{unheard} not heard from since it opened")
    return ", ".join([first, *others])


def _bar(share: float) -> str:
    full = int(min(max(share, 0.0), 1.0) * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"
