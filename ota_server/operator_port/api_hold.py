"""The emergency hold by the API. I/O."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ota_server.httpd.reply import Reply
from ota_server.operations.hold_devices import hold_devices, hold_warnings, holds, release_hold
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
from ota_server.policy.hold import hold_lines, is_held


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
        "warnings": hold_warnings(site.data_dir),
    }


def _show(site: Site, _given: Given) -> Reply:
    return reply(_said(site))


def _begin(site: Site, given: Given) -> Reply:
    data_dir, is_one = _place(site, given)
    reason = parse_reason(given.body.get("reason", ""))
    _check(hold_devices(data_dir, reason, is_one).problems, "is not on hold")
    return reply(_said(site))


def _end(site: Site, given: Given) -> Reply:
    data_dir, is_one = _place(site, given)
    was_held = is_held(data_dir) if is_one else any(each.held for each in holds(site.data_dir))
    if was_held:
        _check(release_hold(data_dir, is_one), "is still on hold")
    said = _said(site)
    return reply(said) if was_held and said["warnings"] else nothing()


def _place(site: Site, given: Given) -> tuple[Path, bool]:
    """Return the data directory that is meant, and whether it is that of one product alone.

    Raises:
        NotHere: there is no product of this name.
    """
    if "product" not in given.path:
        return site.data_dir, False
    return site.folder_of(given.product), True


def _check(problems: Mapping[str, str], state: str) -> None:
    if problems:
        said = "; ".join(f"{name or DEFAULT} {state}: {text}" for name, text in problems.items())
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{said}.", (("Retry-After", "5"),))


_REASON = Body(reference("ReasonRequest"), "Why, for people.", is_required=False)
_SHOWN = Success(HTTPStatus.OK, "What is on hold.", reference("HoldList"))
_ENDED = Success(HTTPStatus.NO_CONTENT, "It is not on hold.")
_ENDED_UNNOTICED = Success(
    HTTPStatus.OK, "It is not on hold; no device may notice that now.", reference("HoldList")
)
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
        "DELETE",
        "/hold",
        Access.ACT,
        "endHold",
        "End the hold of all products",
        _end,
        _ENDED,
        also=(_ENDED_UNNOTICED,),
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
        also=(_ENDED_UNNOTICED,),
    ),
)
