"""A device as lists show it: its columns, and which filters let it through. I/O.

How a device is, is found out when somebody asks, by the same rules as everywhere else.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from operator import attrgetter
from typing import Any, NamedTuple

from ota_server.model.device import Device, first_seen_hour
from ota_server.model.identity import name_of, product_of
from ota_server.model.timestamp import ago_ms, format_time
from ota_server.model.updater import family_of
from ota_server.model.version import order_of, same_version
from ota_server.operations.device_filter import DeviceFilter, silent_since_ms
from ota_server.policy.device_state import HELD_BY, Condition, DeviceCondition, evidence_in_words
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.reason import Reason
from ota_server.system.hints import hints

# Columns are narrow; `reason` has the sentence.
_SHORT = {
    Reason.HELD_BACK: "rollout",
    Reason.PAUSED: "paused rollout",
    Reason.WINDOW_CLOSED: "window",
    Reason.NO_SLOT: "slots",
    Reason.JOURNAL_FAILING: "journal",
    Reason.STOPPED: "stopped release",
    Reason.NO_IMAGE: "no image",
    Reason.NO_TARGET: "no target",
    Reason.NO_ROOM: "no room",
    Reason.WRONG_CHIP: "other chip",
    Reason.CANCELING: "cancel",
}


class FleetRow:
    """A device as `devices` shows it; how it is, is found out when somebody asks.

    Attributes:
        label: "": it has none.
    """

    def __init__(
        self,
        key: str,
        device: Device,
        label: str,
        groups: tuple[str, ...],
        conditions: FleetConditions,
    ) -> None:
        self.key = key
        self.device = device
        self.label = label
        self.groups = groups
        self._conditions = conditions

    @property
    def mac(self) -> str:
        """Its name: its MAC address, or `id:` and what it calls itself."""
        return name_of(self.key)

    @property
    def product(self) -> str:
        """Its product, "" for the default one."""
        return product_of(self.key)

    @property
    def family(self) -> str:
        """The family of its updater."""
        return family_of(self.device.updater)

    @cached_property
    def condition(self) -> DeviceCondition:
        """How it is."""
        return self._conditions.of(self.key, self.device)

    @property
    def is_outdated(self) -> bool:
        """Whether it runs another release than it should."""
        return self._conditions.is_outdated(self.key, self.device)

    @property
    def state(self) -> str:
        """How it is, in a word or two, with what holds it back."""
        state, cause = self.condition
        is_repeated = state is Condition.FAILED and self.is_in_loop_breaker
        if state is not Condition.HELD_BACK and not is_repeated:
            return state.value
        by = _SHORT.get(cause.reason) or HELD_BY.get(cause.reason, "").removeprefix("the ")
        return f"{state.split()[0]}: {by}" if by else state.value

    @property
    def is_in_loop_breaker(self) -> bool:
        """Whether it has to wait, since it fetched one image again and again."""
        return self.condition.cause.reason in (Reason.REPEATED, Reason.STUCK)

    @property
    def reason(self) -> str:
        """Why it counts as failed, silent or undecided, else why it gets what it gets, in words."""
        state, cause = self.condition
        # What a device reports is among the evidence, and is no command of ours.
        return evidence_in_words(state, self.device) or hints.paste(
            self._conditions.in_words(self.key, cause), self.product
        )


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        field: its name in CSV and JSON.
        value: what stands there in these.
        text: what stands in the table, given the time that it is.
        key: what rows are sorted by.
    """

    title: str
    field: str
    value: Callable[[FleetRow], object]
    text: Callable[[FleetRow, int], str]
    key: Callable[[FleetRow], Any]


def _text(
    title: str,
    field: str,
    of: Callable[[FleetRow], str | None],
    key: Callable[[FleetRow], Any] | None = None,
) -> Column:
    """Return a column of text; None or "" is a dash in the table."""
    by_text = key or (lambda row: of(row) or "")
    return Column(title, field, of, lambda row, _: of(row) or "-", by_text)


