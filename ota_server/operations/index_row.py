"""A row of the device index: made of a device and its state, and made into a device again. Pure.

The columns of `IndexRow` are those of the table `devices`, in their order. `rest` and `cause` are
those of `details`; most devices need neither.
"""

import json
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from ota_server.model.action import action_fields, action_in
from ota_server.model.device import DAY_MS, HOUR_MS, Device, Download, first_seen_hour
from ota_server.model.identity import key_of_name, name_of, number_of, product_of
from ota_server.model.updater import family_of, updater_fields, updater_in
from ota_server.model.version import order_of, same_version
from ota_server.operations.device_filter import (
    APARTS,
    CONDITIONS,
    NO_CONDITION,
    REASONS,
    STAGES,
    Apart,
    Stage,
)
from ota_server.policy.device_state import QUIET_MS, Condition, Told
from ota_server.policy.reason import Cause, Reason

_encode = json.JSONEncoder(separators=(",", ":")).encode
_CONDITION_NUMBERS = {condition: number for number, condition in enumerate(CONDITIONS)}
_REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
_APART_NUMBERS = {apart: number for number, apart in enumerate(APARTS)}
_STAGE_NUMBERS = {stage: number for number, stage in enumerate(STAGES)}
# Without more about it: what most devices of a fleet are told, also while a rollout goes on.
_PLAIN = {
    **{reason: Cause(reason) for reason in Reason},
    Reason.HELD_BACK: Cause(Reason.HELD_BACK, behind=Cause(Reason.TARGET)),
}
# A gap that is far from the others, such as after an outage, moves the interval by no more.
_MOST_TIMES = 4
# Less for a short one: many devices ask several times when they wake.
_WEIGHT_OF_LONG, _WEIGHT_OF_SHORT = 4, 16
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(r"\.".join([_OCTET] * 4))


class IndexedState(NamedTuple):
    """How a device is, by what operators decided; what `policy` says of it.

    Attributes:
        condition: None: its product is not there.
        cause: why it gets what it gets.
        release: that it should run; None: it should stay on what it runs.
        due_ms: when it may be another one although nothing happens; None: not soon. That it is
            away after a day is found in another way.
    """

    condition: Condition | None
    cause: Cause
    release: str | None
    stage: Stage
    is_outdated: bool
    is_pinned: bool
    apart: Apart | None
    due_ms: int | None


# Of a device whose product is not there (any longer).
NO_MARKS: tuple[str, tuple[str, ...]] = ("", ())
NO_STATE = IndexedState(None, Cause(Reason.TARGET), None, Stage.NONE, False, False, None, None)


class IndexRow(NamedTuple):
    """See above; 0 as a time: there was none."""

    number: int
    name: str
    product: str
    condition: int
    reason: int
    stage: int
    apart: int
    is_outdated: int
    is_pinned: int
    seen_ms: int
    interval_ms: int
    version: str
    version_order: str
    family: str
    address: str
    address_order: bytes
    groups: str
    label: str
    label_folded: str
    release: str | None
    target: str | None
    target_order: str
    updated_ms: int
    first_ms: int
    since_ms: int
    due_ms: int | None
    rest: str | None
    cause: str | None

    @property
    def key(self) -> str:
        """The key of its device."""
        return key_of_name(self.product, self.name)


# Those of `devices`.
NARROW = len(IndexRow._fields) - 2


def make_row(
    key: str,
    device: Device,
    state: IndexedState,
    marks: tuple[str, tuple[str, ...]],
    before: IndexRow | None,
    now_ms: int,
) -> IndexRow:
    """Return the row of a device.

    Args:
        marks: its label and its groups.
        before: its row up to now; None: it is new.
    """
    (label, groups), version, seen_ms = marks, device.firmware_version, device.last_seen_ms
    if before is None:
        identity = number_of(key), name_of(key), product_of(key)
        since_ms, interval_ms = _since(device, state, now_ms), 0
    else:
        identity, since_ms = before[:3], _since_then(before, state, now_ms)
        interval_ms = interval_after(before.interval_ms, seen_ms - before.seen_ms)
    return IndexRow(
        *identity,
        _condition_number(state),
        _REASON_NUMBERS[state.cause.reason],
        _STAGE_NUMBERS[state.stage],
        _APART_NUMBERS[state.apart],
        int(state.is_outdated),
        int(state.is_pinned),
        seen_ms,
        interval_ms,
        version,
        order_of(version),
        family_of(device.updater),
        device.address,
        order_of_address(device.address),
        _joined(groups),
        label,
        label.casefold() if label else "",
        state.release,
        device.target_version,
        order_of(device.target_version or ""),
        device.update_ms or 0,
        first_seen_hour(device) or 0,
        since_ms,
        state.due_ms,
        rest_of(device),
        _cause_text(state.cause),
    )


