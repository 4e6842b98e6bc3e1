"""Devices by the API: the list, filtered and paged, and one device. I/O.

The filters are those of the page (`device_query`), by the same names.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ota_server.httpd.reply import Reply
from ota_server.model.device import Device
from ota_server.model.identity import key_of_name, parse_name
from ota_server.model.timestamp import format_time
from ota_server.operations.device_filter import word_of
from ota_server.operations.device_index import IndexedDevice
from ota_server.operations.device_rollouts import rollouts_of
from ota_server.operations.device_story import StoryEntry, story
from ota_server.operations.device_why import explain_why, why_fields
from ota_server.operator_port.api_operation import (
    PREFIX,
    Given,
    Operation,
    QueryField,
    Success,
    reply,
)
from ota_server.operator_port.api_schemas import (
    CURSOR,
    FILTER,
    FILTER_WORDS,
    LIMIT,
    ORDER,
    SORT,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import (
    DeviceListing,
    listing_fields,
    product_field,
    read_listing,
)
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import DEFAULT, NotHere, Site

PAGING = (
    QueryField("limit", LIMIT, "How many at most."),
    QueryField("cursor", CURSOR, "`next` of the part before; leave it out for the first part."),
)
_USUAL_LIMIT = 50
# Of what `why --json` has: what is not in the device itself.
_EXPLAINED = (
    *("target_version", "release", "reason", "rule", "rollouts", "case", "pin", "pin_until"),
    *("fleet_target", "problem", "image", "image_size", "image_problem", "server_runs"),
)
LINK = {"Link": 'The next part of the list, if there is one, as `rel="next"` (RFC 8288).'}


def device_url(product: str, name: str) -> str:
    """Return the path of a device in the API."""
    return f"{PREFIX}/devices/{product_field(product)}/{quote(name, safe=':')}"


def device_fields(row: IndexedDevice) -> dict[str, object]:
    """Return what is known of a device, by the names that `devices --json` has too."""
    return {
        "key": row.key,
        "url": device_url(row.product, row.name),
        "mac": row.name,
        "product": product_field(row.product),
        "label": row.label or None,
        "firmware_version": row.version,
        "target_version": row.target,
        "release": row.release,
        "last_seen_time": format_time(row.seen_ms),
        "update_time": time_or_none(row.updated_ms),
        "first_seen_time": time_or_none(row.first_ms),
        "address": row.address,
        "family": row.family,
        "groups": list(row.groups),
        "state": word_of(row.condition),
        "state_since": format_time(row.since_ms),
        "reason": row.words,
        "stage": word_of(row.stage),
        "apart": None if row.apart is None else word_of(row.apart),
        "pinned": row.is_pinned,
        "outdated": row.is_outdated,
        "overdue": row.is_overdue,
        "interval_seconds": row.interval_ms / 1000,
    }


def time_or_none(ms: int | None) -> str | None:
    """Return a time as text."""
    return None if ms is None else format_time(ms)


def key_in_path(site: Site, given: Given) -> str:
    """Return the key of the device that a path names.

    Raises:
        NotHere: there is no such product, or nothing can have that name.
    """
    site.folder_of(given.product)
    name = parse_name(given.path["mac"])
    if name is None:
        raise NotHere(f"No device is called {given.path['mac'][:70]!r}.")
    return key_of_name("" if given.product == DEFAULT else given.product, name)


def linked(*links: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the field Link, of targets with their relations; nothing if there is none."""
    said = ", ".join(f'<{url}>; rel="{relation}"' for url, relation in links)
    return (("Link", said),) if said else ()


def next_link(given: Given, cursor: str | None) -> tuple[tuple[str, str], ...]:
    """Return the link to the next part of a list that was asked for."""
    if cursor is None:
        return ()
    fields = [
        (name, value)
        for name, values in given.asked.query.items()
        for value in values
        if name != "cursor"
    ]
    path = given.asked.request.path.decode("latin-1")
    return linked((f"{path}?{urlencode([*fields, ('cursor', cursor)])}", "next"))


