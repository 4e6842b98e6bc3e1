"""When a rollout goes on, pauses, halts or is done. Pure. `rollout_plan` shows the states.

- It is *halted* where the lower bound of the share of bad devices is over the limit, with three bad
  ones or more. *6 of 100 failed: at least 2.6 %.*
- 20 devices are too few to prove a share: there two bad ones halt it, or all of fewer than four.
- In a wave of fewer than 50, one bad device is over the usual limit and proves nothing. When the
  others are through, the rollout pauses and names the device, and a person decides.
  *1 of 12 failed: 02:00:00:00:00:07.*
- It *pauses* where many devices are heard only from addresses that are not believed (`contested`,
  rule 4), before a wave goes on that one home alone would have halted (rule 7), and when a wave has
  taken too long.
- Devices that the server does not give the release (`unfit`) are not needed; where there are no
  others, a person decides.
- Devices that say no version show neither that they run the release nor that they do not. A wave
  goes on by the others; where these are too few, a person decides.
- A wave *goes on* when enough of its devices have updated, and were heard from after the soak; by
  their share, slow pollers are among them. Devices that it waits for in vain are named.
- The last wave is *done* when most of the devices that were counted at the start were heard from.
"""

import shlex
from collections.abc import Iterator, Mapping

from ota_server.evaluation.binomial import lower_bound
from ota_server.evaluation.tally import (
    ASKING_WAVE,
    MOST_NAMED,
    SLOW,
    SMALL_WAVE,
    TINY_WAVE,
    Evidence,
    Tally,
)
from ota_server.evaluation.unfit import unfit_in_words
from ota_server.model.quantity import first_of, format_duration
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import OVER, RolloutPlan, RolloutProgress, RolloutWish

# So many bad devices at least halt a rollout: two may be a coincidence.
LEAST_DEVICES_TO_HALT = 3
_LEAST_IN_SMALL_WAVE = 2

_COUNTS = (
    "active",
    "offered",
    "downloading",
    "cut",
    "undecided",
    "updated",
    "failed",
    "mislabelled",
    "silent",
    "too_new",
    "surplus",
    "displaced",
    "contradicted",
    "unseen",
    "cannot_take_it",
    "no_room",
    "fresh",
    "soaked",
    "reach",
    "silent_anyway",
)


def advance(
    plan: RolloutPlan, progress: RolloutProgress, tally: Tally, now_ms: int
) -> RolloutProgress:
    """Return how far a rollout is, by what became of its devices.

    Where the wave differs after that, call `Feedback.open_wave`.

    Args:
        tally: of the wave that `progress` says is open.
    """
    counts = {name: getattr(tally, name) for name in _COUNTS}
    progress = progress._replace(counts=counts, waiting="", notes=_notes(plan, tally))
    if progress.state in OVER:
        return progress
    if plan.wanted == RolloutWish.ABORT:
        return progress._replace(
            state=RolloutState.ABORTED, reason="aborted by an operator", asks=()
        )
    if reason := halting(plan, tally):
        return progress._replace(state=RolloutState.HALTED, reason=reason, asks=())
    if plan.wanted == RolloutWish.PAUSE:
        return progress
    if plan.promoted > progress.wave:
        return _promoted(plan, progress, now_ms)
    if progress.state == RolloutState.PAUSED and not progress.lifts:
        return progress
    waiting = waiting_for(plan, progress, tally)
    is_through = not waiting or bool(tally.stuck) or bool(_too_few_text(plan, tally))
    asked, asks = asking(plan, tally) if is_through else ("", ())
    if reason := pausing(plan, tally) or asked:
        is_new = progress.state != RolloutState.PAUSED or progress.asks != asks
        reason = reason if is_new else progress.reason
        return progress._replace(state=RolloutState.PAUSED, reason=reason, lifts=True, asks=asks)
    progress = progress._replace(state=RolloutState.RUNNING, reason="", lifts=False, asks=())
    if not waiting:
        if progress.wave + 1 < plan.wave_count:
            return _opened(progress, progress.wave + 1, now_ms)
        return progress._replace(state=RolloutState.DONE)
    progress = progress._replace(waiting=waiting, asks=tuple(tally.stuck))
    return _paused_in_time(plan, progress, now_ms)


def _promoted(plan: RolloutPlan, progress: RolloutProgress, now_ms: int) -> RolloutProgress:
    """Open a wave by hand, without the devices that a person was asked about."""
    accepted = tuple(dict.fromkeys((*progress.accepted, *progress.asks)))
    progress = progress._replace(accepted=accepted, asks=(), lifts=False)
    if plan.promoted >= plan.wave_count:
        return progress._replace(state=RolloutState.DONE, reason="")
    return _opened(progress, plan.promoted, now_ms)


def _opened(progress: RolloutProgress, wave: int, now_ms: int) -> RolloutProgress:
    return progress._replace(
        state=RolloutState.RUNNING, reason="", wave=wave, wave_time=format_time(now_ms)
    )


