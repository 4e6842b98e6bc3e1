"""/audit: who changed what, the newest first. I/O.

Each product has a log of its own; they are shown as one. A place in it is where each log goes on:
`before=default.5210~plug.0` is byte 5210 of one, and the beginning of the other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.timestamp import parse_time
from ota_server.operations.audit_pages import AuditEntry, AuditPage, audit_page
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import at, link, live, pager, state, table, url_with, with_code
from ota_server.operator_port.products_shown import product_ways, products_meant
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import with_utc
from ota_server.operator_port.site import DEFAULT, Site

_ROWS = 50
_BETWEEN = "~"


class _Part(NamedTuple):
    """A part of the logs of several products.

    Attributes:
        entries: each with its product.
        older: where each log goes on; None: nothing is older.
    """

    entries: Sequence[tuple[str, AuditEntry]]
    older: Mapping[str, int] | None


def _show(site: Site, asked: Asked) -> Reply:
    products = products_meant(site, asked)
    before = _places(asked.one("before"), products)
    part = _part(site, products, before)
    has_products = len(site.products) > 1
    headings = ["When", "Who", "What was done", "To what", "From", "To, or why"]
    if has_products:
        headings.insert(1, "Product")
    rows = [_row(*each, site.now_ms(), has_products) for each in part.entries]
    kept = [("product", asked.one("product"))] if asked.one("product") else []
    older_url = None
    if part.older is not None:
        older_url = url_with("/audit", [*kept, ("before", _place_text(part.older))])
    content = (
        element("h1", "Audit"),
        product_ways(site, asked, "/audit"),
        element("p", "All changes that operators and rollouts made, the newest first."),
        live(
            "audit",
            "audit releases rollouts hold",
            table(headings, rows, "Nothing was changed yet."),
            pager(_to_newest(kept) if before else "", None, older_url),
        ),
    )
    return page(site, asked, "Audit", content)


def _to_newest(kept: Sequence[tuple[str, str]]) -> Html:
    return link(url_with("/audit", kept), "To the newest", class_="button")


def _part(site: Site, products: Sequence[str], before: Mapping[str, int]) -> _Part:
    pages = {each: _page_of(site, each, _ROWS, before) for each in products}
    entries = [(name, entry) for name, each in pages.items() for entry in each.entries]
    # Times of one log may stand still or go back, and its entries stay in their order.
    entries.sort(key=lambda each: each[1].time, reverse=True)
    shown = entries[:_ROWS]
    used = Counter(name for name, _ in shown)
    older: dict[str, int] = {}
    for name, each in pages.items():
        end = each
        if used[name] < len(each.entries):
            if not used[name]:
                older |= {name: before[name]} if name in before else {}
                continue
            end = _page_of(site, name, used[name], before)
        older[name] = end.older or 0
    is_last = len(entries) <= _ROWS and not any(older.values())
    return _Part(shown, None if is_last else older)


def _page_of(site: Site, product: str, limit: int, before: Mapping[str, int]) -> AuditPage:
    if before.get(product) == 0:
        return AuditPage((), None)
    return audit_page(site.folder_of(product), limit, before.get(product))


def _places(text: str, products: Sequence[str]) -> Mapping[str, int]:
    """Return where the logs go on, by their products.

    Raises:
        Malformed: it is not such a text.
    """
    found = {}
    for each in text.split(_BETWEEN) if text else ():
        name, _, number = each.partition(".")
        product = "" if name == DEFAULT else name
        is_number = number.isascii() and number.isdigit() and len(number) < 16
        if product not in products or not is_number:
            raise Malformed("before: it is not a place in the audit log that was given here")
        found[product] = int(number)
    return found


def _place_text(places: Mapping[str, int]) -> str:
    return _BETWEEN.join(f"{name or DEFAULT}.{offset}" for name, offset in places.items())


def _row(product: str, entry: AuditEntry, now_ms: int, has_products: bool) -> tuple[Node, ...]:
    action: Html | str = entry.action
    if not entry.is_made:
        action = element("span", state("bad", "not done"), f": {entry.action}")
    when = _when(entry.time, now_ms)
    after = element("span", with_code(entry.after)) if entry.after else None
    cells = (entry.who, action, entry.what, with_utc(entry.before), after)
    return (when, product or DEFAULT, *cells) if has_products else (when, *cells)


def _when(text: str, now_ms: int) -> Node:
    """Return when it was, in full: whoever asks what happened compares it with another log."""
    try:
        ago = element("small", time_of(text, now_ms), class_="nowrap")
        return element("span", at(parse_time(text)), class_="nowrap"), " ", ago
    except ValueError:  # a line that was edited
        return text


ROUTES = (Route("GET", "/audit", Access.READ, _show),)
