"""What the device index answers, as values. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ota_server.operations.device_filter import (
    APARTS,
    CONDITIONS,
    OVERDUE_INTERVALS,
    STAGES,
    Apart,
    Stage,
)
from ota_server.operations.index_row import IndexRow, cause_of, device_of
from ota_server.policy.device_state import Condition, evidence_in_words
from ota_server.policy.explain import in_words
from ota_server.policy.reason import Reason

# Beyond this a count says "more than".
MOST_COUNTED = 10_000


class IndexAway(Exception):
    """There is no index that can be read now: its controller does not run, or begins to make it."""


class IndexedDevice(NamedTuple):
    """A device as the index has it; times in milliseconds since the epoch.

    Attributes:
        key: as in `model.identity`.
        name: its MAC address, or `id:` and what it calls itself.
        label: "": it has none.
        target: the version that it was last told; None: none.
        release: the release that it should run; None: it should stay on what it runs.
        reason: why it gets what it gets.
        words: why it counts as failed, silent or undecided, else why it gets what it gets.
        stage: how far it is with `release`.
        apart: why it is left out of the count; None: it is counted.
        updated_ms: when it first reported its version; None: that never changed.
        first_ms: the beginning of the hour in which it was first seen; None: not on record.
        interval_ms: how often it asks; 0: that is not known.
        is_overdue: it was silent for longer than that explains.
        since_ms: since when it is in its condition.
    """

    key: str
    name: str
    product: str
    family: str
    label: str
    version: str
    target: str | None
    release: str | None
    condition: Condition
    reason: Reason
    words: str
    stage: Stage
    apart: Apart | None
    seen_ms: int
    updated_ms: int | None
    first_ms: int | None
    address: str
    groups: tuple[str, ...]
    is_pinned: bool
    is_outdated: bool
    interval_ms: int
    is_overdue: bool
    since_ms: int


class Total(NamedTuple):
    """How many devices there are; not exact: more than `number`."""

    number: int
    is_exact: bool


class DevicePage(NamedTuple):
    """A part of a list of devices.

    Attributes:
        next, previous: cursors of the parts beside it; None: there is none.
        total: of the whole list.
    """

    rows: tuple[IndexedDevice, ...]
    next: str | None
    previous: str | None
    total: Total


class FleetSummary(NamedTuple):
    """The figures of the overview.

    Attributes:
        total: all devices on record, of the products that are there.
        conditions: how many are in each condition; they add up to `total`.
        counted: the same without those that are left out; see `apart`.
        apart: how many are left out of the count, and why.
        held_by: how many are held back, by what holds them, in words (`device_state.HELD_BY`).
        versions: how many report each version, the most frequent first; of many the first 50.
        other_versions: how many report other ones.
        as_of_ms: when all states were up to date last.
        progress: of the making of the index, from 0 to 1; 1: it is whole.
        bad_lines: how many lines of the journal, of all products, were skipped because they were
            not records.
    """

    total: int
    conditions: Mapping[Condition, int]
    counted: Mapping[Condition, int]
    apart: Mapping[Apart, int]
    held_by: Mapping[str, int]
    versions: Mapping[str, int]
    other_versions: int
    as_of_ms: int
    progress: float
    bad_lines: int = 0


class VersionsOverTime(NamedTuple):
    """How many devices reported each version, at several times.

    Attributes:
        times_ms: the ends of equal spans of time.
        counts: by version, the most frequent first, a number for each time; "": it is not known
            which version they reported.
        other: how many reported any other version.
    """

    times_ms: tuple[int, ...]
    counts: Mapping[str, tuple[int, ...]]
    other: tuple[int, ...]


def indexed(row: IndexRow, now_ms: int) -> IndexedDevice:
    """Return the device of a row as people see it."""
    condition, cause = CONDITIONS[row.condition], cause_of(row)
    return IndexedDevice(
        key=row.key,
        name=row.name,
        product=row.product,
        family=row.family,
        label=row.label,
        version=row.version,
        target=row.target,
        release=row.release,
        condition=condition,
        reason=cause.reason,
        words=evidence_in_words(condition, device_of(row)) or in_words(cause),
        stage=STAGES[row.stage],
        apart=APARTS[row.apart],
        seen_ms=row.seen_ms,
        updated_ms=row.updated_ms or None,
        first_ms=row.first_ms or None,
        address=row.address,
        groups=tuple(row.groups.strip(",").split(",")) if row.groups else (),
        is_pinned=bool(row.is_pinned),
        is_outdated=bool(row.is_outdated),
        interval_ms=row.interval_ms,
        is_overdue=0 < OVERDUE_INTERVALS * row.interval_ms < now_ms - row.seen_ms,
        since_ms=row.since_ms,
    )
