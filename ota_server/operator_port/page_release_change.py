"""What an operator does with a release: each action asks first, then does it. I/O.

The checks are those of the commands. What needs `--force` there is shown with the question, and
needs a tick here.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import Refused
from ota_server.model.version import same_version
from ota_server.operations.change_release import (
    ReleaseChanged,
    activate_release,
    no_progress,
    reinstate_release,
    remove_release,
    roll_back,
    withdraw_release,
)
from ota_server.operations.release_facts import find_release_facts
from ota_server.operations.typed_values import parse_reason
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import acted, page
from ota_server.operator_port.html import element
from ota_server.operator_port.page_release import NamedRelease, named_release
from ota_server.operator_port.page_release_pieces import runs_another, runs_it
from ota_server.operator_port.pieces import releases_url
from ota_server.operator_port.questions import FORCE_ADVICE, Question, is_forced, question_form
from ota_server.operator_port.reach import devices_in_words
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import DEFAULT, NotHere, Site
from ota_server.releases.inventory import look_at, uses_of
from ota_server.releases.same_devices import check_devices
from ota_server.system.data_dir import access_problem


def _ask_activate(site: Site, release: NamedRelease) -> Question:
    facts, product = release.facts, release.product
    others = devices_in_words(site, runs_another(product, facts))
    own = devices_in_words(site, runs_it(product, facts))
    return Question(
        (
            f"{facts.version} becomes the target of the whole fleet at once, not in waves: "
            f"it is offered to {others} with another version as soon as each asks; it runs on "
            f"{own} already.",
            "Groups that have a target of their own get it too, and so do devices that stayed on a "
            "release that was stopped. Pins stay in force.",
        ),
        "Activate",
        is_danger=True,
        doubts=tuple(_doubts_of_target(release.data_dir, release)),
    )


def _doubts_of_target(data_dir: Path, release: NamedRelease) -> Iterator[str]:
    """Yield why `activate` would refuse a release, if nobody forced it."""
    facts = release.facts
    rollout = look_at(data_dir).policy.rollouts.get("")
    if rollout is not None:
        yield f"a rollout of {rollout.version} to the fleet is going on; this pauses it"
    image = facts.release.image
    if image is not None and (problem := access_problem(data_dir, image.path)):
        yield problem
    try:
        check_devices(data_dir, facts.version, has_groups=True)
    except Refused as problem:
        yield str(problem).removesuffix(FORCE_ADVICE)


def _ask_withdraw(site: Site, release: NamedRelease) -> Question:
    facts = release.facts
    used = [use.text for use in uses_of(facts.version, look_at(release.data_dir), site.now_ms())]
    still = f"It is still {', '.join(used)}: that has to be changed too." if used else ""
    own = devices_in_words(site, runs_it(release.product, facts))
    return Question(
        (
            f"No device is offered {facts.version} any longer, and downloads of it that are "
            f"resumed get 404. {own} run it, and stay on it until they have another target.",
            *filter(None, [still]),
        ),
        "Withdraw",
        is_danger=True,
        asks_why=True,
    )


def _ask_reinstate(site: Site, release: NamedRelease) -> Question:
    facts = release.facts
    own = devices_in_words(site, runs_it(release.product, facts))
    return Question(
        (
            f"{facts.version} can be offered again, where it is a target, a pin or in a rollout. "
            f"{own} run it, and stay on it until they have another target.",
        ),
        "Undo the withdrawal",
    )


def _ask_remove(site: Site, release: NamedRelease) -> Question:
    facts = release.facts
    own = devices_in_words(site, runs_it(release.product, facts))
    return Question(
        (
            f"The files of {facts.version} are deleted: its image, its record, its signature and "
            f"its parts. {own} run it; nothing is changed on devices.",
        ),
        "Remove the files",
        is_danger=True,
    )


_QUESTIONS: Mapping[str, Callable[[Site, NamedRelease], Question]] = {
    "activate": _ask_activate,
    "withdraw": _ask_withdraw,
    "reinstate": _ask_reinstate,
    "remove": _ask_remove,
}


def _ask(action: str, site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    if action not in release.facts.can:
        why = ", ".join((*release.facts.states, *release.facts.named_by)) or "not in use"
        version = release.facts.version
        raise NotHere(f"That cannot be done to {version} now: it is {why}.", HTTPStatus.CONFLICT)
    question = _QUESTIONS[action](site, release)
    title = f"{question.button}: {release.title}"
    shown = question_form(asked, question, f"{release.url}/{action}", release.url)
    return page(site, asked, title, (element("h1", title), shown))


def _do_activate(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    version, is_sure = release.facts.version, is_forced(asked)
    done = activate_release(release.data_dir, version, no_progress, is_sure)
    return _done(site, asked, release, done)


def _do_withdraw(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    reason = parse_reason(asked.typed("reason"))
    done = withdraw_release(release.data_dir, release.facts.version, reason)
    return _done(site, asked, release, done)


def _do_reinstate(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    return _done(site, asked, release, reinstate_release(release.data_dir, release.facts.version))


def _do_remove(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    done = remove_release(release.data_dir, release.facts.version, no_progress)
    return acted(site, asked, releases_url(release.product), done.warnings, release.product)


def _done(site: Site, asked: Asked, release: NamedRelease, done: ReleaseChanged) -> Reply:
    return acted(site, asked, release.url, done.warnings, release.product)


# Back to the previous target


def _previous(site: Site, name: str) -> tuple[NamedRelease, str | None]:
    """Return the release that a rollback goes to, and the target now."""
    product, data_dir = site.named_product(name)
    state = look_at(data_dir)
    if state.previous is None:
        raise Refused(
            f"there is no target on record before {state.target or 'this one'}: activate the "
            "release that you want"
        )
    facts = find_release_facts(data_dir, state.previous)
    return NamedRelease(product, data_dir, facts), state.target


def _ask_rollback(site: Site, asked: Asked) -> Reply:
    release, target = _previous(site, asked.one("product"))
    facts, product = release.facts, release.product
    others = devices_in_words(site, runs_another(product, facts))
    rollout = look_at(release.data_dir).policy.rollouts.get("")
    doubts = []
    if rollout is not None:
        doubts.append(f"a rollout of {rollout.version} to the fleet is going on; this pauses it")
    question = Question(
        (
            f"{facts.version} becomes the target of the whole fleet again, in place of "
            f"{target or 'none'}: it is offered to {others} with another version as soon as each "
            "asks. Groups get back the targets that the last activation took from them.",
        ),
        "Go back",
        is_danger=True,
        doubts=tuple(doubts),
    )
    back_url = releases_url(product)
    hidden = {"product": product or DEFAULT, "version": facts.version}
    title = f"Go back to {release.title}"
    shown = question_form(asked, question, "/releases/rollback", back_url, hidden)
    return page(site, asked, title, (element("h1", title), shown))


def _do_rollback(site: Site, asked: Asked) -> Reply:
    release, _ = _previous(site, asked.typed("product"))
    if not same_version(release.facts.version, asked.typed("version")):
        raise NotHere(
            f"The previous target is {release.facts.version} by now: another change was made "
            "meanwhile. Look again.",
            HTTPStatus.CONFLICT,
        )
    done = roll_back(release.data_dir, no_progress, is_forced(asked))
    return _done(site, asked, release, done)


_ACTIONS = {
    "activate": _do_activate,
    "withdraw": _do_withdraw,
    "reinstate": _do_reinstate,
    "remove": _do_remove,
}


def _routes() -> Iterator[Route]:
    path = "/releases/{product}/{version}"
    for action, do in _ACTIONS.items():
        yield Route("GET", f"{path}/{action}", Access.READ, partial(_ask, action))
        yield Route("POST", f"{path}/{action}", Access.ACT, do)
    yield Route("GET", "/releases/rollback", Access.READ, _ask_rollback)
    yield Route("POST", "/releases/rollback", Access.ACT, _do_rollback)


ROUTES = tuple(_routes())
