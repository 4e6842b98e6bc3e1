"""Releases by the API: what there is, and what is done to one. I/O."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ota_server.httpd.reply import Reply
from ota_server.operations import change_release
from ota_server.operations.change_release import ReleaseChanged, no_progress
from ota_server.operations.device_index import IndexAway
from ota_server.operations.release_facts import (
    ReleaseFacts,
    find_release_facts,
    list_releases,
    release_fields,
)
from ota_server.operations.typed_values import parse_reason
from ota_server.operator_port.api_groups import OF_PRODUCT, products_asked
from ota_server.operator_port.api_operation import (
    PREFIX,
    Body,
    Given,
    Operation,
    Success,
    nothing,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.page_release_pieces import (
    ReleaseReach,
    all_spellings,
    reported_by,
)
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import DEFAULT, NotHere, Site
from ota_server.releases.inventory import find_release


def release_url(product: str, version: str) -> str:
    """Return the path of a release in the API."""
    return f"{PREFIX}/releases/{product_field(product)}/{quote(version, safe='')}"


def known_fields(site: Site, product: str, found: Sequence[ReleaseFacts]) -> list[dict[str, Any]]:
    """Return what is known of releases of a product, as `release show --json` has it.

    `devices_running` and `devices_told` are null while there is no index of devices.
    """
    names = [name for each in found for name in reported_by(each)]
    reach = None
    with suppress(IndexAway):
        name = "" if product == DEFAULT else product
        reach = ReleaseReach(*site.index.by_release(name, all_spellings(names)))
    return [
        {
            "url": release_url(product, each.version),
            "product": product,
            **release_fields(each),
            "devices_running": None if reach is None else reach.runs(each),
            "devices_told": None if reach is None else reach.were_told(each),
        }
        for each in found
    ]


def _list(site: Site, given: Given) -> Reply:
    found = [
        fields
        for product, folder in products_asked(site, given)
        if (folder / "firmware").is_dir()
        for fields in known_fields(site, product, list_releases(folder).releases)
    ]
    return reply({"releases": found})


def _folder(site: Site, given: Given) -> Path:
    """Return the folder of the product of a release that is there.

    Raises:
        NotHere: there is no such product, or no such release.
    """
    folder, version = site.folder_of(given.product), given.path["version"]
    if find_release(folder / "firmware", version) is None:
        raise NotHere(f"There is no release {version}.")
    return folder


def _show(site: Site, given: Given) -> Reply:
    facts = find_release_facts(_folder(site, given), given.path["version"])
    return reply(known_fields(site, given.product, [facts])[0])


def _activate(site: Site, given: Given) -> Reply:
    folder, is_forced = _folder(site, given), bool(given.body.get("force"))
    version = given.path["version"]
    return _done(change_release.activate_release(folder, version, no_progress, is_forced))


def _roll_back(site: Site, given: Given) -> Reply:
    folder, is_forced = site.folder_of(given.product), bool(given.body.get("force"))
    return _done(change_release.roll_back(folder, no_progress, is_forced))


def _withdraw(site: Site, given: Given) -> Reply:
    folder, reason = _folder(site, given), parse_reason(given.body.get("reason", ""))
    return _done(change_release.withdraw_release(folder, given.path["version"], reason))


def _reinstate(site: Site, given: Given) -> Reply:
    folder = _folder(site, given)
    return _done(change_release.reinstate_release(folder, given.path["version"]))


def _remove(site: Site, given: Given) -> Reply:
    folder = _folder(site, given)
    change_release.remove_release(folder, given.path["version"], no_progress)
    return nothing()


def _done(changed: ReleaseChanged) -> Reply:
    return reply(changed._asdict())


_ONE = "/releases/{product}/{version}"
_CHANGED = Success(HTTPStatus.OK, "What was done.", reference("ReleaseChanged"))
_FORCE = Body(
    reference("ForceRequest"),
    "Whether to do so even while a rollout is on, or if the image is for other devices.",
    is_required=False,
)


def _action(
    path: str,
    name: str,
    summary: str,
    answer: Callable[[Site, Given], Reply],
    body: Body | None = None,
) -> Operation:
    return Operation("POST", path, Access.ACT, name, summary, answer, _CHANGED, body=body)


OPERATIONS = (
    Operation(
        "GET",
        "/releases",
        Access.READ,
        "listReleases",
        "List releases, the newest first",
        _list,
        Success(HTTPStatus.OK, "The releases.", reference("ReleaseList")),
        query=(OF_PRODUCT,),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        "GET",
        _ONE,
        Access.READ,
        "getRelease",
        "Show a release",
        _show,
        Success(HTTPStatus.OK, "The release.", reference("Release")),
        problems=(HTTPStatus.CONFLICT,),
    ),
    Operation(
        "DELETE",
        _ONE,
        Access.ACT,
        "removeRelease",
        "Delete a release that is not in use",
        _remove,
        Success(HTTPStatus.NO_CONTENT, "It is deleted."),
    ),
    _action(
        f"{_ONE}/activate",
        "activateRelease",
        "Make a release the target of the whole fleet, at once",
        _activate,
        _FORCE,
    ),
    _action(
        f"{_ONE}/withdraw",
        "withdrawRelease",
        "Stop offering a release to any device",
        _withdraw,
        Body(reference("ReasonRequest"), "Why, for people.", is_required=False),
    ),
    _action(f"{_ONE}/reinstate", "reinstateRelease", "Offer a withdrawn release again", _reinstate),
    _action(
        "/products/{product}/rollback",
        "rollBack",
        "Make the previous target the target again",
        _roll_back,
        _FORCE,
    ),
)
