"""The filters above the table of devices: a form, and what is chosen now, one by one. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from ota_server.model.updater import FAMILY_NAMES
from ota_server.operations.device_filter import Apart, DeviceFilter, Stage, word_of
from ota_server.operator_port.device_query import (
    COLUMN_NAMES,
    COUNTED,
    DEFAULT_LIMIT,
    HELD_BY_WORDS,
    DeviceListing,
    fields_of,
    listing_fields,
    product_field,
)
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_columns import COLUMNS
from ota_server.operator_port.pieces import check_box, choice, facts, link, text_field, url_with
from ota_server.policy.device_state import Condition

_LIMITS = (25, DEFAULT_LIMIT, 100, 200, 500)
# How a field is called in the form.
_LABELS = {
    "text": "Find",
    "version": "Version",
    "not_version": "Any version but",
    "state": "State",
    "stage": "How far with its release",
    "apart": "Pinned, or stopped",
    "family": "Family",
    "product": "Product",
    "group": "Group",
    "address": "Address",
    "label": "Label holds",
    "not_seen": "Not seen for",
    "target": "Was told",
    "held_by": "Held back by",
}
# How each field is called where it is chosen.
_TITLES = {
    "text": "text",
    "version": "version",
    "not_version": "another version than",
    "outdated": "does not run what it should",
    "state": "state",
    "stage": "how far:",
    "family": "family",
    "product": "product",
    "group": "group",
    "address": "address",
    "label": "label",
    "not_seen": "not seen for",
    "overdue": "overdue",
    "target": "was told",
    "held_by": "held back by",
}
_NOT_APART = "not pinned, kept by the hold, or on a stopped release"
_SWITCHES = ("outdated", "overdue")
_WORDS: dict[str, type[StrEnum]] = {"state": Condition, "stage": Stage}
_Pairs = Sequence[tuple[str, str]]


class FilterChoices(NamedTuple):
    """What can be chosen from.

    Attributes:
        products: "" is the default one.
        groups, versions: of the product that is chosen, or of all.
    """

    products: Sequence[str]
    groups: Sequence[str]
    versions: Sequence[str]


def filter_form(
    listing: DeviceListing, choices: FilterChoices, typed: Mapping[str, str] = {}
) -> Html:
    """Return the form that filters: it asks for the same page with other fields.

    Args:
        typed: what was typed and cannot be used, by the name of its field.
    """
    wanted, pairs = listing.wanted, fields_of(listing.wanted)
    first = {**dict(reversed(pairs)), **typed}
    shown: list[Node] = [
        text_field(
            _LABELS["text"],
            "text",
            first.get("text", ""),
            kind="search",
            placeholder="MAC, id, label …",
        ),
        text_field(
            _LABELS["version"], "version", first.get("version", ""), list="versions", size="12"
        ),
        element(
            "datalist", [element("option", value=each) for each in choices.versions], id="versions"
        ),
        choice(_LABELS["state"], "state", _options(Condition), first.get("state", "")),
        choice(_LABELS["group"], "group", _named(choices.groups), first.get("group", "")),
        _products(choices, wanted),
        element("button", "Filter", class_="main"),
        link("/devices", "Show all", class_="button") if pairs or typed else None,
    ]
    rare = _rare_fields(wanted, first)
    is_open = any(first.get(name) for name in _RARE)
    return element(
        "form",
        _hidden(_beyond_first(pairs)),
        _hidden(_of_list(listing)),
        element("div", shown, class_="filters"),
        element(
            "details",
            element("summary", "More filters"),
            element("div", rare, class_="filters"),
            open=is_open,
        ),
        action="/devices",
        role="search",
    )


_RARE = (
    *("family", "address", "label", "not_seen", "not_version", "target", "stage", "apart"),
    "held_by",
    *_SWITCHES,
)


def _rare_fields(wanted: DeviceFilter, first: dict[str, str]) -> list[Node]:
    def text(name: str, example: str) -> Html:
        return text_field(_LABELS[name], name, first.get(name, ""), placeholder=example, size="16")

    return [
        choice(_LABELS["family"], "family", _named(FAMILY_NAMES), first.get("family", "")),
        text("address", "192.0.2.0/24"),
        text("label", "kitchen"),
        text("not_seen", "7d"),
        text("not_version", "v1.0.0"),
        text("target", "v1.0.0"),
        choice(_LABELS["stage"], "stage", _options(Stage), first.get("stage", "")),
        choice(_LABELS["apart"], "apart", _apart_words(), first.get("apart", "")),
        choice(_LABELS["held_by"], "held_by", _named(HELD_BY_WORDS), first.get("held_by", "")),
        check_box("Overdue by its own rhythm", "overdue", "1", wanted.overdue),
        check_box("Does not run what it should", "outdated", "1", wanted.outdated),
    ]


def _products(choices: FilterChoices, wanted: DeviceFilter) -> Html | None:
    if len(choices.products) < 2:
        return None
    named = _named(map(product_field, choices.products))
    chosen = "" if wanted.product is None else product_field(wanted.product)
    return choice(_LABELS["product"], "product", named, chosen)


def _options(kind: type[StrEnum]) -> list[tuple[str, str]]:
    return [("", "any"), *((word_of(each), each.value) for each in kind)]


def _apart_words() -> list[tuple[str, str]]:
    """Return why devices may be left out of the count, and that they are not."""
    left_out = [(word_of(each), each.value) for each in Apart]
    return [("", "any"), (COUNTED, "none of these"), *left_out]


def _named(names: Iterable[str]) -> list[tuple[str, str]]:
    return [("", "any"), *((each, each) for each in names)]


def _beyond_first(pairs: _Pairs) -> _Pairs:
    """Return the further values of fields of which the form shows one."""
    return [pair for at, pair in enumerate(pairs) if pair[0] in dict(pairs[:at])]


def _of_list(listing: DeviceListing) -> _Pairs:
    """Return the fields of a list that are no filter; another filter begins at the first row."""
    other = listing._replace(wanted=DeviceFilter(), cursor=None)
    return listing_fields(other)


def _hidden(pairs: _Pairs) -> list[Html]:
    return [element("input", type="hidden", name=name, value=value) for name, value in pairs]


def chosen_filters(listing: DeviceListing) -> Html | None:
    """Return what is chosen now; each thing leads to the table without it."""
    pairs = fields_of(listing.wanted)
    if not pairs:
        return None
    others = _of_list(listing)

    def without(at: int) -> str:
        return url_with("/devices", [*pairs[:at], *pairs[at + 1 :], *others])

    return element(
        "ul",
        [
            element(
                "li",
                link(without(at), _said(*pair), " ", element("span", "✕", aria_hidden="true")),
            )
            for at, pair in enumerate(pairs)
        ],
        class_="chosen",
        aria_label="Filters that are on; each leads to the list without it",
    )


def in_words_of_form(problem: str) -> str:
    """Return what is wrong with a field by the name that the form has for it."""
    name, mark, text = problem.partition(": ")
    if not mark or name not in _LABELS:
        return problem
    return f"{_LABELS[name]}: {text}"


def _said(name: str, value: str) -> str:
    """Return a filter in words."""
    if name in _SWITCHES:
        return _TITLES[name]
    if name == "apart":
        return _NOT_APART if value == COUNTED else dict(_apart_words())[value]
    kind = _WORDS.get(name)
    if kind is not None:
        value = next(each.value for each in kind if word_of(each) == value)
    return f"{_TITLES[name]} {value}"


def column_form(listing: DeviceListing, shown: Sequence[str]) -> Html:
    """Return the form that chooses columns and how many rows a page has."""
    boxes = [
        check_box(COLUMNS[name].title, "columns", name, name in shown) for name in COLUMN_NAMES
    ]
    rest = listing._replace(columns=(), limit=DEFAULT_LIMIT, cursor=None)
    meanings = [(each.title, each.meaning) for each in map(COLUMNS.__getitem__, shown)]
    limits = [(str(each), str(each)) for each in sorted({*_LIMITS, listing.limit})]
    return element(
        "details",
        element("summary", "Columns"),
        element(
            "form",
            _hidden(listing_fields(rest)),
            element("div", boxes, class_="filters"),
            element(
                "div",
                choice("Rows on a page", "limit", limits, str(listing.limit)),
                element("button", "Show"),
                class_="filters",
            ),
            action="/devices",
        ),
        facts(meanings),
    )
