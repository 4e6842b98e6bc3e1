"""Pieces that pages are made of: times, states, numbers, tables, facts, forms, links. No I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlencode

from ota_server.model.timestamp import format_second
from ota_server.operations.rollout_words import RESUMING
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.site import DEFAULT
from ota_server.policy.device_state import Condition

# The colour of a state; its word always stands beside it.
CONDITION_CLASSES = {
    Condition.SILENT: "silent",
    Condition.FAILED: "bad",
    Condition.AWAY: "away",
    Condition.UNDECIDED: "going",
    Condition.HELD_BACK: "back",
    Condition.BEHIND: "going",
    Condition.UP_TO_DATE: "good",
}
# By the words of `RolloutDetail.state`.
ROLLOUT_CLASSES = {
    "waiting": "away",
    "running": "going",
    RESUMING: "going",
    "paused": "back",
    "halted": "bad",
    "aborted": "back",
    "done": "good",
}
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# What is on record may be a little newer than the time that a page took for now.
_SOON_SECONDS = 5
_CODE = re.compile(r"`([^`\n]+)`")


# Text


def when(ms: int | None, now_ms: int, never: str = "never") -> Html:
    """Return a time as how long ago it was or how soon it is, with UTC to be read by hovering.

    Args:
        never: what stands there if it is None.
    """
    if ms is None:
        return element("span", never, class_="quiet")
    utc = format_second(ms)
    return element("time", _from_now((now_ms - ms) // 1000), datetime=utc, title=utc)


def at(ms: int | None, never: str = "never") -> Html:
    """Return a time in UTC in full."""
    if ms is None:
        return element("span", never, class_="quiet")
    return element("time", utc_text(ms), datetime=format_second(ms))


def utc_text(ms: int) -> str:
    """Return a time in UTC in full, as text."""
    return format_second(ms).replace("T", " ").replace("Z", " UTC")


def _from_now(seconds: int) -> str:
    if -_SOON_SECONDS <= seconds < 0:
        return "now"
    for unit, size in _UNITS:
        if abs(seconds) >= size:
            amount = f"{abs(seconds) // size} {unit}"
            return f"{amount} ago" if seconds > 0 else f"in {amount}"
    return "now"


def state(kind: str, *words: Node) -> Html:
    """Return a state: its colour, by a class such as `good`, and its word."""
    return element("span", *words, class_=f"state {kind}")


def condition_of(condition: Condition) -> Html:
    """Return the condition of a device with its colour."""
    return state(CONDITION_CLASSES[condition], condition.value)


def number(count: int) -> str:
    """Return a number with commas at its thousands."""
    return f"{count:,}"


def percent(count: int, of: int) -> str:
    """Return a share for people: 0 % and 100 % are only said of none and of all."""
    if not of:
        return "0 %"
    share = 100 * count / of
    if 0 < count < of:
        share = min(max(share, 0.1), 99.9)
    return f"{share:.0f} %" if share in (0, 100) or 10 <= share <= 90 else f"{share:.1f} %"


def of_product(product: str) -> str:
    """Return what stands behind what is of a product; of the default one nothing has to."""
    return f" of product {product}" if product else ""


def with_code(text: str) -> Node:
    """Return a text in which what stands in backticks is code, such as a command."""
    parts = _CODE.split(text)
    return [element("code", each) if at % 2 else each for at, each in enumerate(parts)]


def notes(texts: Iterable[str], kind: str = "note") -> Node:
    """Return remarks, each a paragraph of its own; `kind` is a class, such as `note warn`."""
    return [element("p", with_code(text), class_=kind) for text in texts]


# Links


def url_with(path: str, fields: Iterable[tuple[str, str]]) -> str:
    """Return a URL with a query of these fields."""
    query = urlencode([*fields])
    return f"{path}?{query}" if query else path


def device_url(product: str, name: str) -> str:
    """Return the page of a device, by its product ("" is the default one) and its name."""
    return _below("/devices", product, name)


def release_url(product: str, version: str) -> str:
    """Return the page of a release."""
    return _below("/releases", product, version)


def releases_url(product: str) -> str:
    """Return the list of the releases of a product."""
    return url_with("/releases", [("product", product or DEFAULT)])


def rollout_url(product: str, rollout_id: str) -> str:
    """Return the page of a rollout."""
    return _below("/rollouts", product, rollout_id)


def _below(path: str, product: str, name: str) -> str:
    return f"{path}/{quote(product or DEFAULT, safe='')}/{quote(name, safe=':')}"


def link(url: str, *words: Node, class_: str | None = None) -> Html:
    """Return a link."""
    return element("a", *words, href=url, class_=class_)


# Lists and tables


class Heading(NamedTuple):
    """The head of a column.

    Attributes:
        url: sorts by it; "": nothing does.
        order: `ascending` or `descending`, if the rows are sorted by it.
        is_hidden: it is for readers who listen, and on phones.
        chooses_all: it has a box that ticks those of all rows, by the script.
        title: what the name means, for those who hover; "": it says it.
    """

    name: str
    is_number: bool = False
    url: str = ""
    order: str = ""
    is_hidden: bool = False
    chooses_all: bool = False
    title: str = ""


def table(
    headings: Sequence[Heading | str],
    rows: Iterable[Sequence[Node]],
    empty: Node = "There are none.",
    caption: str = "",
) -> Html:
    """Return a table, which is a list of cards on a phone; `empty` if it has no rows."""
    heads = [Heading(each) if isinstance(each, str) else each for each in headings]
    body = [_row(heads, cells) for cells in rows]
    if not body:
        return element("p", empty, class_="quiet")
    return element(
        "div",
        element(
            "table",
            element("caption", caption, class_="unseen") if caption else None,
            element("thead", element("tr", map(_head, heads))),
            element("tbody", body),
            class_="list",
        ),
        class_="wide",
    )


def _head(heading: Heading) -> Html:
    name: Node = heading.name
    if heading.is_hidden:
        name = element("span", name, class_="unseen")
    if heading.chooses_all:
        box = element("input", type="checkbox", data_all=True, aria_label="All on this page")
        name = (name, box)
    if heading.url:
        arrow = {"ascending": " ▲", "descending": " ▼"}.get(heading.order, "")
        name = link(heading.url, name, element("span", arrow, aria_hidden="true"))
    return element(
        "th",
        name,
        scope="col",
        title=heading.title or None,
        class_="number" if heading.is_number else None,
        aria_sort=heading.order or None,
    )


def _row(headings: Sequence[Heading], cells: Sequence[Node]) -> Html:
    return element(
        "tr",
        [
            element("td", cell, data_name=head.name, class_="number" if head.is_number else None)
            for head, cell in zip(headings, cells, strict=True)
        ],
    )


def facts(pairs: Iterable[tuple[str, Node]]) -> Html:
    """Return names with values, one below the other; a value that is None or "" is left out."""
    return element(
        "dl",
        [
            (element("dt", name), element("dd", value))
            for name, value in pairs
            if value not in (None, "")
        ],
        class_="facts",
    )


def pager(words: Node, previous_url: str | None, next_url: str | None) -> Html:
    """Return how many there are, in words, and the ways to the parts beside this one."""
    return element(
        "nav",
        element("span", words),
        link(previous_url, "← Previous", class_="button") if previous_url else None,
        link(next_url, "Next →", class_="button") if next_url else None,
        class_="pager",
        aria_label="Parts of the list",
    )


def live(name: str, kinds: str, *children: Node, tag: str = "section", class_: str = "") -> Html:
    """Return a part that the script replaces when something changes.

    Args:
        name: its id, which no other part of the page has.
        kinds: of what changes (`changes.SiteChange`), with blanks between them.
    """
    return element(tag, *children, id=name, data_live=kinds, class_=class_ or None)


def more(summary: Node, *children: Node, is_open: bool = False) -> Html:
    """Return what is shown only to whoever opens it."""
    return element("details", element("summary", summary), *children, open=is_open)


# Forms


def form_token(asked: Asked) -> Html:
    """Return the hidden field that each form of a session has to send."""
    return element("input", type="hidden", name="form_token", value=asked.operator.form_token)


def form(
    asked: Asked, url: str, *children: Node, hidden: Mapping[str, str | Sequence[str]] | None = None
) -> Html:
    """Return a form that acts: it is sent by POST, with the token of the session.

    Args:
        hidden: fields that nobody sees, each with its value or its values.
    """
    fields = [
        element("input", type="hidden", name=name, value=value)
        for name, said in (hidden or {}).items()
        for value in ([said] if isinstance(said, str) else said)
    ]
    return element("form", form_token(asked), fields, *children, method="post", action=url)


def text_field(
    words: str, name: str, value: str = "", *, kind: str = "text", **attributes: object
) -> Html:
    """Return a field for text, with its label."""
    field = element("input", type=kind, name=name, value=value or None, **attributes)
    return element("label", words, field)


def choice(words: str, name: str, options: Iterable[tuple[str, str]], chosen: str = "") -> Html:
    """Return a field to choose from; each option is a value and its words."""
    listed = [
        element("option", said, value=value, selected=value == chosen) for value, said in options
    ]
    return element("label", words, element("select", listed, name=name))


def check_box(words: Node, name: str, value: str, is_checked: bool = False) -> Html:
    """Return a box to be ticked, with its words."""
    box = element("input", type="checkbox", name=name, value=value, checked=is_checked)
    return element("label", box, words, class_="check")
