"""The emergency hold by the API. I/O."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ota_server.httpd.reply import Reply
from ota_server.operations.holding import begin_hold, end_hold, holds
from ota_server.operations.typed_values import parse_reason
from ota_server.operator_port.api_operation import (
    Body,
    Given,
    Operation,
    Success,
    nothing,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.problems import Problem
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.policy.hold import hold_lines


def _said(site: Site) -> dict[str, Any]:
    found = holds(site.data_dir)
    held = [(product, each) for product, each in found if each is not None]
    return {
        "holds": [
            {
                "product": product_field(product),
                "what": each.what,
                "time": each.time or None,
                "user": each.user or None,
                "reason": each.reason or None,
            }
            for product, each in held
        ],
        "is_all": len(held) == len(found),
        "lines": hold_lines(site.data_dir),
    }


def _show(site: Site, _given: Given) -> Reply:
    return reply(_said(site))


def _begin(site: Site, given: Given) -> Reply:
    product, reason = _product(site, given), parse_reason(given.body.get("reason", ""))
    _check(begin_hold(site.data_dir, product, reason), "is not on hold")
    return reply(_said(site))


def _end(site: Site, given: Given) -> Reply:
    product = _product(site, given)
    if any(held and product in (None, name) for name, held in holds(site.data_dir)):
        _check(end_hold(site.data_dir, product), "is still on hold")
    return nothing()


def _product(site: Site, given: Given) -> str | None:
    """Return the product that the path names; None: all of them.

    Raises:
        NotHere: there is none of this name.
    """
    if "product" not in given.path:
        return None
    site.folder_of(given.product)
    return "" if given.product == DEFAULT else given.product


def _check(problems: Mapping[str, str], state: str) -> None:
    if problems:
        said = "; ".join(f"{name or DEFAULT} {state}: {text}" for name, text in problems.items())
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{said}.", (("Retry-After", "5"),))


_REASON = Body(reference("ReasonRequest"), "Why, for people.", is_required=False)
_SHOWN = Success(HTTPStatus.OK, "What is on hold.", reference("HoldList"))
_ENDED = Success(HTTPStatus.NO_CONTENT, "It is not on hold.")
OPERATIONS = (
    Operation("GET", "/hold", Access.READ, "getHold", "Show what is on hold", _show, _SHOWN),
    Operation(
        "PUT",
        "/hold",
        Access.ACT,
        "holdAll",
        "Stop all offers of all products at once",
        _begin,
        _SHOWN,
        body=_REASON,
    ),
    Operation(
        "DELETE", "/hold", Access.ACT, "endHold", "End the hold of all products", _end, _ENDED
    ),
    Operation(
        "PUT",
        "/hold/{product}",
        Access.ACT,
        "holdProduct",
        "Stop all offers of a product at once",
        _begin,
        _SHOWN,
        body=_REASON,
    ),
    Operation(
        "DELETE",
        "/hold/{product}",
        Access.ACT,
        "endHoldOfProduct",
        "End the hold of a product",
        _end,
        _ENDED,
    ),
)
