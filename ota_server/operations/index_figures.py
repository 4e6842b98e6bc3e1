"""What the device index has counted: how many devices are how, and what they reported when. I/O."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ota_server.operations.device_filter import (
    APARTS,
    CONDITIONS,
    NO_CONDITION,
    REASONS,
    Apart,
    DeviceFilter,
    held_by_reasons,
)
from ota_server.operations.index_answers import FleetSummary, VersionsOverTime
from ota_server.operations.index_schema import get_meta
from ota_server.operations.index_tally import SPAN_MS
from ota_server.policy.device_state import HELD_BY, Condition
from ota_server.policy.reason import Reason

_MOST_SHOWN = 50
_MOST_IN_TIME = 200
_MOST_IN_PLOT = 9


class StateCount(NamedTuple):
    """How many devices are in one state, by the numbers of its parts."""

    condition: int
    apart: int
    reason: int
    devices: int


def state_counts(connection: sqlite3.Connection, products: Sequence[str]) -> list[StateCount]:
    """Return how many devices of some products are in which state."""
    sql = (
        "SELECT condition, apart, reason, devices FROM state_tally "
        f"WHERE product IN ({_places(products)}) AND condition <> {NO_CONDITION} AND devices > 0"
    )
    return [StateCount._make(row) for row in connection.execute(sql, tuple(products))]


def summary_of(connection: sqlite3.Connection, products: Sequence[str]) -> FleetSummary:
    """Return the figures of some products together."""
    conditions, counted = Counter[Condition](), Counter[Condition]()
    apart, held_by = Counter[Apart](), Counter[str]()
    for each in state_counts(connection, products):
        condition, left_out = CONDITIONS[each.condition], APARTS[each.apart]
        conditions[condition] += each.devices
        if left_out is None:
            counted[condition] += each.devices
        else:
            apart[left_out] += each.devices
        if condition is Condition.HELD_BACK:
            reason = REASONS[each.reason]
            held_by[HELD_BY.get(reason, reason.value)] += each.devices
    versions, total = frequent_versions(connection, products), conditions.total()
    return FleetSummary(
        total,
        conditions,
        counted,
        apart,
        held_by,
        dict(versions.most_common()),
        max(total - versions.total(), 0),
        int(get_meta(connection, "as_of_ms") or "0"),
        float(get_meta(connection, "progress") or "0"),
        int(get_meta(connection, "bad_lines") or "0"),
    )


def frequent_versions(
    connection: sqlite3.Connection, products: Sequence[str], most: int = _MOST_SHOWN
) -> Counter[str]:
    """Return the versions that most devices report."""
    found: Counter[str] = Counter()
    sql = (
        "SELECT version, devices FROM version_tally INDEXED BY by_frequency "
        "WHERE product = ? ORDER BY devices DESC LIMIT ?"
    )
    for product in products:
        for version, devices in connection.execute(sql, (product, most)):
            found[version] += devices
    return Counter(dict(found.most_common(most)))


def told_last(connection: sqlite3.Connection, products: Sequence[str]) -> Counter[str]:
    """Return how many devices were told each version last; this looks at all devices."""
    sql = (
        "SELECT target, count(*) FROM devices NOT INDEXED "
        f"WHERE product IN ({_places(products)}) AND condition != {NO_CONDITION} "
        "AND target IS NOT NULL GROUP BY target"
    )
    return Counter(dict(connection.execute(sql, tuple(products)).fetchall()))


def counted_devices(
    connection: sqlite3.Connection, products: Sequence[str], wanted: DeviceFilter
) -> int:
    """Return how many devices of some products a filter by nothing but states lets through."""
    reasons = held_by_reasons(wanted.held_by)
    return sum(
        each.devices
        for each in state_counts(connection, products)
        if (not wanted.states or CONDITIONS[each.condition] in wanted.states)
        and (not wanted.apart or APARTS[each.apart] in wanted.apart)
        and (not wanted.held_by or _is_held_by(each, reasons))
    )


def _is_held_by(count: StateCount, reasons: Sequence[Reason]) -> bool:
    is_held = CONDITIONS[count.condition] is Condition.HELD_BACK
    return is_held and REASONS[count.reason] in reasons


def by_group(connection: sqlite3.Connection, product: str) -> dict[str, Counter[Condition]]:
    """Return how many devices of each group are in which state; this looks at all devices."""
    found: dict[str, Counter[Condition]] = {}
    sql = (
        "SELECT groups, condition, count(*) FROM devices NOT INDEXED WHERE product = ? "
        f"AND condition < {NO_CONDITION} AND groups <> '' GROUP BY groups, condition"
    )
    for groups, condition, devices in connection.execute(sql, (product,)):
        for group in groups.strip(",").split(","):
            found.setdefault(group, Counter())[CONDITIONS[condition]] += devices
    return found


def reporting(
    connection: sqlite3.Connection, products: Sequence[str], versions: Sequence[str]
) -> Counter[str]:
    """Return how many devices report each of some versions."""
    found: Counter[str] = Counter()
    sql = "SELECT devices FROM version_tally WHERE product = ? AND version = ?"
    for product in products:
        for version in versions:
            for (devices,) in connection.execute(sql, (product, version)):
                found[version] += devices
    return found


def ends_of_spans(since_ms: int, until_ms: int, number: int) -> tuple[int, ...]:
    """Return the ends of so many equal spans of a time, at least one."""
    number = max(number, 1)
    length_ms = max(until_ms - since_ms, number)
    return tuple(since_ms + length_ms * (at + 1) // number for at in range(number))


def counts_in_time(
    connection: sqlite3.Connection, products: Sequence[str], times_ms: tuple[int, ...]
) -> VersionsOverTime:
    """Return how many devices reported each version at some times, and how many any other one.

    From what they report now back through what has changed since.
    """
    total = sum(each.devices for each in state_counts(connection, products))
    changes = _changes_since(connection, products, times_ms[0])
    moved: Counter[str] = Counter()
    for _, version, devices in changes:
        moved[version] += abs(devices)
    names = {version for version, _ in moved.most_common(_MOST_IN_TIME)}
    now = frequent_versions(connection, products) + reporting(
        connection, products, sorted(names - {*frequent_versions(connection, products)})
    )
    counts = {version: [0] * len(times_ms) for version in (*now, *names)}
    totals = [0] * len(times_ms)
    at = len(changes)
    # What changed within a span is shown from its end on, and at the last time: not before it was.
    shown_from_ms = [*(each - SPAN_MS for each in times_ms[:-1]), times_ms[-1] - 1]
    for place in reversed(range(len(times_ms))):
        while at and changes[at - 1][0] * SPAN_MS > shown_from_ms[place]:
            at -= 1
            _, version, devices = changes[at]
            now[version] -= devices
            total -= devices
        totals[place] = max(total, 0)
        for version, each in counts.items():
            each[place] = max(now[version], 0)
    shown = sorted(counts, key=lambda version: (-max(counts[version]), version))[:_MOST_IN_PLOT]
    chosen = {version: tuple(counts[version]) for version in shown if any(counts[version])}
    sums = [sum(each[place] for each in chosen.values()) for place in range(len(times_ms))]
    other = tuple(max(all_ - some, 0) for all_, some in zip(totals, sums, strict=True))
    return VersionsOverTime(times_ms, chosen, other)


def first_change_ms(connection: sqlite3.Connection, products: Sequence[str]) -> int | None:
    """Return the begin of the span in which the first counted device came; None: there is none."""
    sql = "SELECT min(span) FROM version_changes WHERE product = ?"
    found = [connection.execute(sql, (each,)).fetchone()[0] for each in products]
    return min((span * SPAN_MS for span in found if span is not None), default=None)


def _changes_since(
    connection: sqlite3.Connection, products: Sequence[str], since_ms: int
) -> list[tuple[int, str, int]]:
    """Return the changes since a time in their order: the span, the version, how many more."""
    sql = (
        "SELECT span, version, sum(devices) FROM version_changes "
        f"WHERE product IN ({_places(products)}) AND span >= ? "
        "GROUP BY span, version ORDER BY span"
    )
    return connection.execute(sql, (*products, since_ms // SPAN_MS)).fetchall()


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