def restated(
    row: IndexRow, state: IndexedState, marks: tuple[str, tuple[str, ...]], now_ms: int
) -> IndexRow:
    """Return the row of a device of which nothing was heard, but that may be otherwise now."""
    label, groups = marks
    return row._replace(
        condition=_condition_number(state),
        reason=_REASON_NUMBERS[state.cause.reason],
        stage=_STAGE_NUMBERS[state.stage],
        apart=_APART_NUMBERS[state.apart],
        is_outdated=int(state.is_outdated),
        is_pinned=int(state.is_pinned),
        groups=_joined(groups),
        label=label,
        label_folded=label.casefold() if label else "",
        release=state.release,
        since_ms=_since_then(row, state, now_ms),
        due_ms=state.due_ms,
        cause=_cause_text(state.cause),
    )


def _condition_number(state: IndexedState) -> int:
    return NO_CONDITION if state.condition is None else _CONDITION_NUMBERS[state.condition]


def _joined(groups: tuple[str, ...]) -> str:
    return f",{','.join(groups)}," if groups else ""


def _cause_text(cause: Cause) -> str | None:
    return None if cause == _PLAIN[cause.reason] else _encode(_packed(cause))


def device_of(row: IndexRow) -> Device:
    """Return the device of a row, as far as decisions depend on it, and views show it.

    The time of its newest record is not known.
    """
    image_only, download, action, updater = _parsed_rest(row.rest)
    return Device(
        row.seen_ms,
        row.version,
        row.seen_ms,
        row.updated_ms or None,
        row.target,
        row.address,
        image_only,
        download,
        row.first_ms + HOUR_MS if row.first_ms else None,
        action,
        updater,
    )


def cause_of(row: IndexRow) -> Cause:
    """Return why a device gets what it gets."""
    if row.cause is None:
        return _PLAIN[REASONS[row.reason]]
    return _unpacked(json.loads(row.cause))


def stage_of(device: Device, told: Told) -> Stage:
    """Return how far a device is with the release that it should run."""
    release, download = told.release, device.download
    if release is None:
        return Stage.NONE
    if same_version(told.running, release):
        return Stage.REPORTS_IT
    if download is not None and download.attempts and same_version(download.version, release):
        return Stage.HAS_IT
    target = device.target_version
    return Stage.TOLD if target is not None and same_version(target, release) else Stage.NONE


def interval_after(interval_ms: int, gap_ms: int) -> int:
    """Return how often a device asks, after it asked again; 0: that is not known."""
    if gap_ms <= 0:
        return interval_ms
    if not interval_ms:
        return gap_ms
    gap_ms = min(max(gap_ms, interval_ms // _MOST_TIMES), interval_ms * _MOST_TIMES)
    weight = _WEIGHT_OF_LONG if gap_ms > interval_ms else _WEIGHT_OF_SHORT
    return interval_ms + (gap_ms - interval_ms) // weight


@lru_cache(maxsize=16384)
def order_of_address(address: str) -> bytes:
    """Return bytes by which addresses are sorted, and found in networks; b"" for another text."""
    if match := _IPV4.fullmatch(address):  # in a fourth of the time
        return bytes((4, *map(int, match.groups())))
    try:
        parsed = ip_address(address)
    except ValueError:
        return b""
    return bytes((6 if isinstance(parsed, IPv6Address) else 4,)) + parsed.packed


def _since_then(before: IndexRow, state: IndexedState, now_ms: int) -> int:
    return before.since_ms if before.condition == _condition_number(state) else now_ms


def _since(device: Device, state: IndexedState, now_ms: int) -> int:
    """Return since when a device is in its condition, as far as that can be seen now."""
    download = device.download
    had_ms = 0 if download is None else download.attempt_ms
    if state.condition is Condition.SILENT:
        since_ms = max(had_ms, device.last_seen_ms) + QUIET_MS
    elif state.condition is Condition.AWAY:
        since_ms = device.last_seen_ms + DAY_MS
    elif state.condition is Condition.FAILED:
        since_ms = max(had_ms, device.last_seen_ms)
    else:
        since_ms = device.update_ms or device.first_seen_ms or device.last_seen_ms
    return min(since_ms, now_ms)


# What is in `details`

_Rest = tuple[bool, Download | None, Any, Any]


def rest_of(device: Device) -> str | None:
    """Return what is known of a device and stands in no column of its own."""
    rest: dict[str, Any] = {}
    if device.image_only:
        rest["image_only"] = True
    if device.download is not None:
        rest["download"] = device.download
    if device.updater is not None:
        rest |= updater_fields(device.updater)
    if device.action is not None:
        rest |= action_fields(device.action)
    return _encode(rest) if rest else None


def _parsed_rest(text: str | None) -> _Rest:
    if text is None:
        return False, None, None, None
    rest = json.loads(text)
    download = Download(*rest["download"]) if "download" in rest else None
    updater = updater_in(rest) if "family" in rest else None
    return "image_only" in rest, download, action_in(rest), updater


def _packed(cause: Cause) -> list[Any]:
    behind = None if cause.behind is None else _packed(cause.behind)
    return [_REASON_NUMBERS[cause.reason], *cause[1:-1], behind]


def _unpacked(packed: list[Any]) -> Cause:
    reason, *about, behind = packed
    cause = Cause(REASONS[reason], *about)
    return cause if behind is None else cause._replace(behind=_unpacked(behind))
