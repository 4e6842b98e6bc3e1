"""/groups: each group with its devices, what they get, and the rollout that is on. I/O."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import IndexAway
from ota_server.operations.group_facts import AllGroups, GroupFacts, list_groups
from ota_server.operations.rollout_facts import RolloutDetail, current_rollouts
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import devices_url
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element, joined
from ota_server.operator_port.page_rollout_pieces import rollout_state
from ota_server.operator_port.pieces import (
    Heading,
    link,
    live,
    notes,
    release_url,
    rollout_url,
    table,
)
from ota_server.operator_port.products_shown import product_ways, products_meant
from ota_server.operator_port.reach import linked_number
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentences, until_text
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.policy.device_state import Condition
from ota_server.system.hints import hints

_HEADINGS = (
    Heading("Group"),
    Heading("Devices", is_number=True, title="that are on record"),
    Heading("Up to date", is_number=True, title="run what they should, by whatever decides it"),
    Heading("Failed or silent", is_number=True, title="went wrong after an update"),
    Heading("Gets", title="the pin or the target of the group, or what the whole fleet gets"),
    Heading("Rollout", title="that is on, to this group or to it first"),
)
_WRONG = (Condition.FAILED, Condition.SILENT)
_Reach = Mapping[str, Mapping[Condition, int]]


def _show(site: Site, asked: Asked) -> Reply:
    parts = [_of_product(site, product) for product in products_meant(site, asked)]
    content = (element("h1", "Groups"), product_ways(site, asked, "/groups"), parts)
    return page(site, asked, "Groups", content)


def _of_product(site: Site, product: str) -> Node:
    heading = f"Product {product}" if product else "Default product"
    folder = site.folder_of(product or DEFAULT)
    found, problems = _found(folder)
    rollouts: Sequence[RolloutDetail] = ()
    try:
        rollouts = current_rollouts(folder, site.now_ms()) if found.groups else ()
    except (Refused, BadPolicy, OSError) as problem:
        problems.append(_told(problem))
    reach = _reach(site, product)
    rows = [_row(product, each, reach, rollouts) for each in found.groups]
    return live(
        f"groups-{product or DEFAULT}",
        "devices rollouts releases",
        element("h2", heading) if len(site.products) > 1 else None,
        notes(sentences(hints.paste(each, product) for each in problems), "note warn"),
        table(_HEADINGS, rows, _none_yet(product), "Groups"),
    )


def _found(folder: Path) -> tuple[AllGroups, list[str]]:
    """Return the groups, and what is wrong with others."""
    try:
        found = list_groups(folder)
    except (Refused, BadPolicy, OSError) as problem:
        return AllGroups((), ()), [_told(problem)]
    return found, [*found.problems]


def _told(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return f"{problem.filename}: {problem.strerror}"
    return str(problem)


def _none_yet(product: str) -> Node:
    table_url = devices_url(DeviceFilter(product=product))
    where = link(table_url, "the table of devices")
    return "There is no group yet: “Add to a group” below ", where, " makes one."


def _reach(site: Site, product: str) -> _Reach | None:
    """Return how many devices of each group are in which state; None: there is no index now."""
    try:
        return site.index.by_group(product)
    except IndexAway:
        return None


def _row(
    product: str, group: GroupFacts, reach: _Reach | None, rollouts: Sequence[RolloutDetail]
) -> tuple[Node, ...]:
    members = DeviceFilter(product=product, group=group.name)
    counts = None if reach is None else reach.get(group.name, {})

    def of(*states: Condition) -> Node:
        wanted = DeviceFilter(product=product, group=group.name, states=states)
        found = None if counts is None else sum(counts.get(each, 0) for each in states)
        return linked_number(found, devices_url(wanted))

    on_record = None if counts is None else sum(counts.values())
    missing = 0 if on_record is None else len(group.macs) - on_record
    never = f" and {count_of(missing, 'device')} that never asked" if missing > 0 else ""
    return (
        link(devices_url(members), group.name),
        (linked_number(on_record, devices_url(members)), element("small", never)),
        of(Condition.UP_TO_DATE),
        of(*_WRONG),
        _gets(product, group),
        _rollouts(product, group, rollouts),
    )


def _gets(product: str, group: GroupFacts) -> Node:
    """Return what the devices of a group get: the first of what decides that."""
    if group.pin is not None:
        pinned = link(release_url(product, group.pin.version), group.pin.version)
        return "pinned to ", pinned, until_text(group.pin.until_ms)
    if group.target is not None:
        return link(release_url(product, group.target), group.target)
    return element("span", "what the fleet gets", class_="quiet")


def _rollouts(product: str, group: GroupFacts, rollouts: Sequence[RolloutDetail]) -> Node:
    """Return the rollouts that are on to a group, or that begin with it."""
    found: list[Html] = [
        element(
            "span",
            link(rollout_url(product, each.plan.id), each.plan.version),
            " ",
            rollout_state(each.state, each.needs_person),
        )
        for each in rollouts
        if each.is_on and group.name in (each.plan.group, each.plan.first_group)
    ]
    return joined(", ", found) or "-"


ROUTES = (Route("GET", "/groups", Access.READ, _show),)