def _time(title: str, field: str, of: Callable[[Device], int | None]) -> Column:
    """Return a column of times in milliseconds."""

    def value(row: FleetRow) -> str | None:
        ms = of(row.device)
        return None if ms is None else format_time(ms)

    def text(row: FleetRow, now_ms: int) -> str:
        ms = of(row.device)
        return "never" if ms is None else ago_ms(ms, now_ms)

    return Column(title, field, value, text, lambda row: of(row.device) or 0)


def _by_address(row: FleetRow) -> tuple[int, int]:
    try:
        address = ip_address(row.device.address)
    except ValueError:
        return 0, 0
    return address.version, int(address)


COLUMNS = {
    "mac": _text("MAC", "mac", lambda row: row.mac),
    "product": _text("PRODUCT", "product", lambda row: row.product),
    "label": _text("LABEL", "label", lambda row: row.label or None),
    "version": _text(
        "VERSION",
        "firmware_version",
        lambda row: row.device.firmware_version,
        lambda row: order_of(row.device.firmware_version),
    ),
    "target": _text(
        "TOLD",
        "target_version",
        lambda row: row.device.target_version,
        lambda row: order_of(row.device.target_version or ""),
    ),
    "seen": _time("LAST SEEN", "last_seen_time", attrgetter("last_seen_ms")),
    "updated": _time("UPDATED", "update_time", attrgetter("update_ms")),
    "first": _time("FIRST SEEN", "first_seen_time", first_seen_hour),
    "address": _text("ADDRESS", "address", lambda row: row.device.address, _by_address),
    "family": _text("FAMILY", "family", attrgetter("family")),
    "groups": Column(
        "GROUPS",
        "groups",
        lambda row: list(row.groups),
        lambda row, _: ", ".join(row.groups) or "-",
        lambda row: row.groups,
    ),
    "state": Column(
        "STATE",
        "state",
        lambda row: row.condition.condition.value,
        lambda row, _: row.state,
        lambda row: ([*Condition].index(row.condition.condition), row.state),
    ),
    "reason": _text("REASON", "reason", lambda row: row.reason),
}


def fields_of(row: FleetRow, columns: Iterable[Column] = COLUMNS.values()) -> dict[str, object]:
    """Return what is known of a device, for programs."""
    return {column.field: column.value(row) for column in columns}


def row_tests(wanted: DeviceFilter, now_ms: int) -> list[Callable[[FleetRow], bool]]:
    """Return what a row has to pass, of those fields of a filter that commands have."""
    tests: list[Callable[[FleetRow], bool]] = []
    if wanted.versions:
        tests.append(partial(_reports, wanted.versions))
    if wanted.not_versions:
        tests.append(lambda row: not _reports(wanted.not_versions, row))
    if wanted.group is not None:
        tests.append(lambda row: wanted.group in row.groups)
    if wanted.not_seen_seconds is not None:
        since_ms = silent_since_ms(wanted.not_seen_seconds, now_ms)
        tests.append(lambda row: row.device.last_seen_ms <= since_ms)
    if wanted.network is not None:
        tests.append(partial(_is_at, wanted.network))
    if wanted.label is not None:
        label = wanted.label.casefold()
        tests.append(lambda row: label in row.label.casefold())
    if wanted.families:
        tests.append(lambda row: row.family in wanted.families)
    # Last: only for the devices that all others let through is found out how they are.
    if wanted.outdated:
        tests.append(lambda row: row.is_outdated)
    if wanted.states:
        tests.append(lambda row: row.condition.condition in wanted.states)
    return tests


def _reports(versions: Sequence[str], row: FleetRow) -> bool:
    return any(same_version(version, row.device.firmware_version) for version in versions)


def _is_at(network: IPv4Network | IPv6Network, row: FleetRow) -> bool:
    try:
        return ip_address(row.device.address) in network
    except ValueError:
        return False
