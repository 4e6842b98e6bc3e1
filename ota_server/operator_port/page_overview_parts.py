"""The figures of the overview: cards, the bars of states and versions, versions over time. No I/O.

Each number leads to the table of the devices that it counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ota_server.model.quantity import count_of
from ota_server.model.timestamp import format_second
from ota_server.model.version import meaning
from ota_server.operations.device_filter import Apart, DeviceFilter
from ota_server.operations.device_index import FleetSummary, VersionsOverTime
from ota_server.operator_port.device_query import devices_url, fields_of
from ota_server.operator_port.html import Html, Node, element, joined
from ota_server.operator_port.pieces import (
    CONDITION_CLASSES,
    Heading,
    link,
    more,
    number,
    percent,
    state,
    table,
    url_with,
)
from ota_server.operator_port.sentences import capitalised
from ota_server.operator_port.svg import COLOURS, Layer, Segment, bar, stacked_plot
from ota_server.policy.device_state import Condition

# As devices get on, then what can go wrong; each with what its word means.
_IN_ORDER = {
    Condition.UP_TO_DATE: "run what they should",
    Condition.BEHIND: "get it when they ask next",
    Condition.UNDECIDED: "have it, say no version",
    Condition.HELD_BACK: "may not have it now",
    Condition.AWAY: "not seen for a day",
    Condition.SILENT: "nothing heard since they had it",
    Condition.FAILED: "have it, run another",
}
_LEFT_OUT = "not counted in the shares"
# Of these there is a card only if there is one such device.
_RARE = (Condition.UNDECIDED,)
_OTHER = f"v{COLOURS - 1}"


class CountedDevices(NamedTuple):
    """So many devices, and the table of them.

    Attributes:
        words: as in the rows of that table.
        kind: the class that gives the colour.
        meaning: of the words; "": they say it.
    """

    words: str
    kind: str
    devices: int
    wanted: DeviceFilter
    meaning: str = ""

    @property
    def url(self) -> str:
        """The table of them."""
        return devices_url(self.wanted)

    def segment(self, of: int) -> Segment:
        """Return it as a part of a bar."""
        share = f", {percent(self.devices, of)}" if of else ""
        return Segment(self.devices, self.kind, f"{self.words}: {self.devices:,}{share}", self.url)


def cards(summary: FleetSummary, product: str | None) -> Html:
    """Return how many devices there are, and how many are how, by the numbers of `states_part`."""
    total = summary.total
    words = "devices" if total != 1 else "device"
    whole = CountedDevices(words, "", total, DeviceFilter(product=product))
    shown = [
        each
        for each in _by_state(summary, product)
        if each.devices or {*each.wanted.states}.isdisjoint(_RARE)
    ]
    left_out = [each for each in _by_apart(summary, product) if each.devices]
    return element("ul", map(_card, (whole, *shown, *left_out)), class_="cards")


def _card(counted: CountedDevices) -> Html:
    return element(
        "li",
        link(
            counted.url,
            element("b", number(counted.devices)),
            counted.words,
            element("small", counted.meaning) if counted.meaning else None,
            class_=counted.kind or None,
        ),
    )


# States


def _by_state(summary: FleetSummary, product: str | None) -> list[CountedDevices]:
    """Return how many devices that an update should reach are in each state."""
    plain = DeviceFilter(product=product, apart=(None,))
    return [
        CountedDevices(
            each.value,
            CONDITION_CLASSES[each],
            summary.counted.get(each, 0),
            replace(plain, states=(each,)),
            said,
        )
        for each, said in _IN_ORDER.items()
    ]


def _by_apart(summary: FleetSummary, product: str | None) -> list[CountedDevices]:
    """Return how many devices are left out of the count, by why."""
    return [
        CountedDevices(
            each.value,
            "apart",
            summary.apart.get(each, 0),
            DeviceFilter(product=product, apart=(each,)),
            _LEFT_OUT,
        )
        for each in Apart
    ]


def states_part(summary: FleetSummary, product: str | None) -> Node:
    """Return how far the devices are that an update should reach; beside them those left out."""
    counted, apart = _by_state(summary, product), _by_apart(summary, product)
    of = sum(each.devices for each in counted)
    segments = [each.segment(of) for each in counted] + [each.segment(0) for each in apart]
    rows = [(*_row(each), percent(each.devices, of)) for each in counted if each.devices]
    rows += [(*_row(each), "not counted") for each in apart if each.devices]
    up_to_date = counted[0]
    reached = DeviceFilter(product=product, apart=(None,))
    share = f" ({percent(up_to_date.devices, of)})." if of else "."
    return (
        element("h2", "States"),
        element(
            "p",
            "Up to date: ",
            link(up_to_date.url, number(up_to_date.devices)),
            " of ",
            link(devices_url(reached), count_of(of, "device")),
            share,
        ),
        bar(segments, "How many devices are in which state"),
        table(("State", Heading("Devices", True), Heading("Share", True)), rows),
        _held_by(summary, product),
    )


def _row(counted: CountedDevices) -> tuple[Node, Node]:
    return state(counted.kind, counted.words), link(counted.url, number(counted.devices))


def _held_by(summary: FleetSummary, product: str | None) -> Node:
    """Return what holds devices back, in words, also of those that are left out of the count."""
    said: list[Node] = [
        (f"{words} (", link(_held_by_url(words, product), number(devices)), ")")
        for words, devices in summary.held_by.items()
        if devices
    ]
    if not said:
        return None
    return element("p", "Held back by, counted or not: ", joined(", ", said), ".", class_="quiet")


def _held_by_url(words: str, product: str | None) -> str:
    return devices_url(DeviceFilter(product=product, held_by=(words,)))


# Versions


def versions_shown(summary: FleetSummary, product: str | None) -> list[CountedDevices]:
    """Return the versions that most devices report, and all others in one."""
    every = DeviceFilter(product=product)
    # A filter does not tell spellings of one version apart.
    merged: dict[str, tuple[str, int]] = {}
    for version, devices in summary.versions.items():
        spelling, before = merged.get(meaning(version), (version, 0))
        merged[meaning(version)] = spelling, before + devices
    ordered = sorted(merged.values(), key=lambda each: -each[1])[: COLOURS - 1]
    shown = [
        CountedDevices(version, f"v{at}", devices, replace(every, versions=(version,)))
        for at, (version, devices) in enumerate(ordered)
    ]
    rest = summary.total - sum(each.devices for each in shown)
    if rest > 0:
        others = replace(every, not_versions=tuple(version for version, _ in ordered))
        shown.append(CountedDevices("other versions", _OTHER, rest, others))
    return shown


def versions_part(summary: FleetSummary, shown: Sequence[CountedDevices]) -> Node:
    """Return which versions devices report."""
    total = summary.total
    rows = [
        (
            (element("span", class_=f"key {each.kind}"), each.words),
            link(each.url, number(each.devices)),
            percent(each.devices, total),
        )
        for each in shown
    ]
    return (
        element("h2", "Versions"),
        bar([each.segment(total) for each in shown], "How many devices report which version"),
        table(("Version", Heading("Devices", True), Heading("Share", True)), rows),
    )


def history_part(
    found: VersionsOverTime, shown: Sequence[CountedDevices], spans: Node, when: str
) -> Node:
    """Return how many devices reported which version in the last days, as a plot and as a table.

    Args:
        shown: the versions of the bar, whose colours the plot has too.
        spans: the ways to other spans of time.
        when: which time it shows, in words.
    """
    layers = _layers(found, shown)
    words = f"How many devices reported which version {when}"
    # On a phone it is wider than the screen, or nobody could read its numbers: its end is shown.
    plot = element(
        "div",
        stacked_plot(found.times_ms, layers, words),
        class_="wide newest",
        tabindex="0",
        role="group",
        aria_label="Plot",
    )
    return (
        element("h2", "Versions over time"),
        spans,
        plot,
        more("As a table", _history_table(found, layers)),
    )


def _layers(found: VersionsOverTime, shown: Sequence[CountedDevices]) -> list[Layer]:
    kinds = {meaning(each.words): each.kind for each in shown}
    sums: dict[str, tuple[str, list[int]]] = {}
    rest = [*found.other]
    for version, counts in found.counts.items():
        kind = kinds.get(meaning(version))
        if kind is None or kind == _OTHER:
            rest = _added(rest, counts)
        else:
            words, before = sums.get(kind, (version, [0] * len(counts)))
            sums[kind] = words, _added(before, counts)
    layers = [Layer(kind, words, counts) for kind, (words, counts) in sorted(sums.items())]
    return [*layers, Layer(_OTHER, "other versions", rest)] if any(rest) else layers


def _added(some: Iterable[int], others: Iterable[int]) -> list[int]:
    return [one + other for one, other in zip(some, others, strict=True)]


def _history_table(found: VersionsOverTime, layers: Sequence[Layer]) -> Html:
    step = max(1, len(found.times_ms) // 12)
    places = range(len(found.times_ms) - 1, -1, -step)
    headings = (Heading("Time (UTC)"), *(Heading(layer.words, True) for layer in layers))

    def cells(at: int) -> list[Node]:
        time = format_second(found.times_ms[at])[:16].replace("T", " ")
        return [time, *(number(layer.counts[at]) for layer in layers)]

    return table(headings, map(cells, places))


def product_table(summaries: Mapping[str, FleetSummary]) -> Html:
    """Return the figures of each product in a row; its name leads to its overview."""

    def cells(product: str, summary: FleetSummary) -> list[Node]:
        named = DeviceFilter(product=product)
        url = url_with("/", [pair for pair in fields_of(named) if pair[0] == "product"])
        shown: list[Node] = [
            link(url, product or "Default product"),
            link(devices_url(named), number(summary.total)),
        ]
        for each in _by_state(summary, product):
            shown.append(link(each.url, number(each.devices)))
        left_out = replace(named, apart=tuple(Apart))
        shown.append(link(devices_url(left_out), number(sum(summary.apart.values()))))
        return shown

    headings = (
        Heading("Product"),
        Heading("Devices", True),
        *(Heading(capitalised(each.value), True, title=said) for each, said in _IN_ORDER.items()),
        Heading("Not counted", True, title="pinned, kept by the hold, or on a stopped release"),
    )
    return table(headings, [cells(*each) for each in summaries.items()])