def _paused_in_time(plan: RolloutPlan, progress: RolloutProgress, now_ms: int) -> RolloutProgress:
    open_ms = now_ms - parse_time(progress.wave_time)
    if open_ms < plan.wave_timeout_seconds * 1000:
        return progress
    time = format_duration(plan.wave_timeout_seconds)
    reason = f"wave {progress.wave + 1} did not go on within {time}: {progress.waiting}"
    return progress._replace(state=RolloutState.PAUSED, reason=reason, waiting="")


def waiting_for(plan: RolloutPlan, progress: RolloutProgress, tally: Tally) -> str:
    """Return what a wave still waits for, in words; "" where it may go on."""
    if tally.fresh == 0 and (progress.wave == 0 or tally.members > 0):
        return f"no device of this wave has been heard from{_named(tally.stuck)}"
    undecided = tally.undecided - tally.unseen
    if undecided > plan.max_failures / 100 * tally.active:
        return (
            f"{undecided} of {_count(tally.active)} have downloaded it and not reported "
            f"since, over {plan.max_failures:g} %{_named(tally.stuck)}"
        )
    # Not of those that happened to poll since it opened.
    needed = _needed(plan, tally)
    if tally.soaked < needed:
        quiet = max(tally.members - tally.fresh, 0)
        unheard = f"; not heard from yet: {quiet} of those that this wave added"
        unheard = unheard if quiet and not tally.stuck else ""
        if tally.unseen_fresh and not tally.stuck:
            unheard += f"; {tally.unseen_fresh} had the whole image, and say no version"
        return (
            f"{tally.soaked} of the {_count(needed)} that are needed have run it for the soak of "
            f"{format_duration(plan.soak_seconds)}{unheard}{_named(tally.stuck)}"
        )
    is_share = tally.slow_share > plan.max_failures / 100
    slow_needed = max(int(needed * tally.slow_share), int(is_share))
    if tally.slow_soaked < slow_needed:
        return (
            f"{tally.slow_soaked} of the {_count(slow_needed)} that are needed and that poll "
            f"seldom have run it for the soak of {format_duration(plan.soak_seconds)}"
        )
    if tally.age_ms < plan.soak_seconds * 1000:
        return f"the soak of {format_duration(plan.soak_seconds)} has not passed"
    is_last = progress.wave + 1 == plan.wave_count
    counted = min(sum(plan.counted), tally.reach)
    if is_last and counted and tally.heard * 2 <= counted:
        return f"{tally.heard} of {_count(counted)} have been heard from; it waits for most of them"
    return ""


def pausing(plan: RolloutPlan, tally: Tally) -> str:
    """Return why a rollout pauses, whatever its wave waits for; "" where it does not."""
    share = lower_bound(tally.displaced, tally.active + tally.displaced)
    if tally.displaced < LEAST_DEVICES_TO_HALT or share <= plan.max_failures / 100:
        return ""
    return _displaced_text(plan, tally)


def asking(plan: RolloutPlan, tally: Tally) -> tuple[str, tuple[str, ...]]:
    """Return why a person has to decide before the wave goes on, and about which devices.

    "" where nobody has to. Ask when the others of the wave are through: more may fail, and halt it.
    """
    evidence, limit = tally.overall, plan.max_failures / 100
    bad = max(evidence.failed + evidence.silent - evidence.expected, evidence.mislabelled)
    if _size(tally) <= ASKING_WAVE and bad > limit * evidence.base:
        devices = {**tally.stuck, **tally.bad}
        return (
            f"{len(devices)} of {_count(evidence.base)} did not do well: {_list(devices)}. So few "
            "prove nothing, so a person decides"
        ), tuple(devices)
    if tally.displaced > limit * (tally.active + tally.displaced):
        return _displaced_text(plan, tally), tuple(tally.stuck)
    if reason := _too_few_text(plan, tally):
        return reason, ()
    if reason := halting(plan, tally._replace(overall=tally.whole, parts={}, bad_elsewhere=0)):
        address, count = tally.bad_at
        return (
            f"{reason}; but {count} of them are at {address}, and an address with less than three "
            "tenths of the fleet cannot halt a rollout alone: if they are yours, end it by "
            f"{plan.command('abort')}; if not, `device forget MAC` for each"
        ), ()
    return "", ()


def _too_few_text(plan: RolloutPlan, tally: Tally) -> str:
    """Return why a person has to decide where too few devices show how they do; "": enough do.

    Nobody can take it; or most say no version. A small wave names these instead, as all that keep
    it from going on.
    """
    what_to_do = f"{plan.command('promote')} goes on, {plan.command('abort')} ends the rollout"
    if tally.cannot_take_it and not tally.size:
        unfit = unfit_in_words(tally.cannot_take_it, tally.no_room)
        return f"no device is left in this wave: {unfit}; {what_to_do}"
    needed, others = _needed(plan, tally), tally.members - tally.unseen_fresh
    is_large, is_early = tally.members > ASKING_WAVE, tally.age_ms < plan.soak_seconds * 1000
    if not is_large or is_early or others >= needed:
        return ""
    return (
        f"{tally.unseen_fresh} of {_count(tally.members)} had the whole image, and say no version: "
        f"nothing shows if they run it, and {needed} that do are needed; {what_to_do}"
    )


