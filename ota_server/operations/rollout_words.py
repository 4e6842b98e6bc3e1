"""How far a rollout has come, in words and numbers for commands, pages and the API. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ota_server.device_port.window import Standing
from ota_server.evaluation.device_case import BAD
from ota_server.evaluation.unfit import unfit_in_words
from ota_server.model.quantity import format_duration
from ota_server.model.timestamp import format_time
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    NOT_BEGUN,
    OVER,
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    waits_for_person,
)
from ota_server.policy.rollout_text import after_halt, what_to_do, who_stays
from ota_server.policy.text import Hold

RESUMING = "resuming"  # `rollout resume` was run; the controller has not seen it
_ENDING = "ending"  # it is decided how it ends
_ASKING = "asking"  # the reason for the pause says what to do; `resume` does not help
_UNATTENDED = (
    "no further devices are offered it: the controller, which moves rollouts, does not answer or "
    "cannot write; the server's log says why"
)
# In the order in which a device goes through them, then what can go wrong.
_SHOWN = ("updated", "downloading", "undecided", "cut", "failed", "silent", "mislabelled")
# Where there are such, the command is named that lists them with the reason.
_LISTED = (*BAD, "cannot_take_it", "unseen")
_MORE = {
    "unseen": "had the whole image, and say no version: nothing shows whether they run it",
    "too_new": "known for less than a day at the start: not counted (see --count-new)",
    "displaced": "heard from only at an address other than their usual one: not counted",
    "surplus": "more than one address may have in the wave: not counted",
}


class RolloutRemarks(NamedTuple):
    """What else is to be said of a rollout and of its devices, in sentences.

    Attributes:
        limits: in words; "": it is over, or has not begun.
        others: of its devices, and what the controller has noted.
        warnings: what may make its counts wrong.
    """

    limits: str = ""
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class WaveFacts(NamedTuple):
    """One wave of a rollout.

    Attributes:
        percent: up to which devices are in it; 0: it is that of the first group.
        first_group: None: it is not that of a first group.
        state: to come, not opened, open, done, or passed: not all were updated.
        since: when it opened, RFC 3339, for the one that opened last; "": it is another one.
        counts: how many devices are in which state, those of the waves before it included.
        updated, devices: how much of its bar is full.
        added: how many active devices it adds, as was counted when the rollout began; None: not.
    """

    percent: float
    first_group: str | None
    state: str
    since: str = ""
    counts: Mapping[str, int] = {}
    updated: int = 0
    devices: int = 1
    added: int | None = None

    @property
    def share(self) -> float:
        """How much of its bar is full, from 0 to 1."""
        return min(max(self.updated / max(self.devices, 1), 0.0), 1.0)


def state_of(plan: RolloutPlan, progress: RolloutProgress | None) -> str:
    """Return the state of a rollout in one word, as an operator knows it."""
    if progress is not None and progress.state == RolloutState.HALTED:
        return RolloutState.HALTED
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
        return RESUMING
    return progress.state


def title_of(version: str, group: str, reverts: str | None) -> str:
    """Return what a rollout is called."""
    whom = f"the group {group}" if group else "the fleet"
    if reverts:
        return f"revert to {version} for {whom} from {reverts}"
    return f"rollout of {version} to {whom}"


def status_fields(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    standing: Standing,
    ended_ms: int | None = None,
) -> dict[str, Any]:
    """Return the status of a rollout for programs."""
    return {
        **plan._asdict(),
        "state": state_of(plan, progress),
        "reason": progress.reason if progress else "",
        "waiting": progress.waiting if progress else "",
        "wave": progress.wave + 1 if progress else None,
        "wave_time": progress.wave_time if progress else None,
        "end_time": None if ended_ms is None else format_time(ended_ms),
        "counts": progress.counts if progress else {},
        "counts_before": progress.before if progress else (),
        "asks": progress.asks if progress else (),
        "waits_for_person": waits_for_person(plan, progress),
        "notes": progress.notes if progress else (),
        "unmet": standing.unmet,
        "proxy_sign": standing.proxy_sign,
    }


def advice_lines(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    is_served: bool = True,
    standing: Standing | None = None,
    is_attended: bool = True,
    held: Hold | None = None,
) -> Iterator[str]:
    """Yield why a rollout is as it is, what it waits for, and what to do, in sentences.

    Args:
        is_attended: the controller is looking after it.
        held: None: nothing is on hold.
        standing: which devices the running server lets in; None: all.
    """
    state = state_of(plan, progress)
    if held is not None and state not in OVER:
        no_offer = f"{held.what} is on hold: no device is offered anything"
        yield f"{no_offer}; {held.end} ends that"
    if progress is not None and progress.reason and state == progress.state:
        yield progress.reason
    if progress is not None and progress.waiting and state == RolloutState.RUNNING:
        yield f"wave {progress.wave + 1} waits: {progress.waiting}"
        yield from window_lines(standing)
    elif progress is not None and progress.waiting and progress.state == RolloutState.PAUSED:
        yield progress.waiting
        state = _ENDING
    is_asking = progress is not None and (progress.asks or progress.is_blocked)
    if state == RolloutState.PAUSED and progress is not None and (progress.lifts or is_asking):
        state = _ASKING
    if progress is not None and is_asking and waits_for_person(plan, progress):
        yield f"it waits for you: {what_to_do(plan, progress)}"
    if hint := _hint(plan, state, is_served):
        yield hint
    elif state in (RolloutState.RUNNING, RESUMING) and not is_attended:
        yield _UNATTENDED


def window_lines(standing: Standing | None) -> list[str]:
    """Return that devices wait for the maintenance window, where it is closed."""
    if standing is None or standing.is_open:
        return []
    return [
        f"outside the maintenance window {standing.window}: until it opens, devices are told their "
        "own version"
    ]


def _hint(plan: RolloutPlan, state: str, is_served: bool) -> str:
    if state in (RolloutState.RUNNING, NOT_BEGUN, RESUMING) and not is_served:
        return "no server runs on this data directory; start it, or the rollout does not move"
    if state == NOT_BEGUN:
        return "the controller has not seen it yet, or is still reading the journal"
    if state == _ENDING:
        return "no further devices are offered it; it ends when that is no longer the case"
    if state == _ASKING:
        return ""
    if state == RolloutState.PAUSED:
        return f"no further devices are offered it; {plan.command('resume')} goes on"
    if state == RolloutState.HALTED and plan.wanted == RolloutWish.ABORT:
        return f"no device is left to take back; {plan.command('start VERSION')} brings another"
    if state == RolloutState.HALTED and not plan.is_revert:
        return after_halt(plan)
    if plan.is_revert and state in (RolloutState.HALTED, RolloutState.ABORTED):
        stays = f"devices that went back stay on {plan.version}, the others on {plan.reverts}"
        return f"{stays}; {plan.command('start VERSION')} rolls out what you want"
    if state == RolloutState.ABORTED:
        back = f"; {plan.command('abort --revert')} goes back" if plan.has_way_back else ""
        return f"{who_stays(plan)}{back}"
    return ""


def remarks_of(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    devices_command: str = "`rollout devices`",
    standing: Standing | None = None,
) -> RolloutRemarks:
    """Return what else is to be said of a rollout and of its devices.

    Args:
        devices_command: what lists its devices; "": nothing does.
        standing: as `advice_lines`.
    """
    is_over = state_of(plan, progress) in OVER
    others = [] if progress is None else [*_device_lines(progress, devices_command)]
    warnings: tuple[str, ...] = ()
    if standing is not None and standing.unmet:
        others.append(
            f"{standing.unmet} never ask within the window {standing.window} and have waited for "
            "more than a day (`serve --window-overdue 7d` lets them in)"
        )
    if standing is not None and standing.proxy_sign and not is_over:
        warnings = (standing.proxy_sign,)
    return RolloutRemarks(
        "" if progress is None or is_over else _limits(plan), tuple(others), warnings
    )


def _device_lines(progress: RolloutProgress, devices_command: str) -> Iterator[str]:
    """Yield what is to be said of the devices, and what the controller has noted."""
    counts = progress.counts
    if unfit := counts.get("cannot_take_it"):
        yield unfit_in_words(unfit, counts.get("no_room", 0))
    for name, meaning in _MORE.items():
        if counts.get(name):
            yield f"{counts[name]} {meaning}"
    yield from progress.notes
    is_listed = progress.asks or any(counts.get(name) for name in _LISTED)
    if devices_command and is_listed:
        yield f"{devices_command} lists the devices, each with the reason"


def _limits(plan: RolloutPlan) -> str:
    soak, grace = format_duration(plan.soak_seconds), format_duration(plan.grace_seconds)
    most, timeout = f"{plan.max_failures:g}%", format_duration(plan.wave_timeout_seconds)
    return (
        f"soak {soak}, apply-grace {grace}, max-failures {most}, "
        f"min-devices {plan.min_devices}, wave-timeout {timeout}"
    )


def waves_of(plan: RolloutPlan, progress: RolloutProgress | None) -> tuple[WaveFacts, ...]:
    """Return the waves of a rollout."""
    return tuple(_wave(plan, progress, number) for number in range(plan.wave_count))


def _wave(plan: RolloutPlan, progress: RolloutProgress | None, number: int) -> WaveFacts:
    percent = plan.percent(number)
    added = plan.counted[number] if number < len(plan.counted) else None
    first_group = None if percent else plan.first_group
    wave = WaveFacts(percent, first_group, "to come", added=added)
    if progress is None or number > progress.wave:
        is_over = state_of(plan, progress) in OVER
        return wave._replace(state="not opened") if is_over else wave
    if number < progress.wave:
        counts = progress.before[number] if number < len(progress.before) else {}
        is_whole = counts.get("updated", 0) >= _devices(counts)
        wave = wave._replace(state="done" if is_whole else "passed")
    else:
        counts = progress.counts
        is_done = progress.state == RolloutState.DONE
        wave = wave._replace(state="done" if is_done else "open", since=progress.wave_time)
    devices = max(_devices(counts), 1)
    return wave._replace(counts=counts, updated=counts.get("updated", 0), devices=devices)


def _devices(counts: Mapping[str, int]) -> int:
    """Return how many devices on record a wave and those before it have."""
    return max(counts.get("reach", 0), counts.get("active", 0))


def counted(counts: Mapping[str, int]) -> str:
    """Return how many devices are in each state that has any."""
    if not counts:
        return ""
    first = f"{counts.get('updated', 0)} of {_devices(counts)} updated"
    others = [f"{counts[name]} {name}" for name in _SHOWN[1:] if counts.get(name)]
    if (unheard := _devices(counts) - counts.get("active", 0) - counts.get("displaced", 0)) > 0:
        others.append(f"{unheard} not heard from since it opened")
    return ", ".join([first, *others])
