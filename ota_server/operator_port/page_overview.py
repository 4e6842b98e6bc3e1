"""The first page: how the fleet is; each number leads to the devices that it counts. I/O."""

from collections.abc import Sequence

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import FleetSummary, IndexAway
from ota_server.operations.rollout_facts import RolloutDetail, current_rollouts
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import devices_url, product_field, read_filter
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices import being_made, index_away
from ota_server.operator_port.page_overview_empty import next_step, no_device_yet
from ota_server.operator_port.page_overview_now import downloads_part, lately_part, warnings_part
from ota_server.operator_port.page_overview_parts import (
    CountedDevices,
    cards,
    history_part,
    product_table,
    states_part,
    versions_part,
    versions_shown,
)
from ota_server.operator_port.page_rollout_pieces import (
    rollout_state,
    waves_table,
)
from ota_server.operator_port.pieces import (
    link,
    live,
    rollout_url,
    url_with,
    with_code,
)
from ota_server.operator_port.products_shown import product_ways
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import capitalised, sentences, utc_text
from ota_server.operator_port.site import Site
from ota_server.policy.device_state import Condition
from ota_server.system.hints import hints

_DAY_MS = 86_400_000
# By the word in the URL: how many days, and how that is said.
_SPANS = {"1d": (1, "day"), "7d": (7, "7 days"), "30d": (30, "30 days"), "90d": (90, "90 days")}
_USUAL_SPAN = "7d"
_POINTS = 56
# Of the plot of a fleet that has just come.
_LEAST_MS = 3_600_000
_MOST_LATELY = 10


def _show(site: Site, asked: Asked) -> Reply:
    product = read_filter({"product": asked.query.get("product", [])}).product
    if product is not None:
        site.folder_of(product)
    now = (_rollouts(site, product), downloads_part(site, product))
    try:
        content = _with_devices(site, asked, product, now)
    except IndexAway as problem:
        content = (index_away(problem), now)
    head = (
        element("h1", "Overview"),
        product_ways(site, asked, "/"),
        live("warnings", "rollouts releases hold", warnings_part(site, product)),
    )
    return page(site, asked, "Overview", (head, content))


def _with_devices(site: Site, asked: Asked, product: str | None, now: Node) -> Node:
    """Return all that the table of devices says, around what happens now.

    Raises:
        IndexAway: there is no such table now.
    """
    summary = site.index.summary(product)
    if not summary.total:
        step, making = next_step(site, product or ""), being_made(summary)
        # Before the table is made nobody knows whether there are devices.
        empty = None if making else no_device_yet(site, asked, product or "")
        return live("fleet", "devices releases", making, step, empty), now
    shown = versions_shown(summary, product)
    is_several = product is None and len(site.products) > 1
    return (
        live("fleet", "devices", being_made(summary), cards(summary, product), _as_of(summary)),
        live("products", "devices", _each_product(site)) if is_several else None,
        now,
        element(
            "div",
            live("states", "devices rollouts", states_part(summary, product)),
            live("versions", "devices", versions_part(summary, shown)),
            class_="columns",
        ),
        live("history", "devices", _history(site, asked, product, shown)),
        live("lately", "devices", element("h2", "What went wrong lately"), _lately(site, product)),
    )


def _as_of(summary: FleetSummary) -> Html:
    return element("p", f"All states as of {utc_text(summary.as_of_ms)}.", class_="quiet")


def _each_product(site: Site) -> Node:
    summaries = {name: site.index.summary(name) for name in site.products}
    return element("h2", "Products"), product_table(summaries)


def _lately(site: Site, product: str | None) -> Node:
    found = site.index.lately(_MOST_LATELY, product)
    wrong = DeviceFilter(product=product, states=(Condition.FAILED, Condition.SILENT))
    every = element("p", link(devices_url(wrong), "All that failed or fell silent"))
    return lately_part(found, site.now_ms()), every if len(found) == _MOST_LATELY else None


def _history(
    site: Site, asked: Asked, product: str | None, shown: Sequence[CountedDevices]
) -> Node:
    chosen = asked.one("span", _USUAL_SPAN)
    days, words = _SPANS.get(chosen, _SPANS[_USUAL_SPAN])
    now_ms = site.now_ms()
    since_ms = now_ms - days * _DAY_MS
    found = site.index.versions_over_time(product, since_ms, now_ms, _POINTS, _LEAST_MS)
    is_all = found.times_ms[0] > since_ms + days * _DAY_MS // _POINTS
    when = "since the first one came" if is_all else f"in the last {words}"
    fields = [] if product is None else [("product", product_field(product))]

    def way(span: str) -> Html:
        url = url_with("/", [*fields, ("span", span)])
        is_here = _SPANS[span][0] == days
        return element("a", _SPANS[span][1], href=url, aria_current="true" if is_here else None)

    spans = element(
        "nav", [(way(each), " ") for each in _SPANS], class_="products", aria_label="Span of time"
    )
    return history_part(found, shown, spans, when)


# Rollouts


def _rollouts(site: Site, product: str | None) -> Html:
    parts = [part for each in _products(site, product) for part in _of_product(site, each)]
    none = element("p", "No rollout is on. ", link("/rollouts", "All rollouts"), class_="quiet")
    return live("rollouts", "rollouts", element("h2", "Rollouts"), parts or none)


def _products(site: Site, product: str | None) -> Sequence[str]:
    return site.products if product is None else (product,)


def _of_product(site: Site, product: str) -> list[Node]:
    try:
        found = current_rollouts(site.folder_of(product), site.now_ms())
    except (Refused, BadPolicy) as problem:
        return [element("p", with_code(hints.paste(str(problem), product)), class_="problem")]
    except OSError as problem:
        return [element("p", f"{problem.filename}: {problem.strerror}", class_="problem")]
    return [_rollout(site, product, each) for each in found]


def _rollout(site: Site, product: str, detail: RolloutDetail) -> Node:
    title = f"{product}: {detail.title}" if product else capitalised(detail.title)
    said = sentences(hints.paste(each, product) for each in detail.advice)
    return element(
        "article",
        element(
            "h3",
            link(rollout_url(product, detail.plan.id), title),
            " ",
            rollout_state(detail.state, detail.needs_person),
        ),
        [element("p", with_code(each)) for each in said],
        waves_table(detail, site.now_ms()),
    )


ROUTES = (Route("GET", "/", Access.READ, _show),)
