"""/rollouts/PRODUCT/ID: one rollout, whether it is on or over. I/O."""

from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import rounded_duration
from ota_server.operations.rollout_facts import RolloutDetail, RolloutEnd, ended, rollout_of
from ota_server.operations.rollout_words import title_of
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_devices import devices_part
from ota_server.operator_port.page_rollout_pieces import (
    limit_facts,
    rollout_state,
    time_of,
    waves_table,
)
from ota_server.operator_port.pieces import (
    facts,
    link,
    live,
    notes,
    of_product,
    release_url,
    rollout_url,
)
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import capitalised, sentences
from ota_server.operator_port.site import NotHere, Site
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.find_rollout import all_rollouts
from ota_server.system.hints import hints

# What is a link to a question, in the order of the buttons, and how bold it is.
_BUTTONS = {
    "resume": ("Resume", "button main"),
    "pause": ("Pause", "button"),
    "promote": ("Open the next wave", "button"),
    "change": ("Change limits", "button"),
    "abort": ("Abort", "button"),
    "revert": ("Take devices back", "button"),
}


class NamedRollout(NamedTuple):
    """The rollout that a URL names.

    Attributes:
        product: "" is the default one.
        data_dir: of that product.
        detail: None: another one to the same devices has taken its place.
    """

    product: str
    data_dir: Path
    id: str
    detail: RolloutDetail | None


def named_rollout(site: Site, asked: Asked) -> NamedRollout:
    """Return the rollout that the path of a request names.

    Raises:
        NotHere: there is no such product.
    """
    rollout_id = asked.parts["id"]
    product, data_dir = site.named_product(asked.parts["product"])
    for plan, _ in all_rollouts(data_dir):
        if plan.id == rollout_id:
            detail = rollout_of(data_dir, plan.group, site.now_ms())
            if detail is not None and detail.plan.id == rollout_id:
                return NamedRollout(product, data_dir, rollout_id, detail)
    return NamedRollout(product, data_dir, rollout_id, None)


def _show(site: Site, asked: Asked) -> Reply:
    rollout = named_rollout(site, asked)
    now_ms = site.now_ms()
    _, data_dir, rollout_id, detail = rollout
    devices = devices_part(site, rollout.product, data_dir, rollout_id, detail, asked)
    if rollout.detail is not None:
        title = rollout.detail.title
        content = _current(asked, rollout, rollout.detail, devices, now_ms)
    else:
        found = ended(rollout.data_dir, now_ms)
        end = next((each for each in found if each.id == rollout.id), None)
        if end is None:
            raise NotHere(f"There was no rollout {rollout.id[:40]!r}.")
        title = title_of(end.version, end.group, end.reverts)
        content = (_over(rollout, end, now_ms), devices)
    title = f"{capitalised(title)}{of_product(rollout.product)}"
    return page(site, asked, title, (element("h1", title), content))


def _current(
    asked: Asked, rollout: NamedRollout, detail: RolloutDetail, devices: Html, now_ms: int
) -> Node:
    kind = "note warn" if detail.needs_person else "note"
    return (
        live(
            "state",
            "rollouts hold",
            element("p", rollout_state(detail.state, detail.needs_person)),
            notes(sentences(hints.paste(each, rollout.product) for each in detail.advice), kind),
            notes(sentences(detail.warnings), "note warn"),
            _buttons(rollout, detail) if asked.operator.may_act else may_not_act("change it"),
        ),
        live(
            "waves",
            "rollouts",
            element("h2", "Waves"),
            waves_table(detail, now_ms),
            notes(sentences(detail.remarks), "quiet"),
        ),
        devices,
        live(
            "record",
            "rollouts",
            element("h2", "On record"),
            facts(_plan_facts(rollout.product, detail.plan, detail.end_time, now_ms)),
        ),
    )


def _buttons(rollout: NamedRollout, detail: RolloutDetail) -> Html | None:
    url = rollout_url(rollout.product, rollout.id)
    buttons = []
    for name, (words, class_) in _BUTTONS.items():
        if name not in detail.can:
            continue
        is_last = detail.progress is not None and detail.progress.wave + 1 == detail.plan.wave_count
        if name == "promote" and is_last:
            words = "End it without the missing devices"
        buttons.append((link(f"{url}/{name}", words, class_=class_), " "))
    return element("p", buttons, class_="actions") if buttons else None


def _plan_facts(
    product: str, plan: RolloutPlan, end_time: str | None, now_ms: int
) -> list[tuple[str, Node]]:
    whom = f"group {plan.group}" if plan.group else "the fleet"
    return [
        ("Release", link(release_url(product, plan.version), plan.version)),
        ("Instead of", plan.reverts or plan.instead_of),
        ("To", whom + (", groups with targets of their own too" if plan.groups_too else "")),
        ("Note", plan.note),
        ("Begun", time_of(plan.time, now_ms)),
        ("Ended", None if end_time is None else time_of(end_time, now_ms)),
        *limit_facts(plan),
        (
            "Small waves",
            f"in a wave of fewer than {plan.min_devices:,} devices, all have to update",
        ),
        ("Devices known for less than a day", "count too" if plan.count_new else "do not count"),
    ]


def _over(rollout: NamedRollout, end: RolloutEnd, now_ms: int) -> Node:
    return (
        element("p", rollout_state(end.state)),
        element("p", end.reason, class_="note") if end.reason else None,
        facts(
            (
                ("Release", link(release_url(rollout.product, end.version), end.version)),
                ("To", end.whom),
                ("Note", end.note),
                ("Begun", time_of(end.start_time, now_ms)),
                ("Ended", time_of(end.end_time, now_ms)),
                ("Took", rounded_duration(end.duration_seconds)),
                ("How far it came", end.came),
            )
        ),
    )


ROUTES = (Route("GET", "/rollouts/{product}/{id}", Access.READ, _show),)