def _list(site: Site, given: Given) -> Reply:
    if "product" in given.query:
        site.folder_of(given.query["product"])
    listing = read_listing(given.asked.query)
    found = site.index.page(
        listing.wanted, listing.sort, listing.descending, listing.cursor, listing.limit
    )
    content = {
        "devices": [device_fields(row) for row in found.rows],
        "total": found.total.number,
        "total_is_exact": found.total.is_exact,
        "next": found.next,
        "previous": found.previous,
    }
    sides = ((found.next, "next"), (found.previous, "prev"))
    links = [(_url(listing, cursor), relation) for cursor, relation in sides if cursor is not None]
    return reply(content, HTTPStatus.OK, *linked(*links))


def _url(listing: DeviceListing, cursor: str) -> str:
    return f"{PREFIX}/devices?{urlencode(listing_fields(listing._replace(cursor=cursor)))}"


def _show(site: Site, given: Given) -> Reply:
    key = key_in_path(site, given)
    row, record = site.index.device(key), site.index.record(key)
    if row is None or record is None:
        raise NotHere(f"{given.path['mac'][:70]!r} is not on record.")
    explained = _explained(site.folder_of(given.product), key, record, site.now_ms())
    return reply({**device_fields(row), "explanation": explained})


def _explained(folder: Path, key: str, record: Device, now_ms: int) -> Mapping[str, Any]:
    facts = explain_why(folder, key, record, record.firmware_version, now_ms, is_brief=True)
    said = why_fields(facts)
    return {"sentence": facts.sentence, **{name: said[name] for name in _EXPLAINED}}


def _history(site: Site, given: Given) -> Reply:
    key, limit = key_in_path(site, given), given.query.get("limit", _USUAL_LIMIT)
    found = story(site.journal_dir, key, limit, given.query.get("cursor"))
    if not found.entries and "cursor" not in given.query:
        raise NotHere(f"{given.path['mac'][:70]!r} is not on record.")
    content = {"entries": [_entry(each) for each in found.entries], "next": found.older}
    return reply(content, HTTPStatus.OK, *next_link(given, found.older))


def _entry(entry: StoryEntry) -> dict[str, Any]:
    said = {"checks": entry.checks, "what": entry.what, "last_time": entry.last.get("time")}
    return {**entry.first, **said}


def _rollouts(site: Site, given: Given) -> Reply:
    key, folder = key_in_path(site, given), site.folder_of(given.product)
    found = rollouts_of(folder, key, site.now_ms())
    return reply({"rollouts": [each._asdict() for each in found]})


OPERATIONS = (
    Operation(
        "GET",
        "/devices",
        Access.READ,
        "listDevices",
        "List devices",
        _list,
        Success(HTTPStatus.OK, "A part of the list.", reference("DevicePage"), fields=LINK),
        description="All that match the filters, or all there are. The cursor of a part stays "
        "good while devices come and go: each that stays is visited once.",
        query=(
            *(QueryField(name, each, FILTER_WORDS[name]) for name, each in FILTER.items()),
            QueryField("sort", SORT, "By what they are sorted; `mac` if nothing is said."),
            QueryField("order", ORDER, "`asc` if nothing is said."),
            *PAGING,
        ),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        "GET",
        "/devices/{product}/{mac}",
        Access.READ,
        "getDevice",
        "Show a device, and why it gets what it gets",
        _show,
        Success(HTTPStatus.OK, "The device.", reference("DeviceDetail")),
    ),
    Operation(
        "GET",
        "/devices/{product}/{mac}/history",
        Access.READ,
        "getDeviceHistory",
        "Show what is on record of a device, the newest first",
        _history,
        Success(
            HTTPStatus.OK,
            "A part of its history; checks that say the same are one entry.",
            reference("HistoryPage"),
            fields=LINK,
        ),
        query=PAGING,
        problems=(HTTPStatus.CONFLICT,),
    ),
    Operation(
        "GET",
        "/devices/{product}/{mac}/rollouts",
        Access.READ,
        "listRolloutsOfDevice",
        "List the rollouts that a device was in, and what it counted as",
        _rollouts,
        Success(HTTPStatus.OK, "The newest first.", reference("DeviceRollouts")),
        problems=(HTTPStatus.CONFLICT,),
    ),
)
