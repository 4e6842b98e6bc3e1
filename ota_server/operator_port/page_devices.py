"""The page of all devices: filtered, sorted, by parts, and what can be done to them. I/O."""

from collections.abc import Sequence

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of
from ota_server.operations.device_filter import BadCursor
from ota_server.operations.device_index import (
    DevicePage,
    FleetSummary,
    IndexAway,
    IndexedDevice,
    Total,
)
from ota_server.operations.group_names import group_names
from ota_server.operator_port import page_devices_act, page_devices_bar, page_devices_csv
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import (
    DeviceListing,
    by_name,
    fields_of,
    listing_fields,
    read_listing,
)
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_columns import COLUMNS, columns_that_fit, heading
from ota_server.operator_port.page_devices_filters import (
    FilterChoices,
    chosen_filters,
    column_form,
    filter_form,
)
from ota_server.operator_port.page_overview_empty import next_step, no_device_yet
from ota_server.operator_port.pieces import (
    Heading,
    form,
    link,
    live,
    pager,
    percent,
    table,
    url_with,
)
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site


def _show(site: Site, asked: Asked) -> Reply:
    listing = read_listing(asked.query, also=("done",))
    done = page_devices_bar.DONE.get(asked.one("done"), "")
    try:
        summary = site.index.summary(listing.wanted.product)
        found = _found(site, listing)
    except IndexAway as problem:
        content: Node = index_away(problem)
    else:
        content = _content(site, asked, listing, summary, found)
    said = element("p", done, class_="note", role="status") if done else None
    return page(site, asked, "Devices", (element("h1", "Devices"), said, content))


def _found(site: Site, listing: DeviceListing) -> DevicePage:
    """Return a part of the list; its beginning, if a cursor is of another list."""
    asked_for = (listing.wanted, listing.sort, listing.descending)
    try:
        return site.index.page(*asked_for, listing.cursor, listing.limit)
    except BadCursor:
        # Somebody has changed the rest of the URL by hand.
        return site.index.page(*asked_for, None, listing.limit)


def index_away(problem: IndexAway) -> Html:
    """Return that there is no table of devices now; the page asks again by itself."""
    return element(
        "section",
        element("p", "The table of devices is not there yet: it is made from the journal."),
        element("p", str(problem), class_="quiet"),
        id="index-away",
        data_live="devices",
        data_poll="2",
        class_="note warn",
    )


def being_made(summary: FleetSummary) -> Html | None:
    """Return how far the table of devices is made; None: it is whole."""
    if summary.progress >= 1:
        return None
    share = percent(int(summary.progress * 1000), 1000)
    bar = element("progress", value=f"{summary.progress:.3f}", max="1", aria_label="Progress")
    return element(
        "section",
        element("p", f"The table of devices is being made from the journal: {share}."),
        bar,
        id="index-progress",
        data_live="devices",
        data_poll="2",
        class_="note",
    )


def _content(
    site: Site, asked: Asked, listing: DeviceListing, summary: FleetSummary, found: DevicePage
) -> Node:
    if not summary.total and listing.wanted.is_all:
        product = listing.wanted.product or ""
        making = being_made(summary)
        empty = None if making else no_device_yet(site, asked, product)
        return live("devices", "devices", making, next_step(site, product), empty)
    names = site.products if listing.wanted.product is None else (listing.wanted.product,)
    groups = sorted({name for each in names for name in group_names(site.folder_of(each))})
    choices = FilterChoices(site.products, groups, [*summary.versions])
    shown = listing.columns or columns_that_fit(listing.wanted, found.rows, len(site.products) > 1)
    may_act = asked.operator.may_act
    rows = _table(site, listing, found, shown, may_act)
    body: Node = live("devices", "devices", being_made(summary), rows)
    if may_act:
        hidden = by_name(fields_of(listing.wanted))
        actions = page_devices_bar.action_bar(site, listing, found.total)
        body = form(asked, "/devices/preview", body, actions, hidden=hidden)
    else:
        body = (body, may_not_act(page_devices_bar.ALL_ACTIONS))
    return (
        filter_form(listing, choices),
        chosen_filters(listing),
        body,
        column_form(listing, shown),
        _downloads(listing._replace(columns=tuple(shown))),
    )


def _downloads(listing: DeviceListing) -> Html:
    url = url_with("/devices.csv", listing_fields(listing._replace(cursor=None)))
    return element("p", link(url, "Download as CSV"), " (all that match, these columns)")


def _table(
    site: Site, listing: DeviceListing, found: DevicePage, shown: Sequence[str], has_boxes: bool
) -> Node:
    now_ms = site.now_ms()
    headings = [heading(name, listing) for name in shown]
    boxes = [Heading("Choose", is_hidden=True, chooses_all=True)] if has_boxes else []

    def cells(row: IndexedDevice) -> list[Node]:
        own: list[Node] = [COLUMNS[name].cell(row, now_ms) for name in shown]
        return [_box(row), *own] if has_boxes else own

    def part(cursor: str | None) -> str | None:
        if cursor is None:
            return None
        return url_with("/devices", listing_fields(listing._replace(cursor=cursor)))

    words = f"{total_words(found.total)}{' match' if not listing.wanted.is_all else ''}"
    empty = (
        "No device matches. ",
        link("/devices", "Show all devices"),
    )
    return (
        pager(words, part(found.previous), part(found.next)),
        table([*boxes, *headings], map(cells, found.rows), empty, "Devices"),
        pager("", part(found.previous), part(found.next)) if len(found.rows) > 15 else None,
    )


def _box(row: IndexedDevice) -> Html:
    return element(
        "input", type="checkbox", name="key", value=row.key, aria_label=f"Choose {row.name}"
    )


def total_words(total: Total) -> str:
    """Return how many devices there are, in words."""
    return ("" if total.is_exact else "more than ") + count_of(total.number, "device")


ROUTES = (
    Route("GET", "/devices", Access.READ, _show),
    Route("GET", "/devices.csv", Access.READ, page_devices_csv.answer),
    *page_devices_act.ROUTES,
)
