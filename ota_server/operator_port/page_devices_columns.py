"""The columns of the table of devices: what stands in each, on the page and in CSV. No I/O."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ota_server.model.quantity import rounded_duration
from ota_server.model.timestamp import format_second
from ota_server.operations.device_filter import SORTS, Apart, DeviceFilter, Stage
from ota_server.operations.device_index import IndexedDevice
from ota_server.operator_port.device_query import COLUMN_NAMES, DeviceListing, listing_fields
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.pieces import (
    Heading,
    condition_of,
    device_url,
    link,
    state,
    url_with,
    when,
    with_code,
)
from ota_server.operator_port.site import DEFAULT
from ota_server.policy.device_state import Condition
from ota_server.system.hints import hints

_BY_EVIDENCE = (Condition.FAILED, Condition.SILENT, Condition.UNDECIDED)
_WITH_REASON = (*_BY_EVIDENCE, Condition.HELD_BACK)
# The newest or the worst comes first when one of these is chosen.
_FALLING = ("seen", "updated", "first")
_ALWAYS = ("mac", "version", "target", "state", "stage", "seen", "updated", "address")


class DeviceColumn(NamedTuple):
    """A column.

    Attributes:
        field: its name in CSV, as the journal and `devices --csv` have it.
        cell: what stands there on the page, given the time that it is.
        value: what stands there in CSV.
        is_time: it is one there too; else it is text, also if it looks like a number.
        meaning: of the title; "": it says it.
    """

    title: str
    field: str
    cell: Callable[[IndexedDevice, int], Node]
    value: Callable[[IndexedDevice], str]
    is_time: bool = False
    meaning: str = ""


def _text(
    title: str, field: str, of: Callable[[IndexedDevice], str | None], meaning: str = ""
) -> DeviceColumn:
    return DeviceColumn(
        title, field, lambda row, _: of(row) or "-", lambda row: of(row) or "", meaning=meaning
    )


def _time(title: str, field: str, of: Callable[[IndexedDevice], int | None]) -> DeviceColumn:
    return DeviceColumn(
        title,
        field,
        lambda row, now_ms: when(of(row), now_ms),
        lambda row: sheet_time(of(row)),
        is_time=True,
    )


def sheet_time(ms: int | None) -> str:
    """Return a time in UTC as LibreOffice takes it for one, whatever is ticked; "" for None.

    With a Z at its end, or a blank for its T, it would be text.
    """
    return "" if ms is None else format_second(ms).removesuffix("Z")


def name_cell(row: IndexedDevice) -> Node:
    """Return the name of a device, which leads to its page, and why it is left out of the count."""
    shown = link(device_url(row.product, row.name), row.name, class_="mono")
    marks = [*[Apart.PINNED.value] * row.is_pinned, *([row.apart.value] if row.apart else [])]
    return shown, [(" ", element("small", each)) for each in dict.fromkeys(marks)]


def seen_cell(row: IndexedDevice, now_ms: int) -> Node:
    """Return when a device was heard from last, marked if that is longer ago than its rhythm."""
    shown = when(row.seen_ms, now_ms)
    if not row.is_overdue:
        return shown
    every = rounded_duration(row.interval_ms / 1000)
    mark = element("span", "overdue", class_="state silent", title=f"It asks every {every}.")
    return shown, " ", mark


def words_of(row: IndexedDevice) -> Node:
    """Return why a device is as it is, in words."""
    if row.condition in _BY_EVIDENCE:
        return row.words  # it has what the device reports: nothing in it is a command of ours
    return with_code(hints.paste(row.words, row.product))


def stage_of(stage: Stage) -> Html | str:
    """Return how far a device is with what it should run: told, has it whole, or reports it."""
    kinds = {Stage.TOLD: "back", Stage.HAS_IT: "going", Stage.REPORTS_IT: "good"}
    return state(kinds[stage], stage.value) if stage in kinds else "-"


COLUMNS = {
    "mac": DeviceColumn("Device", "mac", lambda row, _: name_cell(row), lambda row: row.name),
    "label": _text("Label", "label", lambda row: row.label),
    "product": DeviceColumn(
        "Product", "product", lambda row, _: row.product or DEFAULT, lambda row: row.product
    ),
    "family": _text("Family", "family", lambda row: row.family),
    "version": _text("Version", "firmware_version", lambda row: row.version),
    "target": _text(
        "Told",
        "target_version",
        lambda row: row.target,
        "the version that the server answered when the device asked last",
    ),
    "release": _text(
        "Should run",
        "release",
        lambda row: row.release,
        "the release that it is to have: by its pin, its group, a rollout or the target",
    ),
    "state": DeviceColumn(
        "State",
        "state",
        lambda row, _: condition_of(row.condition),
        lambda row: row.condition.value,
    ),
    "stage": DeviceColumn(
        "How far",
        "stage",
        lambda row, _: stage_of(row.stage),
        lambda row: row.stage.value,
        meaning="with the release that it should run: it was told it, has it whole, reports it",
    ),
    "reason": DeviceColumn("Reason", "reason", lambda row, _: words_of(row), lambda row: row.words),
    "seen": DeviceColumn(
        "Last seen",
        "last_seen_time",
        seen_cell,
        lambda row: sheet_time(row.seen_ms),
        is_time=True,
    ),
    "updated": _time("Updated", "update_time", lambda row: row.updated_ms),
    "first": _time("First seen", "first_seen_time", lambda row: row.first_ms)._replace(
        meaning="the beginning of the full hour in which it was first seen"
    ),
    "address": _text("Address", "address", lambda row: row.address),
    "groups": DeviceColumn(
        "Groups",
        "groups",
        lambda row, _: ", ".join(row.groups) or "-",
        lambda row: ", ".join(row.groups),
    ),
}
assert [*COLUMNS] == [*COLUMN_NAMES]


def columns_that_fit(
    wanted: DeviceFilter, rows: Sequence[IndexedDevice], has_products: bool
) -> tuple[str, ...]:
    """Return the columns that say something about the devices that a filter has let through."""
    fitting = {
        *_ALWAYS,
        # Whoever looks for those that failed wants to know why.
        *["reason"] * (bool(wanted.states) and {*wanted.states} <= {*_WITH_REASON}),
        *["reason"] * bool(wanted.held_by),
        *["label"] * any(row.label for row in rows),
        *["product"] * has_products,
        *["family"] * (len({row.family for row in rows}) > 1),
        *["groups"] * any(row.groups for row in rows),
    }
    return tuple(name for name in COLUMN_NAMES if name in fitting)


def heading(name: str, listing: DeviceListing) -> Heading:
    """Return the head of a column, which sorts by it, or the other way round."""
    title, meaning = COLUMNS[name].title, COLUMNS[name].meaning
    if name not in SORTS:
        return Heading(title, title=meaning)
    is_sorted = listing.sort == name
    descending = not listing.descending if is_sorted else name in _FALLING
    turned = listing._replace(sort=name, descending=descending, cursor=None)
    order = ("descending" if listing.descending else "ascending") if is_sorted else ""
    url = url_with("/devices", listing_fields(turned))
    return Heading(title, url=url, order=order, title=meaning)
