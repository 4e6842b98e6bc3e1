"""One device: why it gets what it gets, what is on record, what became of it, what to do. I/O."""

from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.device import HOUR_MS, Device
from ota_server.model.identity import key_of_name, parse_name
from ota_server.model.quantity import rounded_duration
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.timestamp import format_second
from ota_server.model.updater import family_of
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import IndexedDevice
from ota_server.operations.device_why import WhyFacts, explain_why, pin_text, why_lines
from ota_server.operations.group_facts import is_pinned_alone
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import devices_url, product_field
from ota_server.operator_port.frame import page, see_other
from ota_server.operator_port.html import Html, Node, element, joined
from ota_server.operator_port.page_device_absent import absent_page, decided_for
from ota_server.operator_port.page_device_story import (
    AskedPart,
    downloads,
    read_past,
    rollouts,
    time_line,
    unreadable,
)
from ota_server.operator_port.page_devices_bar import ALL_ACTIONS, action_buttons
from ota_server.operator_port.page_devices_columns import seen_cell, stage_of, words_of
from ota_server.operator_port.pieces import (
    at,
    condition_of,
    device_url,
    facts,
    form,
    link,
    live,
    release_url,
    when,
    with_code,
)
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import capitalised, with_utc
from ota_server.operator_port.site import Site
from ota_server.system.hints import hints


class _Named(NamedTuple):
    """The device that a URL names.

    Attributes:
        product: "" is the default one.
        data_dir: of that product.
        url: of its page.
    """

    product: str
    data_dir: Path
    name: str
    key: str
    url: str


def _show(site: Site, asked: Asked) -> Reply:
    said = asked.parts["name"]
    product, data_dir = site.named_product(asked.parts["product"])
    name = parse_name(said)
    if name is None:
        return absent_page(site, asked, said, "This is neither a MAC address nor `id:NAME`.")
    device = _Named(product, data_dir, name, key_of_name(product, name), device_url(product, name))
    if name != said:
        return see_other(device.url)
    row, record = site.index.device(device.key), site.index.record(device.key)
    if row is None or record is None:
        why = "It has not asked this server for its version."
        return absent_page(site, asked, name, why, decided_for(asked, product, data_dir, name))
    return page(site, asked, name, _content(site, asked, device, row, record))


def _content(site: Site, asked: Asked, device: _Named, row: IndexedDevice, record: Device) -> Node:
    now_ms = site.now_ms()
    label = (" ", element("span", row.label, class_="quiet")) if row.label else None
    return (
        element("h1", element("span", row.name, class_="mono"), label),
        live("now", "devices rollouts releases hold", _now(device, row, record, now_ms)),
        live(
            "actions",
            "devices",
            _actions(asked, device, row) if asked.operator.may_act else may_not_act(ALL_ACTIONS),
        ),
        _past(asked, device, now_ms),
    )


def _past(asked: Asked, device: _Named, now_ms: int) -> Node:
    """Return what became of the device; its newest downloads apart, if that is not all there is."""
    only = asked.one("only")
    if only not in ("", "downloads"):
        raise Malformed(f"only: {only[:40]!r} is not downloads")
    asked_for = AskedPart(device.url, asked.one("before") or None, bool(only))
    try:
        past = read_past(device.data_dir, device.key, asked_for, now_ms)
    except OSError as problem:
        return unreadable(problem)
    found, head = past.story, element("h2", "Downloads")
    is_newest = not asked_for.before and not asked_for.is_downloads
    in_rollouts = rollouts(past, device.product, now_ms)
    return (
        live("rollouts", "rollouts", element("h2", "Rollouts"), in_rollouts),
        live("downloads", "devices", head, downloads(found, now_ms)) if is_newest else None,
        live("history", "devices", element("h2", "History"), time_line(found, asked_for, now_ms)),
    )


# How it is now


def _now(device: _Named, row: IndexedDevice, record: Device, now_ms: int) -> Node:
    try:
        why = explain_why(
            device.data_dir, device.key, record, record.firmware_version, now_ms, is_brief=True
        )
    except (Refused, BadPolicy) as problem:
        return element("p", with_code(str(problem)), class_="problem"), _facts(row, record, now_ms)
    sentence = hints.paste(why.sentence, device.product)
    return (
        element("p", with_code(f"{capitalised(sentence)}."), class_="note why"),
        _facts(row, record, now_ms, with_utc(pin_text(why, now_ms))),
        _in_full(why, device, now_ms),
    )


def _facts(row: IndexedDevice, record: Device, now_ms: int, pin: str = "") -> Html:
    every = f"about every {rounded_duration(row.interval_ms / 1000)}"
    return facts(
        (
            ("State", condition_of(row.condition)),
            ("Since", when(row.since_ms, now_ms)),
            ("Because", words_of(row)),
            ("Reports", row.version),
            ("Was told", row.target),
            ("Should run", _release(row)),
            ("Pinned to", pin),
            ("How far", stage_of(row.stage)),
            ("Last seen", (seen_cell(row, now_ms), " (", at(row.seen_ms), ")")),
            ("Asks", every if row.interval_ms else "its rhythm is not known yet"),
            ("Updated", when(row.updated_ms, now_ms)),
            ("First seen", _first_seen(row.first_ms)),
            ("Address", row.address),
            ("Updater", _updater(record)),
            ("Product", row.product),
            ("Groups", joined(", ", [_group(row, each) for each in row.groups])),
        )
    )


def _first_seen(ms: int | None) -> str:
    """Return when a device was first seen: the hour alone is on record."""
    if ms is None:
        return "not on record"
    begin, end = format_second(ms), format_second(ms + HOUR_MS)
    return f"on {begin[:10]} between {begin[11:16]} and {end[11:16]} UTC"


def _release(row: IndexedDevice) -> Node:
    if row.release is None:
        return "what it runs"
    return link(release_url(row.product, row.release), row.release)


def _group(row: IndexedDevice, group: str) -> Html:
    wanted = DeviceFilter(product=row.product, group=group)
    return link(devices_url(wanted), group)


def _updater(record: Device) -> str:
    updater = record.updater
    said = [family_of(updater)]
    if updater is not None and updater.chip:
        said.append(f"chip {updater.chip}")
    if updater is not None and updater.free_space is not None:
        said.append(f"{updater.free_space:,} bytes of room")
    return ", ".join(said)


def _in_full(why: WhyFacts, device: _Named, now_ms: int) -> Html:
    """Return all that `why` says."""
    # The first lines may hold what the device reports: a command in them is not ours.
    reported = ("reports", "state", "counts as", "is told")
    rows = [
        (name, text if name in reported else with_code(hints.paste(text, device.product)))
        for name, text in why_lines(why, now_ms)
    ]
    return element("details", element("summary", "Why, in full"), facts(each for each in rows))


# What can be done to it


def _actions(asked: Asked, device: _Named, row: IndexedDevice) -> Html:
    buttons = action_buttons(
        has_pin=is_pinned_alone(device.data_dir, device.name),
        has_group=bool(row.groups),
        is_of_one=True,
    )
    hidden = {
        "product": product_field(device.product),
        "scope": "chosen",
        "key": device.key,
        "back": "device",
    }
    bar = element("div", buttons, class_="actions")
    return form(asked, "/devices/preview", bar, hidden=hidden)


ROUTES = (Route("GET", "/devices/{product}/{name}", Access.READ, _show),)
