"""Which devices of the index are asked for, in which order, from which place on. Pure.

A `DeviceFilter` becomes a condition in SQL; all that a person may have typed goes into parameters.
A place in a list is a cursor: what the last row has in the column that is sorted by, and its
number. So a next page costs the same at the end of a million devices as at their beginning.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from ota_server.model.version import meaning
from ota_server.policy.device_state import HELD_BY, Condition
from ota_server.policy.reason import Reason

# A device is overdue after so many of its own intervals without a request.
OVERDUE_INTERVALS = 3
# Of a device whose product is not there (any longer): no list has it.
NO_CONDITION = 9
_MOST_CURSOR = 4096
_MOST_SECONDS = 10**10
_DIGEST_CHARACTERS = 16
_PART_OF_MAC = re.compile(r"[0-9a-f]{2}(?:[:-]?[0-9a-f]{2}){1,5}")


class BadCursor(ValueError):
    """A cursor was not made here, or for another filter or order."""


class Stage(StrEnum):
    """How far a device is with the release that it should run, as far as the server knows."""

    NONE = "none"
    TOLD = "told"
    HAS_IT = "has it whole"
    REPORTS_IT = "reports it"


class Apart(StrEnum):
    """Why a device is not counted among those that an update should reach now.

    One that failed or fell silent after an update is counted, whatever else is true of it.
    """

    PINNED = "pinned"
    HELD = "kept by the hold"
    REJECTED = "on a stopped release"


def word_of(value: StrEnum) -> str:
    """Return how a state, a stage or a reason to be apart is written by and for programs.

    In URLs, in options, in the API and in metrics; the value has the words for people.
    """
    return value.name.lower()


CONDITIONS = tuple(Condition)
STAGES = tuple(Stage)
REASONS = tuple(Reason)
# What stands in the column `apart`; 0: the device counts with all others.
APARTS = (None, *Apart)


class SortColumn(NamedTuple):
    """What devices can be sorted by.

    Attributes:
        column: of the table `devices`.
        kind: what it holds: str, int or bytes.
    """

    column: str
    kind: type


# By the names that columns have on the command line too.
SORTS = {
    "mac": SortColumn("name", str),
    "product": SortColumn("product", str),
    "label": SortColumn("label", str),
    "version": SortColumn("version_order", str),
    "target": SortColumn("target_order", str),
    "seen": SortColumn("seen_ms", int),
    "updated": SortColumn("updated_ms", int),
    "first": SortColumn("first_ms", int),
    "address": SortColumn("address_order", bytes),
    "family": SortColumn("family", str),
    "groups": SortColumn("groups", str),
    "state": SortColumn("condition", int),
}


@dataclass(frozen=True)
class DeviceFilter:
    """Which devices are meant: those that all fields let through; the default is all devices.

    Attributes:
        text: a part of the MAC or identity, of the label, or of the reported version; in any case
            and with any separators.
        versions: they report one of these, in any spelling.
        not_versions: they report none of these.
        outdated: they do not run what they should, or fell silent, whatever keeps them from it.
        states: they are in one of these conditions.
        stage: how far they are with the release that they should run.
        apart: they are left out of the count for one of these reasons; None: they are counted.
        families: their updaters are of one of these families.
        product: of this product, "" is the default one; None: of all.
        group: they are in this group.
        network: their last address is in it; of an address alone, a network of one.
        label: their labels hold this text, in any case.
        not_seen_seconds: they were not heard from for so long.
        overdue: they were silent for longer than their own rhythm explains.
        targets: the version that they were told last is one of these, in any spelling.
        held_by: they are held back by one of these, in the words of `HELD_BY`.
    """

    text: str = ""
    versions: tuple[str, ...] = ()
    not_versions: tuple[str, ...] = ()
    outdated: bool = False
    states: tuple[Condition, ...] = ()
    stage: Stage | None = None
    apart: tuple[Apart | None, ...] = ()
    families: tuple[str, ...] = ()
    product: str | None = None
    group: str | None = None
    network: IPv4Network | IPv6Network | None = None
    label: str | None = None
    not_seen_seconds: float | None = None
    overdue: bool = False
    targets: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether it lets all devices through, or all of one product."""
        return self == DeviceFilter(product=self.product)


