"""Rollouts by the API: those that are on and those that are over, and starting one. I/O."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import Refused
from ota_server.operations import start_rollout
from ota_server.operations.rollout_devices import devices_of
from ota_server.operations.rollout_facts import (
    RolloutDetail,
    RolloutEnd,
    current_rollouts,
    ended,
    rollout_of,
)
from ota_server.operations.rollout_request import read_request
from ota_server.operations.rollout_words import title_of
from ota_server.operations.start_rollout import RolloutPreview
from ota_server.operator_port.api_devices import LINK, PAGING, next_link
from ota_server.operator_port.api_groups import OF_PRODUCT, products_asked
from ota_server.operator_port.api_operation import (
    PREFIX,
    Body,
    Given,
    Operation,
    Success,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.list_place import read_place, write_place
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.sentences import sentence
from ota_server.operator_port.site import NotHere, Site
from ota_server.policy.labels import read_labels
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.find_rollout import all_rollouts

_USUAL_LIMIT = 50


def named(site: Site, given: Given) -> tuple[Path, RolloutPlan | None]:
    """Return the folder of the product of a rollout, and its plan; None: it is over and replaced.

    Raises:
        NotHere: there is no such product.
    """
    folder = site.folder_of(given.product)
    plans = (each.plan for each in all_rollouts(folder))
    return folder, next((plan for plan in plans if plan.id == given.path["rollout"]), None)


def _no_such(given: Given) -> NotHere:
    return NotHere(f"There was no rollout {given.path['rollout'][:64]}.")


def rollout_url(product: str, rollout_id: str) -> str:
    """Return the path of a rollout in the API."""
    return f"{PREFIX}/rollouts/{product_field(product)}/{quote(rollout_id, safe='')}"


def _fields(product: str, detail: RolloutDetail) -> dict[str, Any]:
    plan, progress = detail.plan, detail.progress
    return {
        "id": plan.id,
        "url": rollout_url(product, plan.id),
        "product": product,
        "group": plan.group,
        "version": plan.version,
        "title": detail.title,
        "state": detail.state,
        "reason": "" if progress is None else progress.reason,
        "start_time": plan.time,
        "end_time": detail.end_time,
        "counts": dict(detail.counts),
        "note": plan.note,
    }


def _detail_fields(product: str, detail: RolloutDetail) -> dict[str, Any]:
    return {
        **_fields(product, detail),
        "is_on": detail.is_on,
        "needs_person": detail.needs_person,
        "advice": detail.advice,
        "limits": detail.limits,
        "warnings": detail.warnings,
        "remarks": detail.remarks,
        # Before a wave opens it is not known how many are in it; `added` says how many it was for.
        "waves": [
            {**each._asdict(), "devices": each.devices if each.counts else None}
            for each in detail.waves
        ],
        "plan": detail.plan._asdict(),
        "can": detail.can,
    }


def _end_fields(product: str, end: RolloutEnd) -> dict[str, Any]:
    return {
        "id": end.id,
        "url": rollout_url(product, end.id),
        "product": product,
        "group": end.group,
        "version": end.version,
        "title": title_of(end.version, end.group, end.reverts),
        "state": end.state,
        "reason": end.reason,
        "start_time": end.start_time,
        "end_time": end.end_time,
        "counts": dict(end.counts),
        "note": end.note,
    }


def _list(site: Site, given: Given) -> Reply:
    """Return rollouts, the newest first; a cursor is the number of one, from the oldest on."""
    found: list[dict[str, Any]] = []
    for product, folder in products_asked(site, given):
        now_ms = site.now_ms()
        # One that has just ended is in both lists.
        on = {each.plan.id: _fields(product, each) for each in current_rollouts(folder, now_ms)}
        over = [_end_fields(product, each) for each in ended(folder, now_ms)]
        found += [*on.values(), *(each for each in over if each["id"] not in on)]
    found.sort(key=lambda each: (str(each["start_time"]), str(each["id"])))
    place = read_place(given.query.get("cursor"), int)
    end = len(found) if place is None else max(0, min(place, len(found)))
    begin = max(0, end - given.query.get("limit", _USUAL_LIMIT))
    after = write_place(begin) if begin else None
    content = {"rollouts": found[begin:end][::-1], "next": after}
    return reply(content, HTTPStatus.OK, *next_link(given, after))


def _show(site: Site, given: Given) -> Reply:
    folder, plan = named(site, given)
    detail = None if plan is None else rollout_of(folder, plan.group, site.now_ms())
    if detail is not None and detail.plan.id == given.path["rollout"]:
        return reply(_detail_fields(given.product, detail))
    for end in ended(folder, site.now_ms()):
        if end.id == given.path["rollout"]:
            nothing: Mapping[str, Any] = {
                "is_on": False,
                "needs_person": False,
                "advice": (),
                "limits": "",
                "warnings": (),
                "remarks": (end.came,),
                "waves": (),
                "plan": {},
                "can": (),
            }
            return reply({**_end_fields(given.product, end), **nothing})
    raise _no_such(given)


def _devices(site: Site, given: Given) -> Reply:
    folder, rollout_id = site.folder_of(given.product), given.path["rollout"]
    try:
        found = devices_of(folder, rollout_id, site.now_ms(), site.rollouts)
    except Refused as problem:
        raise NotHere(sentence(str(problem))) from None
    labels = read_labels(folder)
    devices = [{**each._asdict(), "label": labels.get(each.mac)} for each in found.devices]
    return reply({"title": found.headline, "devices": devices, "more": found.more})


# Starting


def _preview(site: Site, given: Given) -> Reply:
    request = read_request(given.body)
    shown = start_rollout.preview(site.folder_of(given.product), request, site.now_ms())
    return reply(_preview_fields(shown))


def _preview_fields(shown: RolloutPreview) -> dict[str, Any]:
    return {
        "plan": shown.plan._asdict(),
        "waves": [each._asdict() for each in shown.waves],
        "devices": shown.devices,
        "inactive": shown.inactive,
        "new": shown.new,
        "left_alone": [each._asdict() for each in shown.left_alone],
        "waits_for": shown.waits_for,
        "warnings": shown.warnings,
    }


def _start(site: Site, given: Given) -> Reply:
    folder, request = site.folder_of(given.product), read_request(given.body)
    started = start_rollout.start(folder, request, site.now_ms())
    detail = rollout_of(folder, started.plan.group, site.now_ms())
    assert detail is not None, started  # its plan is on the disk
    content = {
        **_detail_fields(given.product, detail),
        "warnings": [*detail.warnings, *started.warnings],
    }
    location = ("Location", rollout_url(given.product, started.plan.id))
    return reply(content, HTTPStatus.CREATED, location)


_ONE = "/rollouts/{product}/{rollout}"
_REQUEST = Body(
    reference("RolloutRequest"),
    "The release, and what differs from the usual limits, as `rollout start VERSION` has them.",
    example={"version": "v1.2.0", "waves": [1, 10, 50, 100], "note": "fixes the clock"},
)
OPERATIONS = (
    Operation(
        "GET",
        "/rollouts",
        Access.READ,
        "listRollouts",
        "List rollouts, the newest first",
        _list,
        Success(HTTPStatus.OK, "A part of the list.", reference("RolloutPage"), fields=LINK),
        query=(OF_PRODUCT, *PAGING),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        "POST",
        "/rollouts/{product}",
        Access.ACT,
        "startRollout",
        "Begin a rollout",
        _start,
        Success(
            HTTPStatus.CREATED,
            "It has begun.",
            reference("RolloutDetail"),
            fields={"Location": "The path of the rollout."},
        ),
        body=_REQUEST,
    ),
    Operation(
        "POST",
        "/rollouts/{product}/preview",
        Access.ACT,
        "previewRollout",
        "Say what a rollout would be; nothing is changed",
        _preview,
        Success(HTTPStatus.OK, "What it would be.", reference("RolloutPreview")),
        body=_REQUEST,
    ),
    Operation(
        "GET",
        _ONE,
        Access.READ,
        "getRollout",
        "Show a rollout",
        _show,
        Success(HTTPStatus.OK, "The rollout.", reference("RolloutDetail")),
        problems=(HTTPStatus.CONFLICT,),
    ),
    Operation(
        "GET",
        f"{_ONE}/devices",
        Access.READ,
        "listRolloutDevices",
        "List the devices of a rollout that are not updated, each with the reason",
        _devices,
        Success(HTTPStatus.OK, "The devices, the worst first.", reference("RolloutDevices")),
        problems=(HTTPStatus.CONFLICT,),
    ),
)