def _needed(plan: RolloutPlan, tally: Tally) -> int:
    """Return how many have to run it, of those that the wave has."""
    return min(plan.min_devices, tally.members)


def _displaced_text(plan: RolloutPlan, tally: Tally) -> str:
    address, devices = tally.displaced_at
    return (
        f"{_count(tally.displaced)} no longer heard from at home, {devices} only from {address}, "
        "which cannot be believed for so many: if that is a proxy of yours, "
        f"serve with --trusted-proxy {address}; if they have moved there, end it by "
        f"{plan.command('abort')}, and start it again"
    )


def halting(plan: RolloutPlan, tally: Tally) -> str:
    """Return why a release is to be withdrawn, with numbers; "" where it is not."""
    limit = plan.max_failures / 100
    is_small = _size(tally) <= SMALL_WAVE
    for whose, evidence in (("", tally.overall), *_by_part(tally)):
        for hits, base, what in _charges(evidence, tally.label):
            said = f"{hits} of {_count(base)}{whose} {what}"
            bound = lower_bound(hits, base)
            if hits >= LEAST_DEVICES_TO_HALT and bound > limit:
                return (
                    f"{said}: at least {bound * 100:.1f} % (95 % certain), over the limit of "
                    f"{plan.max_failures:g} %"
                )
            # What another address said does not count here: one stranger could halt any first wave.
            sure = hits - tally.bad_elsewhere
            is_enough = sure >= _LEAST_IN_SMALL_WAVE or sure == evidence.base < TINY_WAVE
            if is_small and not whose and is_enough and sure > limit * base:
                few = f"too many for so small a wave: {_list(tally.bad)}"
                return f"{said}, {few}"
    return ""


def _size(tally: Tally) -> int:
    """Return how many devices the waves up to the open one hold."""
    return max(tally.overall.base, tally.size)


def _by_part(tally: Tally) -> Iterator[tuple[str, Evidence]]:
    for name, evidence in tally.parts.items():
        yield " that poll seldom" if name == SLOW else f" that ran {name}", evidence


def _charges(evidence: Evidence, label: str) -> Iterator[tuple[int, int, str]]:
    """Yield how many devices are bad, of how many that could be, and in which way.

    Args:
        label: what mislabelled devices report; "": there are none, or it is not known.
    """
    mislabelled = "report a version that is not a release (see --reports-as)"
    if label:
        mislabelled = f"report {_shown(label)}, which is not a release (see --reports-as)"
    yield evidence.failed, evidence.seen, f"failed or {mislabelled}" if label else "failed"
    what = f"failed or fell silent ({evidence.silent} silent"
    what += f", of which {evidence.excused} excused: others are too)" if evidence.excused else ")"
    yield evidence.failed + evidence.silent - evidence.excused, evidence.base, what
    yield evidence.mislabelled, evidence.seen, mislabelled


def _label_text(plan: RolloutPlan, tally: Tally) -> str:
    """Return what to do where devices do well, but report a third version; "" if they do not."""
    others = tally.failed + tally.silent
    if not tally.label or others > plan.max_failures / 100 * tally.active:
        return ""
    label, version = _shown(tally.label), plan.version
    reported = shlex.quote(label) if label == tally.label else "TEXT"
    return (
        f"if {label} is {version}, publish it again: "
        f"`release publish FILE --version {version} --reports-as {reported}`, then "
        f"`release withdraw --undo {version}` if it was halted, and begin again"
    )


def _shown(label: str) -> str:
    """Return what devices report, for a sentence: backticks are for our own commands."""
    return label.replace("`", "'")


def _notes(plan: RolloutPlan, tally: Tally) -> tuple[str, ...]:
    notes = [cure] if (cure := _label_text(plan, tally)) else []
    if tally.contradicted:
        address, devices = tally.contradicted_at
        others = f", other addresses of {tally.contradicted - devices}"
        others = others if devices < tally.contradicted else ""
        notes.append(
            f"{address} said of {_count(devices)}{others} what their home does not confirm: their "
            "home is believed"
        )
    return tuple(notes)


def _count(devices: int) -> str:
    return f"{devices} device{'s' * (devices != 1)}"


def _named(devices: Mapping[str, str]) -> str:
    """Return which devices are missing."""
    if not devices:
        return ""
    return f"; missing: {_list(devices)}"


def _list(devices: Mapping[str, str]) -> str:
    return first_of([f"{mac} ({state})" for mac, state in devices.items()], MOST_NAMED)