ALL_DEVICES = DeviceFilter()


class Where(NamedTuple):
    """A condition in SQL on the table `devices`, with its parameters."""

    sql: str
    values: tuple[object, ...]


def where(wanted: DeviceFilter, now_ms: int) -> Where:
    """Return the condition that a filter means, at a time."""
    return _all_of([Where("condition < ?", (NO_CONDITION,)), *_parts(wanted, now_ms)])


def where_on_record(product: str, wanted: DeviceFilter, now_ms: int) -> Where:
    """Return the condition that a filter means as far as records of devices alone tell.

    Args:
        product: of this product, whether it is there or not.
    """
    on_record = DeviceFilter(
        versions=wanted.versions,
        not_versions=wanted.not_versions,
        families=wanted.families,
        product=product,
        network=wanted.network,
        not_seen_seconds=wanted.not_seen_seconds,
    )
    return _all_of([*_parts(on_record, now_ms)])


def _all_of(parts: Sequence[Where]) -> Where:
    return Where(
        " AND ".join(f"({part.sql})" for part in parts),
        tuple(value for part in parts for value in part.values),
    )


def _parts(wanted: DeviceFilter, now_ms: int) -> Iterator[Where]:
    if wanted.product is not None:
        yield Where("product = ?", (_storable(wanted.product),))
    if wanted.versions:
        yield _among("version", _all_spellings(wanted.versions))
    if wanted.not_versions:
        named = _among("version", _all_spellings(wanted.not_versions))
        yield Where(f"NOT {named.sql}", named.values)
    if wanted.targets:
        yield _among("target", _all_spellings(wanted.targets))
    if wanted.outdated:
        yield Where("is_outdated", ())
    if wanted.states:
        yield _among("condition", [CONDITIONS.index(state) for state in wanted.states])
    if wanted.stage is not None:
        yield Where("stage = ?", (STAGES.index(wanted.stage),))
    if wanted.apart:
        yield _among("apart", [APARTS.index(each) for each in wanted.apart])
    if wanted.held_by:
        yield _among("condition", [CONDITIONS.index(Condition.HELD_BACK)])
        yield _among("reason", [REASONS.index(each) for each in held_by_reasons(wanted.held_by)])
    if wanted.families:
        yield _among("family", map(_storable, wanted.families))
    if wanted.group is not None:
        yield Where("instr(groups, ?) > 0", (f",{_storable(wanted.group)},",))
    if wanted.network is not None:
        yield _in_network(wanted.network)
    if wanted.label is not None:
        yield Where("instr(label_folded, ?) > 0", (_storable(wanted.label.casefold()),))
    if wanted.not_seen_seconds is not None:
        yield Where("seen_ms <= ?", (silent_since_ms(wanted.not_seen_seconds, now_ms),))
    if wanted.overdue:
        silent = f"seen_ms < ? - {OVERDUE_INTERVALS} * interval_ms"
        yield Where(f"interval_ms > 0 AND {silent}", (now_ms,))
    if wanted.text.strip():  # last: it takes longest
        yield _holding(wanted.text.strip())


def held_by_reasons(words: Iterable[str]) -> list[Reason]:
    """Return the reasons that stand behind words of `HELD_BY`."""
    wanted = {*words}
    return [reason for reason, said in HELD_BY.items() if said in wanted]


def _holding(text: str) -> Where:
    """Return what finds a text in the name, the label or the version."""
    folded = _storable(text.casefold())
    names = [folded]
    if _PART_OF_MAC.fullmatch(folded):
        digits = re.sub("[:-]", "", folded)
        names.append(":".join(digits[at : at + 2] for at in range(0, len(digits), 2)))
    # LIKE takes half the time of a search in `lower(name)`. Outside of labels all is ASCII.
    found = " OR ".join([r"name LIKE ? ESCAPE '\'"] * len(names))
    sql = rf"{found} OR version LIKE ? ESCAPE '\' OR (label <> '' AND instr(label_folded, ?) > 0)"
    return Where(sql, (*map(_like, names), _like(folded), folded))


