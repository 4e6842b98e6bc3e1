"""What `rollout status` shows: how far a rollout has come, as text. Pure."""

from collections.abc import Iterator

from ota_server.device_port.window import Standing
from ota_server.model.timestamp import ago, ago_ms
from ota_server.operations.rollout_words import (
    RolloutRemarks,
    WaveFacts,
    advice_lines,
    counted,
    remarks_of,
    state_of,
    title_of,
    waves_of,
)
from ota_server.policy.rollout_plan import OVER, RolloutPlan, RolloutProgress
from ota_server.policy.text import Hold

_BAR = 24


def status_lines(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    now_ms: int,
    is_served: bool = True,
    standing: Standing | None = None,
    is_attended: bool = True,
    held: Hold | None = None,
    ended_ms: int | None = None,
    devices_command: str = "`rollout devices`",
) -> list[str]:
    """Return the status of a rollout for people.

    Args:
        is_served, standing, is_attended, held: as `advice_lines`.
        ended_ms: when it ended; None: it is on.
        devices_command: what lists its devices.
    """
    advice = advice_lines(plan, progress, is_served, standing, is_attended, held)
    remarks = remarks_of(plan, progress, devices_command, standing)
    until_ms = now_ms if ended_ms is None else ended_ms
    is_over = state_of(plan, progress) in OVER
    return [
        _headline(plan, progress, now_ms, ended_ms),
        *(f"  {line}" for line in advice),
        "",
        *(
            _wave_line(number, wave, is_over, until_ms)
            for number, wave in enumerate(waves_of(plan, progress), start=1)
        ),
        *(f"  {line}" for line in _remark_lines(remarks)),
    ]


def _remark_lines(remarks: RolloutRemarks) -> Iterator[str]:
    if remarks.limits:
        yield f"limits: {remarks.limits}"
    yield from remarks.others
    for warning in remarks.warnings:
        yield f"WARNING: {warning}"


def _headline(
    plan: RolloutPlan, progress: RolloutProgress | None, now_ms: int, ended_ms: int | None
) -> str:
    instead = f", instead of {plan.instead_of}" if plan.instead_of and not plan.reverts else ""
    title = title_of(plan.version, plan.group, plan.reverts)
    ended = "" if ended_ms is None else f" {ago_ms(ended_ms, now_ms)}"
    state = f"{state_of(plan, progress)}{ended}"
    return f"{title}{instead}: {state}, begun {ago(plan.time, now_ms)}"


def _wave_line(number: int, wave: WaveFacts, is_over: bool, until_ms: int) -> str:
    whom = f"{wave.percent:g} %" if wave.percent else str(wave.first_group)
    how = wave.state
    if wave.state == "open":
        since = ago(wave.since, until_ms).removesuffix(" ago")
        how = f"open for {since.replace('now', '0s')}" if is_over else f"since {since}"
    shown = ": ".join(filter(None, (how, counted(wave.counts))))
    return f"  wave {number}  {whom:>6}  {_bar(wave.share)}  {shown}"


def _bar(share: float) -> str:
    full = int(share * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"
