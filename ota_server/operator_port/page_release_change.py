"""What an operator does with a release: each action asks first, then does it. I/O.

The checks are those of the commands. What needs `--force` there is shown with the question, and
needs a tick here.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import Refused
from ota_server.model.version import same_version
from ota_server.operations.release_facts import find_release_facts
from ota_server.operations.typed_values import MOST_REASON, parse_reason
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page, see_other
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_release import NamedRelease, named_release
from ota_server.operator_port.page_release_pieces import runs_another, runs_it
from ota_server.operator_port.page_rollout_pieces import sentences
from ota_server.operator_port.pieces import check_box, form, link, notes, text_field, url_with
from ota_server.operator_port.reach import devices_in_words
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import DEFAULT, NotHere, Site
from ota_server.releases.activate import activate, rollback
from ota_server.releases.inventory import look_at, uses_of
from ota_server.releases.same_devices import check_devices
from ota_server.releases.withdraw import reinstate, remove, withdraw
from ota_server.system.data_dir import access_problem

_FORCE_ADVICE = "; --force does it anyway"


class _Question(NamedTuple):
    """What an action will do.

    Attributes:
        doubts: what speaks against it; it is done only in spite of them.
        asks_why: a reason can be given.
    """

    sentences: tuple[str, ...]
    button: str
    is_danger: bool = False
    doubts: tuple[str, ...] = ()
    asks_why: bool = False


def _ask_activate(site: Site, release: NamedRelease) -> _Question:
    facts, product = release.facts, release.product
    others = devices_in_words(site, runs_another(product, facts))
    own = devices_in_words(site, runs_it(product, facts))
    return _Question(
        (
            f"{facts.version} becomes the target of the whole fleet at once, not in waves: "
            f"{others} that run something else are offered it as soon as they ask; {own} run it.",
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
        yield str(problem).removesuffix(_FORCE_ADVICE)


def _ask_withdraw(site: Site, release: NamedRelease) -> _Question:
    facts = release.facts
    used = [use.text for use in uses_of(facts.version, look_at(release.data_dir), site.now_ms())]
    still = f"It is still {', '.join(used)}: that has to be changed too." if used else ""
    own = devices_in_words(site, runs_it(release.product, facts))
    return _Question(
        (
            f"No device is offered {facts.version} any longer, and downloads of it that are "
            f"resumed get 404. {own} run it, and stay on it until they have another target.",
            *filter(None, [still]),
        ),
        "Withdraw",
        is_danger=True,
        asks_why=True,
    )


def _ask_reinstate(site: Site, release: NamedRelease) -> _Question:
    facts = release.facts
    own = devices_in_words(site, runs_it(release.product, facts))
    return _Question(
        (
            f"{facts.version} can be offered again, where it is a target, a pin or in a rollout. "
            f"{own} run it, and stay on it until they have another target.",
        ),
        "Undo the withdrawal",
    )


def _ask_remove(site: Site, release: NamedRelease) -> _Question:
    facts = release.facts
    own = devices_in_words(site, runs_it(release.product, facts))
    return _Question(
        (
            f"The files of {facts.version} are deleted: its image, its record, its signature and "
            f"its parts. {own} run it; nothing is changed on devices.",
        ),
        "Remove the files",
        is_danger=True,
    )


_QUESTIONS: Mapping[str, Callable[[Site, NamedRelease], _Question]] = {
    "activate": _ask_activate,
    "withdraw": _ask_withdraw,
    "reinstate": _ask_reinstate,
    "remove": _ask_remove,
}


def _ask(action: str, site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    question = _QUESTIONS[action](site, release)
    title = f"{question.button}: {release.facts.version}"
    shown = _asked_by(asked, question, f"{release.url}/{action}", release.url)
    return page(site, asked, title, (element("h1", title), shown))


def _asked_by(
    asked: Asked, question: _Question, url: str, back_url: str, hidden: Mapping[str, str] = {}
) -> Node:
    box = check_box("Do it in spite of that", "force", "1") if question.doubts else None
    why = text_field("Why, for the record", "reason", maxlength=MOST_REASON, size=60)
    return (
        notes(sentences(question.doubts), "problem"),
        form(
            asked,
            url,
            [element("p", sentence) for sentence in question.sentences],
            element("p", why) if question.asks_why else None,
            element("p", box) if box else None,
            _buttons(question.button, back_url, question.is_danger),
            hidden=hidden,
        ),
    )


def _buttons(words: str, back_url: str, is_danger: bool) -> Html:
    return element(
        "p",
        element("button", words, class_="danger" if is_danger else "main"),
        " ",
        link(back_url, "Leave it as it is", class_="button"),
        class_="actions",
    )


def _do_activate(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    is_forced = asked.typed("force") == "1"
    activate(release.data_dir, release.facts.version, _unseen, is_forced)
    return _done(site, release.url)


def _do_withdraw(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    reason = parse_reason(" ".join(asked.typed("reason").split()))
    withdraw(release.data_dir, release.facts.version, reason, site.now_ms())
    return _done(site, release.url)


def _do_reinstate(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    reinstate(release.data_dir, release.facts.version)
    return _done(site, release.url)


def _do_remove(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    remove(release.data_dir, release.facts.version, site.now_ms(), _unseen)
    return _done(site, url_with("/releases", [("product", release.product or DEFAULT)]))


def _done(site: Site, url: str) -> Reply:
    site.changes.note("releases")
    return see_other(url)


def _unseen(_done: int, _size: int) -> None:
    """Take how far a hash is, which nobody sees."""


# Back to the previous target


def _previous(site: Site, name: str) -> tuple[NamedRelease, str | None]:
    """Return the release that a rollback goes to, and the target now."""
    data_dir = site.folder_of(name or DEFAULT)
    product = "" if data_dir == site.data_dir else name
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
    question = _Question(
        (
            f"{facts.version} becomes the target of the whole fleet again, in place of "
            f"{target or 'none'}: {others} that run something else are offered it as soon as they "
            "ask. Groups get back the targets that the last activation took from them.",
        ),
        "Go back",
        is_danger=True,
        doubts=tuple(doubts),
    )
    back_url = url_with("/releases", [("product", product or DEFAULT)])
    hidden = {"product": product or DEFAULT, "version": facts.version}
    title = f"Go back to {facts.version}"
    shown = _asked_by(asked, question, "/releases/rollback", back_url, hidden)
    return page(site, asked, title, (element("h1", title), shown))


def _do_rollback(site: Site, asked: Asked) -> Reply:
    release, _ = _previous(site, asked.typed("product"))
    if not same_version(release.facts.version, asked.typed("version")):
        raise NotHere(
            f"The previous target is {release.facts.version} by now: another change was made "
            "meanwhile. Look again.",
            HTTPStatus.CONFLICT,
        )
    rollback(release.data_dir, _unseen, asked.typed("force") == "1")
    return _done(site, release.url)


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
