"""What pages show of a rollout: its state, its waves with their bars. No I/O."""

from collections.abc import Mapping, Sequence

from ota_server.model.quantity import count_of, format_duration
from ota_server.model.timestamp import parse_time
from ota_server.operations.rollout_facts import RolloutDetail
from ota_server.operations.rollout_words import WaveFacts, counted
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.pieces import (
    ROLLOUT_CLASSES,
    Heading,
    number,
    percent,
    state,
    table,
    when,
)
from ota_server.operator_port.svg import Segment, bar
from ota_server.policy.rollout_plan import RolloutPlan

_HEADINGS = (
    Heading("Wave"),
    Heading("Devices", is_number=True, title="of this wave and of all before it"),
    Heading("State"),
    Heading("Progress"),
)
# Letters of the name of a wave that do not take a second line.
_MOST_OF_A_LINE = 24
# What a bar shows, the best first, with its colour; what is left has not got that far.
_PARTS = (
    ("updated", "good", ("updated",)),
    ("on the way", "going", ("downloading", "undecided")),
    ("cut", "back", ("cut",)),
    ("failed", "bad", ("failed", "mislabelled")),
    ("silent", "silent", ("silent",)),
)


def rollout_state(word: str, needs_person: bool = False) -> Html:
    """Return the state of a rollout in words with its colour."""
    waits = ", waits for you" if needs_person and word != "halted" else ""
    return state(ROLLOUT_CLASSES.get(word, "away"), word + waits)


def time_of(text: str, now_ms: int) -> Node:
    """Return a time on record; one that was edited is text."""
    try:
        return when(parse_time(text), now_ms)
    except ValueError:
        return text


def wave_bar(wave: WaveFacts) -> Html:
    """Return how far the devices of a wave are, and of those before it, as a bar."""
    counts = {
        words: sum(wave.counts.get(each, 0) for each in states) for words, _, states in _PARTS
    }
    segments = [
        Segment(counts[words], kind, count_of(counts[words], "device") + f" {words}")
        for words, kind, _ in _PARTS
    ]
    left = max(0, wave.devices - sum(counts.values())) if wave.counts else 1
    not_yet = f"{count_of(left, 'device')} not told yet" if wave.counts else "to come"
    segments.append(Segment(left, "rest", not_yet))
    said = counted(wave.counts) or "to come"
    return bar(segments, said)


def waves_table(detail: RolloutDetail, now_ms: int) -> Html:
    """Return the waves of a rollout, each with its bar."""
    added = detail.plan.counted
    totals = [sum(added[: at + 1]) for at in range(len(added))]
    rows = [
        _wave_row(at, wave, totals, now_ms, is_open=wave.state == "open" and detail.is_on)
        for at, wave in enumerate(detail.waves)
    ]
    return table(_HEADINGS, rows, caption="The waves of this rollout")


def _wave_row(
    at: int, wave: WaveFacts, totals: Sequence[int], now_ms: int, is_open: bool
) -> tuple[Node, ...]:
    whom = f"{wave.percent:g} %" if wave.percent else f"group {wave.first_group}"
    devices = _devices_of(wave.counts, totals[at] if at < len(totals) else None)
    since: Node = None
    if is_open and wave.since:
        since = (" since ", time_of(wave.since, now_ms))
    elif wave.state == "open":
        since = " when it ended"
    words: Node = None
    if wave.counts:
        shared = percent(wave.updated, wave.devices)
        words = element("span", f"{counted(wave.counts)} ({shared})", class_="quiet")
    progress = element("div", wave_bar(wave), words)
    is_short = len(whom) <= _MOST_OF_A_LINE
    name = element("span", f"{at + 1}: {whom}", class_="nowrap" if is_short else None)
    return name, devices, element("span", wave.state, since, class_="nowrap"), progress


def _devices_of(counts: Mapping[str, int], planned: int | None) -> str:
    """Return how many devices a wave has with those before it; before it opens, about so many."""
    if counts:
        return number(max(counts.get("reach", 0), counts.get("active", 0)))
    return "?" if planned is None else number(planned)


def limit_facts(plan: RolloutPlan) -> list[tuple[str, Node]]:
    """Return the limits of a rollout, each with what it is called."""
    return [
        ("Most failures", f"{plan.max_failures:g} %"),
        ("Soak", format_duration(plan.soak_seconds)),
        ("Time to apply", format_duration(plan.grace_seconds)),
        ("Time of a wave", f"{format_duration(plan.wave_timeout_seconds)} at most"),
    ]
