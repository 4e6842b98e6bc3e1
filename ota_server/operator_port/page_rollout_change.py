"""What an operator does to a rollout that has begun: each action asks first, then does it. I/O."""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of, format_duration
from ota_server.model.refusal import Refused
from ota_server.operations import change_rollout
from ota_server.operations.rollout_facts import RolloutDetail
from ota_server.operations.rollout_request import read_limits
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import acted, page
from ota_server.operator_port.html import Node, element
from ota_server.operator_port.page_rollout import NamedRollout, named_rollout
from ota_server.operator_port.pieces import form, link, of_product, rollout_url, text_field
from ota_server.operator_port.questions import (
    FORCE_ADVICE,
    Question,
    button_row,
    is_forced,
    may_not_act,
    question_form,
)
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentences
from ota_server.operator_port.site import NotHere, Site
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.rollout_text import who_stays


class _Reach(NamedTuple):
    """How many devices a rollout concerns.

    Attributes:
        updated: have the release.
        on_way: were told of it, or are fetching it.
        waiting: of the waves that are open, are not updated.
        to_come: of the waves that are not open.
    """

    updated: int
    on_way: int
    waiting: int
    to_come: int


def _reach(detail: RolloutDetail) -> _Reach:
    counts, plan = detail.counts, detail.plan
    updated = counts.get("updated", 0)
    opened = max(counts.get("reach", 0), counts.get("active", 0))
    wave = -1 if detail.progress is None else detail.progress.wave
    on_way = sum(counts.get(each, 0) for each in ("offered", "downloading", "undecided", "cut"))
    return _Reach(updated, on_way, max(0, opened - updated), sum(plan.counted[wave + 1 :]))


def _devices(count: int) -> str:
    return count_of(count, "device")


def _pause(detail: RolloutDetail) -> Question:
    reach = _reach(detail)
    return Question(
        (
            f"No further device is offered {detail.plan.version}: neither the "
            f"{_devices(reach.waiting)} of the open waves that are not updated, nor the "
            f"{_devices(reach.to_come)} of those to come.",
            f"{_devices(reach.updated)} that have it keep it; downloads that have begun go on.",
        ),
        "Pause",
    )


def _resume(detail: RolloutDetail) -> Question:
    reach = _reach(detail)
    return Question(
        (
            f"{_devices(reach.waiting)} of the open waves that are not updated are offered "
            f"{detail.plan.version} again; {_devices(reach.to_come)} of the waves to come get it "
            "later.",
        ),
        "Resume",
    )


def _promote(detail: RolloutDetail) -> Question:
    plan, reach = detail.plan, _reach(detail)
    wave = 0 if detail.progress is None else detail.progress.wave + 1
    if wave >= plan.wave_count:
        whose = f"that of the group {plan.group}" if plan.group else "that of the fleet"
        return Question(
            (
                "This is the last wave: the rollout ends without the "
                f"{_devices(reach.waiting)} that are not updated. {plan.version} becomes the "
                f"target, {whose}, so they are offered it whenever they ask.",
            ),
            "End the rollout",
        )
    adds = f"{_devices(plan.counted[wave])}" if wave < len(plan.counted) else "its devices"
    return Question(
        (
            f"Wave {wave + 1} of {plan.wave_count} opens at once, {plan.percent(wave):g} %: "
            f"{adds} are offered {plan.version}, though the wave before it has not shown enough.",
        ),
        "Open the next wave",
    )


def _abort(detail: RolloutDetail) -> Question:
    reach = _reach(detail)
    stays = who_stays(detail.plan)
    return Question(
        (
            f"The rollout ends, and no further device is offered {detail.plan.version}: "
            f"{_devices(reach.waiting + reach.to_come)} do not get it.",
            f"{_devices(reach.updated)} have it: {stays}. To take them back is another action.",
        ),
        "Abort the rollout",
        is_danger=True,
    )


_QUESTIONS: Mapping[str, Callable[[RolloutDetail], Question]] = {
    "pause": _pause,
    "resume": _resume,
    "promote": _promote,
    "abort": _abort,
}
_ACTIONS = {
    "pause": change_rollout.pause,
    "resume": change_rollout.resume,
    "promote": change_rollout.promote,
    "abort": change_rollout.abort,
}


def _current(site: Site, asked: Asked) -> tuple[NamedRollout, RolloutDetail]:
    """Return the rollout that is to be changed.

    Raises:
        NotHere: there is none, or another one has begun since the page was shown.
    """
    rollout = named_rollout(site, asked)
    if rollout.detail is None:
        raise NotHere(
            "This rollout is over, and another one may have begun since; the list of rollouts "
            "shows it.",
            HTTPStatus.CONFLICT,
        )
    return rollout, rollout.detail


def _askable(action: str, site: Site, asked: Asked) -> tuple[NamedRollout, RolloutDetail]:
    """Return the rollout that a question is about.

    Raises:
        NotHere: as `_current`, or that cannot be done to it now.
    """
    rollout, detail = _current(site, asked)
    if action not in detail.can:
        raise NotHere(
            f"That cannot be done now: the {detail.title} is {detail.state}.", HTTPStatus.CONFLICT
        )
    return rollout, detail


