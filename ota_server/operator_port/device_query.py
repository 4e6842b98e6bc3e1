"""Which devices a URL or a form asks for: its fields as a `DeviceFilter`, and back. Pure.

| field | meaning |
|---|---|
| `text` | a part of the MAC address or the id, of the label, or of the version |
| `version`, `not_version` | they report this, or none of these; may be repeated |
| `target` | they were told this version last; may be repeated |
| `outdated`, `overdue` | `1`: as the filter of that name |
| `state`, `apart`, `held_by`, `family` | one of the words below; may be repeated |
| `stage`, `product`, `group`, `address`, `label`, `not_seen` | one value |
| `sort`, `order` | a name of `SORTS`; `asc` or `desc` |
| `columns`, `limit`, `cursor` | which columns, how many rows, from which row on |

A field that is empty is left out: so a form sends what nobody filled in. A field that is not known
is an error: a word that was mistyped must not choose all devices.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

from ota_server.model.address import plain_network
from ota_server.model.identity import is_product_name
from ota_server.model.quantity import DURATION_UNITS, parse_duration
from ota_server.model.updater import FAMILY_NAMES
from ota_server.operations.device_filter import (
    ALL_DEVICES,
    SORTS,
    Apart,
    DeviceFilter,
    Stage,
    word_of,
)
from ota_server.operations.typed_values import (
    BadValue,
    parse_choice,
    parse_group_name,
    parse_switch,
)
from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.site import DEFAULT
from ota_server.policy.device_state import HELD_BY, Condition

FILTER_FIELDS = (
    *("text", "version", "not_version", "outdated", "state", "stage", "apart", "family"),
    *("product", "group", "address", "label", "not_seen", "overdue", "target"),
    "held_by",
)
LIST_FIELDS = ("sort", "order", "columns", "limit", "cursor")
# In the order in which they stand in a table.
COLUMN_NAMES = (
    *("mac", "label", "product", "family", "version", "target", "release", "state", "stage"),
    *("reason", "seen", "updated", "first", "address", "groups"),
)
# In the field `held_by`; two reasons may have the same words.
HELD_BY_WORDS = tuple(dict.fromkeys(HELD_BY.values()))
# In the field `apart`: nothing keeps them from being counted.
COUNTED = "counted"
DEFAULT_SORT = "mac"
DEFAULT_LIMIT = 50
MOST_ROWS = 500
_MOST_VALUES = 100
_MOST_CHARACTERS = 200
# 30 years: nobody means longer ones, and a number of seconds has nine digits at most.
_MOST_SECONDS = 30 * 365 * 86400
_Word = TypeVar("_Word", bound=StrEnum)
_Value = TypeVar("_Value")
Fields = Mapping[str, Sequence[str]]


class DeviceListing(NamedTuple):
    """A list of devices as a URL asks for it.

    Attributes:
        columns: by their names; empty: those that fit.
        cursor: None: from its beginning.
    """

    wanted: DeviceFilter = ALL_DEVICES
    sort: str = DEFAULT_SORT
    descending: bool = False
    columns: tuple[str, ...] = ()
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


def product_field(product: str) -> str:
    """Return how a product stands in URLs, "" being the default one."""
    return product or DEFAULT


# Reading


def read_listing(fields: Fields, also: Collection[str] = ()) -> DeviceListing:
    """Return the list that a URL asks for.

    Args:
        also: fields that are known besides and mean something else.

    Raises:
        Malformed: a field is not known, or cannot be used.
    """
    refuse_unknown(fields, (*FILTER_FIELDS, *LIST_FIELDS, *also))
    order = _one(fields, "order", parse_choice("asc", "desc"))
    columns = [each for text in _said(fields, "columns") for each in text.split(",")]
    return DeviceListing(
        read_filter(fields),
        _one(fields, "sort", parse_choice(*SORTS)) or DEFAULT_SORT,
        order == "desc",
        tuple(dict.fromkeys(_read("columns", each.strip(), _column) for each in columns)),
        _one(fields, "limit", _limit) or DEFAULT_LIMIT,
        _one(fields, "cursor", str, most=10_000),
    )


def read_filter(fields: Fields) -> DeviceFilter:
    """Return the filter that fields of a URL or a form mean; others are not looked at.

    Raises:
        Malformed: one cannot be used.
    """
    return DeviceFilter(
        text=_one(fields, "text", str) or "",
        versions=_many(fields, "version", str),
        not_versions=_many(fields, "not_version", str),
        outdated=_one(fields, "outdated", parse_switch) or False,
        states=_many(fields, "state", _word(Condition)),
        stage=_one(fields, "stage", _word(Stage)),
        apart=_many(fields, "apart", _apart),
        families=_many(fields, "family", parse_choice(*FAMILY_NAMES)),
        product=_one(fields, "product", _product),
        group=_one(fields, "group", parse_group_name),
        network=_one(fields, "address", _network),
        label=_one(fields, "label", str),
        not_seen_seconds=_one(fields, "not_seen", _seconds),
        overdue=_one(fields, "overdue", parse_switch) or False,
        targets=_many(fields, "target", str),
        held_by=_many(fields, "held_by", parse_choice(*HELD_BY_WORDS)),
    )


def readable_fields(fields: Fields) -> Fields:
    """Return the fields of a list that can be used, each by itself."""
    return {name: said for name, said in fields.items() if _is_readable(name, said)}


def _is_readable(name: str, said: Sequence[str]) -> bool:
    try:
        read_listing({name: said})
    except Malformed:
        return False
    return True


def refuse_unknown(fields: Fields, known: Collection[str]) -> None:
    """Refuse fields that nothing is known of.

    Raises:
        Malformed: there is one.
    """
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise Malformed(f"{unknown[0][:40]!r} is not known here: use {', '.join(known)}")


def _said(fields: Fields, name: str) -> list[str]:
    """Return the values of a field that say something."""
    return [each.strip() for each in fields.get(name, ()) if each.strip()]


def _many(fields: Fields, name: str, parse: Callable[[str], _Value]) -> tuple[_Value, ...]:
    said = _said(fields, name)
    if len(said) > _MOST_VALUES:
        raise Malformed(f"{name}: {len(said)} values are given: give {_MOST_VALUES} at most")
    return tuple(dict.fromkeys(_read(name, each, parse) for each in said))


def _one(
    fields: Fields, name: str, parse: Callable[[str], _Value], most: int = _MOST_CHARACTERS
) -> _Value | None:
    said = {*_said(fields, name)}
    if len(said) > 1:
        raise Malformed(f"{name}: it is given twice, with different values")
    return _read(name, said.pop(), parse, most) if said else None


def _read(
    name: str, text: str, parse: Callable[[str], _Value], most: int = _MOST_CHARACTERS
) -> _Value:
    try:
        if len(text) > most:
            raise BadValue(f"it has {len(text)} characters: give {most} at most")
        return parse(text)
    except BadValue as problem:
        raise Malformed(f"{name}: {problem}") from None


def _word(kind: type[_Word]) -> Callable[[str], _Word]:
    by_word = {word_of(each): each for each in kind}
    by_value = {each.value: each for each in kind}
    known = [*by_word, *[COUNTED] * (kind is Apart)]

    def parse(text: str) -> _Word:
        found = by_word.get(text) or by_value.get(text)
        if found is None:
            raise BadValue(f"{text[:40]!r} is not one of {', '.join(known)}")
        return found

    return parse


def _apart(text: str) -> Apart | None:
    return None if text == COUNTED else _word(Apart)(text)


def _product(text: str) -> str:
    if text == DEFAULT:
        return ""
    if not is_product_name(text):
        raise BadValue(f"{text[:40]!r} is not the name of a product")
    return text


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return plain_network(ip_network(text, strict=False))
    except ValueError:
        raise BadValue(
            f"{text[:45]!r} is neither an address nor a network such as 192.0.2.0/24"
        ) from None


def _seconds(text: str) -> float:
    try:
        seconds = round(parse_duration(text))
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= _MOST_SECONDS:
        raise BadValue(f"{text[:40]!r} is not a duration: a number and s, m, h or d, such as 7d")
    return float(seconds)


def _column(text: str) -> str:
    return parse_choice(*COLUMN_NAMES)(text)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST_ROWS):
        raise BadValue(f"{text[:40]!r} is not a number of rows from 1 to {MOST_ROWS}")
    return int(text)


# Writing


def fields_of(wanted: DeviceFilter) -> list[tuple[str, str]]:
    """Return a filter as the fields that `read_filter` reads."""
    network = wanted.network
    address = "" if network is None else _address_text(network)
    seconds = wanted.not_seen_seconds
    fields = [
        ("text", wanted.text),
        *(("version", each) for each in wanted.versions),
        *(("not_version", each) for each in wanted.not_versions),
        ("outdated", "1" * wanted.outdated),
        *(("state", word_of(each)) for each in wanted.states),
        ("stage", "" if wanted.stage is None else word_of(wanted.stage)),
        *(("apart", word_of(each) if each else COUNTED) for each in wanted.apart),
        *(("family", each) for each in wanted.families),
        ("product", "" if wanted.product is None else product_field(wanted.product)),
        ("group", wanted.group or ""),
        ("address", address),
        ("label", wanted.label or ""),
        ("not_seen", "" if seconds is None else duration_text(seconds)),
        ("overdue", "1" * wanted.overdue),
        *(("target", each) for each in wanted.targets),
        *(("held_by", each) for each in wanted.held_by),
    ]
    return [(name, value) for name, value in fields if value]


def devices_url(wanted: DeviceFilter) -> str:
    """Return the table of the devices that a filter lets through."""
    fields = fields_of(wanted)
    return f"/devices?{urlencode(fields)}" if fields else "/devices"


def listing_fields(listing: DeviceListing) -> list[tuple[str, str]]:
    """Return a list as the fields that `read_listing` reads; what is usual is left out."""
    is_sorted = (listing.sort, listing.descending) != (DEFAULT_SORT, False)
    fields = [
        ("sort", listing.sort * is_sorted),
        ("order", "desc" * listing.descending),
        ("columns", ",".join(listing.columns)),
        ("limit", str(listing.limit) * (listing.limit != DEFAULT_LIMIT)),
        ("cursor", listing.cursor or ""),
    ]
    return [*fields_of(listing.wanted), *((name, value) for name, value in fields if value)]


def duration_text(seconds: float) -> str:
    """Return a whole number of seconds in the largest unit that says it exactly."""
    whole = round(seconds)
    unit, size = next(each for each in DURATION_UNITS.items() if whole % each[1] == 0)
    return f"{whole // size}{unit}"


def _address_text(network: IPv4Network | IPv6Network) -> str:
    is_one = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if is_one else str(network)


def by_name(fields: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return fields with all values of each name, as `read_filter` takes them."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return found
