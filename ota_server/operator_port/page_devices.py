"""The page of all devices: filtered, sorted, by parts, and what can be done to them. I/O."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of
from ota_server.operations.device_filter import BadCursor, DeviceFilter
from ota_server.operations.device_index import (
    DevicePage,
    FleetSummary,
    IndexAway,
    IndexedDevice,
    Total,
)
from ota_server.operations.group_names import group_names
from ota_server.operator_port import page_devices_act, page_devices_bar, page_devices_csv
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import (
    FILTER_FIELDS,
    LIST_FIELDS,
    DeviceListing,
    by_name,
    listing_fields,
    read_listing,
    readable_fields,
)
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_columns import COLUMNS, columns_that_fit, heading
from ota_server.operator_port.page_devices_filters import (
    FilterChoices,
    chosen_filters,
    column_form,
    filter_form,
    in_words_of_form,
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
from ota_server.operator_port.problems import wants_page
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import NotHere, Site


def _show(site: Site, asked: Asked) -> Reply:
    try:
        listing = read_listing(asked.query, also=("done",))
        _folders(site, listing.wanted)  # they have to be there
    except (Malformed, NotHere) as problem:
        if not wants_page(asked):
            raise
        return _mistyped(site, asked, str(problem))
    done = page_devices_bar.DONE.get(asked.one("done"), "")
    said = element("p", done, class_="note", role="status") if done else None
    return _listed(site, asked, listing, said)


def _listed(
    site: Site,
    asked: Asked,
    listing: DeviceListing,
    said: Node,
    *,
    ticked: Collection[str] = (),
    status: HTTPStatus = HTTPStatus.OK,
) -> Reply:
    """Return the page of a list; `said` stands above it."""
    try:
        summary = site.index.summary(listing.wanted.product)
        found = _found(site, listing)
    except IndexAway as problem:
        content: Node = index_away(problem)
    else:
        content = _content(site, asked, listing, summary, found, ticked)
    whole = (element("h1", "Devices"), said, content)
    return page(site, asked, "Devices", whole, status=status)


def _mistyped(site: Site, asked: Asked, problem: str) -> Reply:
    """Return the form of the filter with what was typed, and no device: not all are meant."""
    readable = readable_fields(asked.query)
    listing = read_listing(readable)
    if listing.wanted.product not in (None, *site.products):
        listing = listing._replace(wanted=replace(listing.wanted, product=None))
        readable = {name: said for name, said in readable.items() if name != "product"}
    typed = {name: said[-1] for name, said in asked.query.items() if name not in readable}
    content = (
        element("h1", "Devices"),
        element("p", in_words_of_form(problem), class_="problem", role="alert"),
        filter_form(listing, _choices(site, listing.wanted, ()), typed),
        element("p", "No device is shown until the filter can be used.", class_="quiet"),
    )
    return page(site, asked, "Devices", content, status=HTTPStatus.BAD_REQUEST)


def _preview(site: Site, asked: Asked) -> Reply:
    """Ask about an action; where it is not clear for which devices, show them again."""
    try:
        return page_devices_act.preview(site, asked)
    except Malformed as problem:
        known = (*FILTER_FIELDS, *LIST_FIELDS)
        fields = {name: said for name, said in asked.form.items() if name in known}
        if not wants_page(asked) or readable_fields(fields) != fields:
            raise
        said = element("p", str(problem), class_="problem", role="alert")
        status, ticked = HTTPStatus.BAD_REQUEST, asked.form.get("key", ())
        return _listed(site, asked, read_listing(fields), said, ticked=ticked, status=status)


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


def _folders(site: Site, wanted: DeviceFilter) -> list[Path]:
    """Return the folders of the products that a filter is about.

    Raises:
        NotHere: there is none of its name.
    """
    names = site.products if wanted.product is None else (wanted.product,)
    return [site.folder_of(name) for name in names]


def _choices(site: Site, wanted: DeviceFilter, versions: Iterable[str]) -> FilterChoices:
    groups = {name for folder in _folders(site, wanted) for name in group_names(folder)}
    return FilterChoices(site.products, sorted(groups), [*versions])


def _content(
    site: Site,
    asked: Asked,
    listing: DeviceListing,
    summary: FleetSummary,
    found: DevicePage,
    ticked: Collection[str],
) -> Node:
    if not summary.total and listing.wanted.is_all:
        product = listing.wanted.product or ""
        making = being_made(summary)
        empty = None if making else no_device_yet(site, asked, product)
        return live("devices", "devices", making, next_step(site, product), empty)
    shown = listing.columns or columns_that_fit(listing.wanted, found.rows, len(site.products) > 1)
    may_act = asked.operator.may_act
    rows = _table(site, listing, found, shown, ticked if may_act else None)
    body: Node = live("devices", "devices", being_made(summary), rows)
    if may_act:
        hidden = by_name(listing_fields(listing))
        actions = page_devices_bar.action_bar(site, listing, found.total)
        body = form(asked, "/devices/preview", body, actions, hidden=hidden)
    else:
        body = (body, may_not_act(page_devices_bar.ALL_ACTIONS))
    return (
        filter_form(listing, _choices(site, listing.wanted, summary.versions)),
        chosen_filters(listing),
        body,
        column_form(listing, shown),
        _downloads(listing._replace(columns=tuple(shown))),
    )


def _downloads(listing: DeviceListing) -> Html:
    url = url_with("/devices.csv", listing_fields(listing._replace(cursor=None)))
    return element("p", link(url, "Download as CSV"), " (all that match, these columns)")


def _table(
    site: Site,
    listing: DeviceListing,
    found: DevicePage,
    shown: Sequence[str],
    ticked: Collection[str] | None,
) -> Node:
    """Return a part of the list; `ticked`: the devices whose boxes are, None: without boxes."""
    now_ms = site.now_ms()
    headings = [heading(name, listing) for name in shown]
    if ticked is not None:
        headings.insert(0, Heading("Choose", is_hidden=True, chooses_all=True))

    def cells(row: IndexedDevice) -> list[Node]:
        own: list[Node] = [COLUMNS[name].cell(row, now_ms) for name in shown]
        return own if ticked is None else [_box(row, row.key in ticked), *own]

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
        table(headings, map(cells, found.rows), empty, "Devices"),
        pager("", part(found.previous), part(found.next)) if len(found.rows) > 15 else None,
    )


def _box(row: IndexedDevice, is_ticked: bool) -> Html:
    words = f"Choose {row.name}"
    return element(
        "input", type="checkbox", name="key", value=row.key, aria_label=words, checked=is_ticked
    )


def total_words(total: Total) -> str:
    """Return how many devices there are, in words."""
    return ("" if total.is_exact else "more than ") + count_of(total.number, "device")


ROUTES = (
    Route("GET", "/devices", Access.READ, _show),
    Route("GET", "/devices.csv", Access.READ, page_devices_csv.answer),
    Route("POST", "/devices/preview", Access.ACT, _preview),
    *page_devices_act.ROUTES,
)
