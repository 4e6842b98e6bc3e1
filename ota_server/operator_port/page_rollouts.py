"""/rollouts: those that are on, and those that are over with what came of them. I/O."""

from collections.abc import Sequence
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import rounded_duration
from ota_server.operations.rollout_facts import (
    RolloutDetail,
    RolloutEnd,
    current_rollouts,
    ended,
)
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import (
    rollout_state,
    time_of,
    waves_table,
)
from ota_server.operator_port.pieces import link, live, notes, pager, rollout_url, table, url_with
from ota_server.operator_port.products_shown import product_ways, products_meant
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import capitalised, sentences
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.system.hints import hints

_ROWS = 50


class _OverRollout(NamedTuple):
    product: str
    end: RolloutEnd


def _show(site: Site, asked: Asked) -> Reply:
    products = products_meant(site, asked)
    now_ms = site.now_ms()
    begun = [
        (product, each)
        for product in products
        for each in current_rollouts(site.folder_of(product), now_ms)
        if each.is_on or each.needs_person
    ]
    over = _over(site, products, now_ms)
    content = (
        element("h1", "Rollouts"),
        product_ways(site, asked, "/rollouts"),
        _start_links(products) if asked.operator.may_act else may_not_act("start a rollout"),
        live(
            "on",
            "rollouts",
            [_card(*each, now_ms=now_ms) for each in begun]
            or element("p", "No rollout is on.", class_="quiet"),
        ),
        element("h2", "Over"),
        live("over", "rollouts", *_over_table(asked, over, len(site.products) > 1, now_ms)),
    )
    return page(site, asked, "Rollouts", content)


def _start_links(products: Sequence[str]) -> Node:
    def one(product: str) -> Html:
        url = url_with("/rollouts/new", [("product", product or DEFAULT)])
        words = f"Start a rollout of {product or 'the default product'}"
        return link(url, words if len(products) > 1 else "Start a rollout", class_="button main")

    return element("p", [(one(product), " ") for product in products], class_="actions")


def _card(product: str, detail: RolloutDetail, now_ms: int) -> Html:
    plan = detail.plan
    ended_at = () if detail.end_time is None else (", ended ", time_of(detail.end_time, now_ms))
    title = capitalised(detail.title)
    return element(
        "article",
        element("h2", link(rollout_url(product, plan.id), title)),
        element(
            "p",
            rollout_state(detail.state, detail.needs_person),
            f" · product {product}" if product else None,
            " · begun ",
            time_of(plan.time, now_ms),
            ended_at,
        ),
        element("p", plan.note) if plan.note else None,
        notes(
            sentences(hints.paste(each, product) for each in detail.advice),
            "note warn" if detail.needs_person else "note",
        ),
        waves_table(detail, now_ms),
    )


def _over(site: Site, products: Sequence[str], now_ms: int) -> list[_OverRollout]:
    found = [
        _OverRollout(product, end)
        for product in products
        for end in ended(site.folder_of(product), now_ms)
    ]
    return sorted(found, key=lambda each: each.end.end_time, reverse=True)


def _over_table(
    asked: Asked, over: Sequence[_OverRollout], has_products: bool, now_ms: int
) -> list[Node]:
    first = _first_row(asked)
    shown = over[first : first + _ROWS]
    headings = ["Release", "To whom", "State", "Ended", "Took", "How far it came", "Note"]
    rows = [_over_row(each, now_ms) for each in shown]
    if has_products:
        headings.insert(1, "Product")
        rows = [
            (row[0], each.product or DEFAULT, *row[1:])
            for each, row in zip(shown, rows, strict=True)
        ]
    kept = [(name, asked.one(name)) for name in ("product",) if asked.one(name)]
    before = [*kept, ("from", str(max(0, first - _ROWS)))]
    after = [*kept, ("from", str(first + _ROWS))]
    return [
        table(headings, rows, "None is over yet."),
        pager(
            f"{first + 1} to {first + len(shown)} of {len(over):,}" if shown else "",
            url_with("/rollouts", before) if first else None,
            url_with("/rollouts", after) if first + _ROWS < len(over) else None,
        ),
    ]


def _first_row(asked: Asked) -> int:
    text = asked.one("from", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise Malformed(f"from: {text[:40]!r} is not a number of rows")
    return int(text)


def _over_row(each: _OverRollout, now_ms: int) -> tuple[Node, ...]:
    end = each.end
    return (
        link(rollout_url(each.product, end.id), end.version),
        end.whom,
        element("span", rollout_state(end.state), f": {end.reason}" if end.reason else None),
        time_of(end.end_time, now_ms),
        rounded_duration(end.duration_seconds),
        end.came,
        end.note,
    )


ROUTES = (Route("GET", "/rollouts", Access.READ, _show),)
