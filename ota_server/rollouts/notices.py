"""Notices: what somebody may want to hear of at once, by two looks at a data directory. Pure."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from ota_server.model.notice import notice_id
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    waits_for_person,
)
from ota_server.policy.rollout_text import state_text
from ota_server.policy.text import Hold, hold_text


class EventName(StrEnum):
    """What happened, as a notice names it."""

    ROLLOUT_MOVED = "rollout_moved"  # it has begun, the next wave is open, or it goes on
    ROLLOUT_WAITS = "rollout_waits"  # for a person
    ROLLOUT_HALTED = "rollout_halted"
    ROLLOUT_ENDED = "rollout_ended"  # done, or aborted
    JOURNAL_FAILING = "journal_failing"
    JOURNAL_WORKS = "journal_works"
    HOLD_BEGUN = "hold_begun"
    HOLD_ENDED = "hold_ended"
    TEST = "test"  # `notify test`


# One that is paused may wait for a person, or a person has paused it.
_OF_STATE = {
    RolloutState.RUNNING: EventName.ROLLOUT_MOVED,
    RolloutState.HALTED: EventName.ROLLOUT_HALTED,
    RolloutState.DONE: EventName.ROLLOUT_ENDED,
    RolloutState.ABORTED: EventName.ROLLOUT_ENDED,
}


# These are told before the rest.
ALARMS = (
    EventName.ROLLOUT_HALTED,
    EventName.JOURNAL_FAILING,
    EventName.JOURNAL_WORKS,
    EventName.TEST,
)


def journal_notice(is_failing: bool) -> dict[str, Any]:
    """Return the notice of a journal that fails, or works again."""
    if is_failing:
        return _event(EventName.JOURNAL_FAILING, "the journal cannot be written")
    return _event(EventName.JOURNAL_WORKS, "the journal can be written again")


def hold_notice(hold: Hold | None) -> dict[str, Any]:
    """Return the notice of a hold that has begun; None: it has ended."""
    if hold is None:
        text = "the hold has ended: devices are offered what they should run"
        return _event(EventName.HOLD_ENDED, text)
    notice = _event(EventName.HOLD_BEGUN, f"{hold_text(hold)}; {hold.end} ends that")
    return {**notice, "reason": hold.reason, "user": hold.user}


def test_notice(time: str, request: str = "") -> dict[str, Any]:
    """Return a notice that only shows that notices arrive."""
    notice = _event(EventName.TEST, "a test: notices of this server arrive here")
    return {"time": time, **notice, "id": notice_id(EventName.TEST, time, request)}


def rollout_notices(
    before: RolloutProgress | None, plan: RolloutPlan, progress: RolloutProgress
) -> Iterator[dict[str, Any]]:
    """Yield the notices of what happened to a rollout between two looks.

    Args:
        before: of the last rollout to its group; None: there was none.
    """
    for name in _names(before, plan, progress):
        is_move = name is EventName.ROLLOUT_MOVED
        shown = progress._replace(asks=()) if is_move else progress
        yield {
            **_event(name, state_text(plan, shown, _is_resumed(before, progress))),
            "group": plan.group,
            "version": plan.version,
            "state": progress.state,
            "wave": progress.wave + 1,
            "waves": plan.wave_count,
            "reason": progress.reason,
            "devices": list(progress.asks or progress.bad),
            "counts": dict(progress.counts),
            # Not of the counts: it is the same step, and the same notice, when these have changed.
            "id": notice_id(name, *_step(progress), progress.wave_time, progress.resumed),
        }


def _is_resumed(before: RolloutProgress | None, progress: RolloutProgress) -> bool:
    if before is None or before.state != RolloutState.PAUSED:
        return False
    return (before.id, before.wave) == (progress.id, progress.wave)


def _names(
    before: RolloutProgress | None, plan: RolloutPlan, progress: RolloutProgress
) -> Iterator[EventName]:
    """Yield what happened to a rollout; one that opens a wave may wait for a person at once."""
    if progress.is_halting:
        return  # in a moment it is halted, or paused because it cannot be
    if before is not None and not before.is_halting and _step(before) == _step(progress):
        return
    is_same = before is not None and _step(before)[:-1] == _step(progress)[:-1]
    if progress.state in _OF_STATE and not (is_same and progress.asks):
        yield _OF_STATE[progress.state]
    if waits_for_person(plan, progress):
        yield EventName.ROLLOUT_WAITS


def _step(progress: RolloutProgress) -> tuple[object, ...]:
    """Return what is worth telling: not the counts, which change all the time."""
    return progress.id, progress.state, progress.wave, progress.asks


def _event(name: EventName, text: str) -> dict[str, Any]:
    return {"event": name, "text": text}