def _ask(action: str, site: Site, asked: Asked) -> Reply:
    rollout, detail = _askable(action, site, asked)
    question = _QUESTIONS[action](detail)
    url = rollout_url(rollout.product, rollout.id)
    title = f"{question.button}: {detail.title}{of_product(rollout.product)}"
    content = (
        element("h1", title),
        question_form(asked, question, f"{url}/{action}", url),
    )
    return page(site, asked, title, content)


def _do(action: str, site: Site, asked: Asked) -> Reply:
    rollout, detail = _current(site, asked)
    done = _ACTIONS[action](rollout.data_dir, detail.plan.group)
    return _done(site, asked, rollout, done.warnings)


def _done(
    site: Site, asked: Asked, rollout: NamedRollout, warnings: tuple[str, ...], url: str = ""
) -> Reply:
    """Show the rollout; another page if it has one that took its place."""
    url = url or rollout_url(rollout.product, rollout.id)
    return acted(site, asked, url, warnings, rollout.product)


# Limits


def _ask_limits(site: Site, asked: Asked) -> Reply:
    rollout, detail = _askable("change", site, asked)
    plan, url = detail.plan, rollout_url(rollout.product, rollout.id)
    title = f"Change limits: {detail.title}{of_product(rollout.product)}"
    content = (
        element("h1", title),
        element(
            "p",
            "The rollout goes on with them from now on; devices are not offered anything else. "
            f"They are for the {_devices(_concerned(detail))} that it reaches.",
        ),
        form(asked, f"{url}/change", *_limit_fields(plan), button_row("Change", url))
        if asked.operator.may_act
        else may_not_act("change them"),
    )
    return page(site, asked, title, content)


def _concerned(detail: RolloutDetail) -> int:
    reach = _reach(detail)
    return reach.updated + reach.waiting + reach.to_come


def _limit_fields(plan: RolloutPlan) -> list[Node]:
    fields = (
        ("Most failures, such as 2%", "max_failures", f"{plan.max_failures:g}%"),
        ("Soak, such as 1h", "soak_seconds", format_duration(plan.soak_seconds)),
        ("Time to apply, such as 15m", "grace_seconds", format_duration(plan.grace_seconds)),
    )
    return [element("p", text_field(words, name, value, size=12)) for words, name, value in fields]


def _change_limits(site: Site, asked: Asked) -> Reply:
    rollout, detail = _current(site, asked)
    names = ("max_failures", "soak_seconds", "grace_seconds")
    limits = read_limits({name: asked.typed(name) for name in names})
    changed = {name: limit for name, limit in limits.items() if limit != getattr(detail.plan, name)}
    warnings: tuple[str, ...] = ()
    if changed:
        warnings = change_rollout.change(rollout.data_dir, detail.plan.group, changed).warnings
    return _done(site, asked, rollout, warnings)


# Taking devices back


def _ask_revert(site: Site, asked: Asked) -> Reply:
    rollout, detail = _askable("revert", site, asked)
    url = rollout_url(rollout.product, rollout.id)
    doubts: tuple[str, ...] = ()
    try:
        planned = change_rollout.preview_revert(rollout.data_dir, detail.plan.group)
    except Refused as problem:
        planned = change_rollout.preview_revert(rollout.data_dir, detail.plan.group, is_forced=True)
        doubts = (str(problem).removesuffix(FORCE_ADVICE),)
    said = [*sentences([planned.text])]
    if planned.plan is not None:
        waves = ", ".join(f"{percent:g}" for percent in planned.plan.waves)
        said.append(
            f"They go back to {planned.plan.version}, in waves of {waves} %, with a soak of "
            f"{format_duration(planned.plan.soak_seconds)}."
        )
    title = f"Take devices back: {detail.title}{of_product(rollout.product)}"
    if planned.plan is None and planned.is_on:
        said.append("There is nothing to take back. To end the rollout is another action: Abort.")
        ways = element("p", link(url, "Back to the rollout", class_="button"), class_="actions")
        told = [element("p", each) for each in said]
        return page(site, asked, title, (element("h1", title), told, ways))
    question = Question(tuple(said), "Take devices back", is_danger=True, doubts=doubts)
    content = (element("h1", title), question_form(asked, question, f"{url}/revert", url))
    return page(site, asked, title, content)


def _revert(site: Site, asked: Asked) -> Reply:
    rollout, detail = _current(site, asked)
    done = change_rollout.revert(rollout.data_dir, detail.plan.group, is_forced(asked))
    return _done(site, asked, rollout, done.warnings, "/rollouts")


def _routes() -> list[Route]:
    path = "/rollouts/{product}/{id}"
    found = [
        Route("GET", f"{path}/change", Access.READ, _ask_limits),
        Route("POST", f"{path}/change", Access.ACT, _change_limits),
        Route("GET", f"{path}/revert", Access.READ, _ask_revert),
        Route("POST", f"{path}/revert", Access.ACT, _revert),
    ]
    for action in _QUESTIONS:
        found.append(Route("GET", f"{path}/{action}", Access.READ, partial(_ask, action)))
        found.append(Route("POST", f"{path}/{action}", Access.ACT, partial(_do, action)))
    return found


ROUTES = tuple(_routes())
