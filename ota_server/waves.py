"""Waves: when a rollout goes on, when it is done, and when it stops by itself. Pure."""

from collections.abc import Iterator

from ota_server.binomial import lower_bound
from ota_server.evidence import Evidence, Tally
from ota_server.plan import Plan, Progress, duration
from ota_server.record import format_time, parse_time

# So many different devices, and no fewer, halt a rollout: two may be a coincidence.
LEAST_DEVICES_TO_HALT = 3
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
    "duplicate",
    "too_new",
    "capped",
    "fresh",
    "soaked",
    "reach",
)


def advance(plan: Plan, progress: Progress, tally: Tally, now_ms: int) -> Progress:
    """Return how far a rollout is after a look at what became of its devices.

    A progress that is running goes on, is done, is halted, or is paused: at the end of its time, or
    where many fail whose failures cannot count. One that is paused can be halted too, and goes on
    where an operator opens a wave by hand. Where the wave differs, call `Feedback.open_wave`.

    Args:
        tally: of the wave that `progress` says is open.
    """
    counts = {name: getattr(tally, name) for name in _COUNTS}
    progress = progress._replace(counts=counts, waiting="")
    if progress.state not in ("running", "paused"):
        return progress
    if plan.wanted == "abort":
        return progress._replace(state="aborted", reason="aborted by an operator")
    if reason := halting(plan, tally):
        return progress._replace(state="halted", reason=reason)
    if plan.wanted == "pause":
        return progress
    promoted = min(plan.promoted, plan.wave_count - 1)
    if promoted > progress.wave:
        return _opened(progress, promoted, now_ms)
    if progress.state == "paused":
        return progress
    if reason := crowding(plan, tally):
        return progress._replace(state="paused", reason=reason)
    waiting = waiting_for(plan, progress, tally)
    if not waiting:
        if progress.wave + 1 < plan.wave_count:
            return _opened(progress, progress.wave + 1, now_ms)
        return progress._replace(state="done")
    return _paused_in_time(plan, progress._replace(waiting=waiting), now_ms)


def _opened(progress: Progress, wave: int, now_ms: int) -> Progress:
    return progress._replace(state="running", reason="", wave=wave, wave_time=format_time(now_ms))


def _paused_in_time(plan: Plan, progress: Progress, now_ms: int) -> Progress:
    open_ms = now_ms - parse_time(progress.wave_time)
    if open_ms < plan.wave_timeout_seconds * 1000:
        return progress
    time = duration(plan.wave_timeout_seconds)
    reason = f"wave {progress.wave + 1} did not go on within {time}: {progress.waiting}"
    return progress._replace(state="paused", reason=reason, waiting="")


def waiting_for(plan: Plan, progress: Progress, tally: Tally) -> str:
    """Return what a wave still waits for, in words; "" where it may go on."""
    if tally.fresh == 0 and (progress.wave == 0 or tally.to_come > 0):
        return "none of its devices has been heard from"
    limit = plan.max_failures / 100
    if reason := crowding(plan, tally):
        return reason
    all_devices = tally.active + tally.duplicate
    if tally.duplicate > limit * all_devices and tally.duplicate >= LEAST_DEVICES_TO_HALT:
        return (
            f"{tally.duplicate} of {all_devices} devices share a MAC with another device, over "
            f"{plan.max_failures:g} %, and count for nothing: give each its own MAC, or pin them"
        )
    if tally.undecided > limit * tally.active:
        return (
            f"{tally.undecided} of {tally.active} devices have downloaded it and are undecided, "
            f"over {plan.max_failures:g} %"
        )
    needed = min(plan.min_devices, tally.fresh)
    if tally.soaked < needed:
        hint = f", {tally.capped} more share an address (--shared-address)" if tally.capped else ""
        return (
            f"{tally.fresh_updated} devices have updated, {tally.soaked} of them for the soak, "
            f"{needed} are needed{hint}"
        )
    return "" if tally.age_ms >= plan.soak_seconds * 1000 else "the soak has not passed"


def crowding(plan: Plan, tally: Tally) -> str:
    """Return that many fail behind one address, whose failures cannot count; "": it is not so."""
    bound = lower_bound(tally.crowded, tally.active)
    if tally.crowded < LEAST_DEVICES_TO_HALT or bound <= plan.max_failures / 100:
        return ""
    return (
        f"{tally.crowded} devices failed behind an address that many share, where failures count "
        "for little: if it is a NAT, abort this and start it anew with --shared-address and its "
        "network"
    )


def halting(plan: Plan, tally: Tally) -> str:
    """Return why a release is to be taken back, in words with numbers; "" where it is not."""
    limit = plan.max_failures / 100
    for whose, evidence in (("", tally.overall), *_by_version(tally)):
        for hits, what in _charges(evidence):
            bound = lower_bound(hits, evidence.base)
            if hits >= LEAST_DEVICES_TO_HALT and bound > limit:
                return (
                    f"{hits} of {evidence.base} devices{whose} {what}: at least "
                    f"{bound * 100:.1f} %, over the limit of {plan.max_failures:g} %"
                )
    return ""


def _by_version(tally: Tally) -> Iterator[tuple[str, Evidence]]:
    for version, evidence in tally.versions.items():
        yield f" that ran {version}", evidence


def _charges(evidence: Evidence) -> Iterator[tuple[int, str]]:
    """Yield how many devices are bad, and in which way."""
    yield evidence.failed, "failed"
    what = f"failed or fell silent ({evidence.silent} silent"
    what += f", {evidence.excused} excused, since others are too)" if evidence.excused else ")"
    yield evidence.failed + evidence.silent - evidence.excused, what
    yield evidence.mislabelled, "report a version that is no release (see --reports-as)"