def _like(text: str) -> str:
    escaped = re.sub(r"([%_\\])", r"\\\1", text)
    return f"%{escaped}%"


def _all_spellings(versions: Iterable[str]) -> list[str]:
    bare = {meaning(_storable(version)) for version in versions}
    return sorted(bare | {f"v{each}" for each in bare if each[:1].isascii() and each[:1].isdigit()})


def _among(column: str, values: Iterable[object]) -> Where:
    listed = tuple(values)
    return Where(f"{column} IN ({', '.join('?' * len(listed))})", listed)


def _in_network(network: IPv4Network | IPv6Network) -> Where:
    first, last = network.network_address, network.broadcast_address
    kind = bytes((network.version,))
    return Where("address_order BETWEEN ? AND ?", (kind + first.packed, kind + last.packed))


def silent_since_ms(seconds: float, now_ms: int) -> int:
    """Return when a device was heard from last, at the latest, that was silent for so long."""
    return now_ms - round(max(0.0, min(seconds, _MOST_SECONDS)) * 1000)


def _storable(text: str) -> str:
    """Return a text that SQLite takes: what a URL held may be half of a character."""
    return text.encode("utf-8", "replace").decode("utf-8")


# A place in a list


class Place(NamedTuple):
    """A row, by what it has in the column that is sorted by.

    Attributes:
        is_backward: the rows before it are meant, not those after it.
    """

    value: str | int | bytes
    number: int
    is_backward: bool = False


def format_cursor(place: Place, wanted: DeviceFilter, sort: str, descending: bool) -> str:
    """Return a place as an opaque text for URLs, for this list alone."""
    value = place.value.hex() if isinstance(place.value, bytes) else place.value
    fields = (value, place.number, int(place.is_backward), _digest(wanted, sort, descending))
    return urlsafe_b64encode(json.dumps(fields).encode("ascii")).rstrip(b"=").decode("ascii")


def parse_cursor(text: str, wanted: DeviceFilter, sort: str, descending: bool) -> Place:
    """Reverse `format_cursor`.

    Raises:
        BadCursor: it is malformed, or from a list by another filter or in another order.
    """
    try:
        if len(text) > _MOST_CURSOR or not re.fullmatch(r"[A-Za-z0-9_-]+", text, re.ASCII):
            raise BadCursor("it has other characters than a cursor")
        fields = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        value, number, is_backward, digest = fields
        kind = SORTS[sort].kind
        if kind is bytes:
            value = bytes.fromhex(value)
    except (BadBase64, TypeError, ValueError, RecursionError) as problem:
        raise BadCursor("it is not a cursor that was given here") from problem
    numbers = [each for each in (number, value) if type(each) is int]
    is_right = type(value) is kind and type(number) is int and is_backward in (0, 1)
    if not is_right or not all(-(2**63) <= each < 2**63 for each in numbers):
        raise BadCursor("it is not a cursor that was given here")
    if digest != _digest(wanted, sort, descending):
        raise BadCursor("it is from a list with another filter or in another order")
    return Place(_storable(value) if isinstance(value, str) else value, number, bool(is_backward))


def _digest(wanted: DeviceFilter, sort: str, descending: bool) -> str:
    said = repr((astuple(wanted), sort, descending)).encode("utf-8", "backslashreplace")
    return sha256(said).hexdigest()[:_DIGEST_CHARACTERS]


def beyond(place: Place, sort: str, descending: bool) -> Sequence[Where]:
    """Return the conditions on the rows beyond a place: those with the same value, then others."""
    column = SORTS[sort].column
    sign = "<" if descending != place.is_backward else ">"
    return (
        Where(f"{column} = ? AND number {sign} ?", (place.value, place.number)),
        Where(f"{column} {sign} ?", (place.value,)),
    )
