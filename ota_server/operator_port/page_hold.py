"""/hold: what is on hold, the button that holds, the button that ends it. I/O.

The page is the question: it says how many devices are meant, and the button below does it.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.hold_devices import (
    ProductHold,
    hold_devices,
    hold_warnings,
    holds,
    release_hold,
)
from ota_server.operations.typed_values import MOST_REASON, BadValue, parse_reason
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import acted, page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import choice, form, live, state, table, text_field
from ota_server.operator_port.problems import Problem
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.reach import devices_in_words
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import DEFAULT, Site

_ALL = ""


def _show(site: Site, asked: Asked) -> Reply:
    found = holds(site.data_dir)
    free = [each.product for each in found if each.held is None]
    held = [each.product for each in found if each.held is not None]
    content: tuple[Node, ...] = (
        element("h1", "Emergency hold"),
        element(
            "p",
            "While devices are on hold, each is told to stay on the version that it runs. "
            "Downloads that have begun go on. It takes a second to come into force.",
        ),
        live("holds", "hold", _table(site, found)),
    )
    if asked.operator.may_act:
        content += (
            _begin(site, asked, free, len(found)) if free else None,
            _end(site, asked, held, len(found)) if held else None,
        )
    else:
        content += (may_not_act("hold, or to end a hold"),)
    return page(site, asked, "Hold", content)


def _table(site: Site, found: list[ProductHold]) -> Html:
    now_ms = site.now_ms()
    rows: list[tuple[Node, ...]] = []
    for product, held in found:
        name = _name(product, len(found))
        if held is None:
            rows.append((name, state("good", "not on hold"), "", "", ""))
            continue
        since = time_of(held.time, now_ms) if held.time else "not on record"
        rows.append((name, state("bad", "on hold"), since, held.user or "?", held.reason or "-"))
    return table(("What", "State", "Since", "By", "Why"), rows)


def _name(product: str, count: int) -> str:
    if count == 1:
        return "Everything"
    return f"Product {product}" if product else "The default product"


def _meant(site: Site, product: str | None, count: int) -> tuple[str, str]:
    """Return the value and the words of an option."""
    devices = devices_in_words(site, DeviceFilter(product=product))
    if product is None:
        return _ALL, f"Everything: {devices}"
    return product or DEFAULT, f"{_name(product, count)}: {devices}"


def _options(site: Site, products: list[str], count: int) -> list[tuple[str, str]]:
    everything = [_meant(site, None, count)] if len(products) > 1 or count == 1 else []
    each = [_meant(site, product, count) for product in products] if count > 1 else []
    return everything + each


def _begin(site: Site, asked: Asked, free: list[str], count: int) -> Html:
    return element(
        "section",
        element("h2", "Hold"),
        form(
            asked,
            "/hold",
            element(
                "div",
                choice("What", "product", _options(site, free, count)),
                text_field("Why, for everybody who asks", "reason", maxlength=MOST_REASON, size=40),
                element("button", "Hold: offer nothing to these devices", class_="danger"),
                class_="actions",
            ),
        ),
    )


def _end(site: Site, asked: Asked, held: list[str], count: int) -> Html:
    return element(
        "section",
        element("h2", "End the hold"),
        element("p", "These devices are offered what they should run again, from that moment on."),
        form(
            asked,
            "/unhold",
            element(
                "div",
                choice("What", "product", _options(site, held, count)),
                element("button", "End the hold", class_="main"),
                class_="actions",
            ),
        ),
    )


def _hold(site: Site, asked: Asked) -> Reply:
    try:
        reason = parse_reason(asked.typed("reason"))
    except BadValue as problem:
        raise Problem(HTTPStatus.BAD_REQUEST, f"Why: {problem}.") from None
    data_dir, is_one = _place(site, asked)
    problems = hold_devices(data_dir, reason, is_one).problems
    return _changed(site, asked, problems, "Not everything is on hold")


def _unhold(site: Site, asked: Asked) -> Reply:
    problems = release_hold(*_place(site, asked))
    return _changed(site, asked, problems, "Something is still on hold")


def _place(site: Site, asked: Asked) -> tuple[Path, bool]:
    if "product" not in asked.form:  # a form that lost a field must not be one for everything
        raise Malformed("product: say what is meant")
    name = asked.typed("product")
    return (site.data_dir, False) if name == _ALL else (site.folder_of(name), True)


def _changed(site: Site, asked: Asked, problems: Mapping[str, str], title: str) -> Reply:
    if problems:
        said = "; ".join(f"{name or DEFAULT}: {text}" for name, text in problems.items())
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"{said}.", title=title)
    return acted(site, asked, "/hold", hold_warnings(site.data_dir))


ROUTES = (
    Route("GET", "/hold", Access.READ, _show),
    Route("POST", "/hold", Access.ACT, _hold),
    Route("POST", "/unhold", Access.ACT, _unhold),
)
