"""What is done to many devices at once: those that were ticked, or all that match. I/O.

1. The table has a button for each action. It sends the filter and the ticked devices.
2. The preview asks for what the action needs, such as a version, and says how many devices it
   reaches. Nothing is changed yet.
3. The button of the preview does it. Which devices match is looked up again then; if there are
   more or fewer than were shown, by more than a few, the preview comes again.
"""

from collections.abc import Mapping
from dataclasses import replace

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations import bulk_edits
from ota_server.operations.bulk_edits import BulkAction, BulkChange, BulkPreview
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.typed_values import BadFields
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import (
    fields_of,
    product_field,
)
from ota_server.operator_port.frame import page, see_other
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.index_follows import await_shown
from ota_server.operator_port.page_devices_ask import questions
from ota_server.operator_port.page_devices_bar import (
    BUTTONS,
    ROLL_OUT,
    button_bar,
)
from ota_server.operator_port.page_devices_meant import (
    CHANGE_FIELDS,
    PREFIX,
    MeantDevices,
    hidden_fields,
    read_meant,
    read_wish,
)
from ota_server.operator_port.page_devices_reach import reach_sentences
from ota_server.operator_port.pieces import (
    form,
    link,
    notes,
    number,
    url_with,
    with_code,
)
from ota_server.operator_port.questions import Question, question_form
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site
from ota_server.system.hints import hints

_FEW_DEVICES, _FEW_SHARE = 5, 0.01


# Before it is done


def preview(site: Site, asked: Asked) -> Reply:
    """Return the page that asks for what an action needs, or says what it reaches.

    Raises:
        Malformed: no device was chosen, or the form cannot be read.
    """
    meant = read_meant(site, asked)
    if meant.action == ROLL_OUT and (url := _rollout_url_of(meant)):
        return see_other(url)
    return _asking(site, asked, meant)


def _rollout_url_of(meant: MeantDevices) -> str:
    """Return where a rollout to these devices begins, if they are a group or all; else ""."""
    fields = [("product", product_field(meant.product))]
    if not meant.is_all:
        return ""
    plain = DeviceFilter(product=meant.wanted.product)
    if meant.wanted == plain:
        return url_with("/rollouts/new", fields)
    if meant.wanted.group and meant.wanted == DeviceFilter(
        product=meant.wanted.product, group=meant.wanted.group
    ):
        return url_with("/rollouts/new", [*fields, ("group", meant.wanted.group)])
    return ""


def _asking(
    site: Site,
    asked: Asked,
    meant: MeantDevices,
    warning: str = "",
    problems: Mapping[str, str] = {},
) -> Reply:
    """Return the page that asks for what an action needs, or whether it is to be done."""
    title = dict(BUTTONS)[meant.action]
    change = None
    try:
        change = None if problems else read_wish(asked, meant)
        content = _confirmation(site, asked, meant, change, problems)
    except BadFields as problem:
        return _asking(site, asked, meant, warning, problem.problems)
    except (Refused, BadPolicy) as problem:
        text = hints.paste(str(problem), meant.product)
        warning, said = "" if warning == text else warning, with_code(text)
        doubts = {"is_forced": ""} if _can_be_forced(site, meant, change) else {}
        content = (
            element("p", said, class_="problem"),
            _questions(site, asked, meant, doubts),
        )
    head = element("h1", f"{title}: {count_of(len(meant.keys), 'device')}")
    return page(
        site, asked, title, (head, notes([warning] if warning else [], "note warn"), content)
    )


def _questions(site: Site, asked: Asked, meant: MeantDevices, problems: Mapping[str, str]) -> Html:
    """Return the form for what an action needs."""
    given = {name: asked.typed(PREFIX + name) for name in CHANGE_FIELDS}
    if meant.action == BulkAction.REMOVE and meant.wanted.group:
        given["group"] = given["group"] or meant.wanted.group
    fields = questions(site, meant.product, meant.action, given, problems, PREFIX)
    buttons = (
        element("button", "Show what it reaches", class_="main"),
        link(meant.back_url, "Leave it as it is", class_="button"),
    )
    return form(asked, "/devices/preview", fields, button_bar(buttons), hidden=hidden_fields(meant))


def _confirmation(
    site: Site,
    asked: Asked,
    meant: MeantDevices,
    change: BulkChange | None,
    problems: Mapping[str, str],
) -> Node:
    """Return what an action would do, and its button; what it needs, while that is not said.

    Raises:
        Refused, BadPolicy: it may not be done.
    """
    if change is None:
        return _questions(site, asked, meant, problems)
    folder = site.folder_of(meant.product)
    found = bulk_edits.preview(folder, change, meant.keys, _known(site, meant))
    warned = notes((hints.paste(each, meant.product) for each in found.warnings), "note warn")
    if not found.changing:
        url = _after(meant, change) if meant.action == ROLL_OUT else meant.back_url
        words = "Go on" if meant.action == ROLL_OUT else "Back to the devices"
        said = element("p", "There is nothing to change.")
        return said, warned, element("p", link(url, words, class_="button"))
    return warned, _button(site, asked, meant, change, found)


def _button(
    site: Site, asked: Asked, meant: MeantDevices, change: BulkChange, found: BulkPreview
) -> Node:
    sentences = tuple(reach_sentences(site, meant, change, found))
    hidden = hidden_fields(meant)
    for name in CHANGE_FIELDS:
        if asked.typed(PREFIX + name):
            hidden[PREFIX + name] = [asked.typed(PREFIX + name)]
    if meant.action == BulkAction.LABEL:
        hidden[f"{PREFIX}label"] = [change.label]
    hidden["expected"] = [str(len(meant.keys))]
    button = f"{dict(BUTTONS)[meant.action]}: {count_of(found.changing, 'device')}"
    question = Question(sentences, button, is_danger=meant.action == BulkAction.FORGET)
    return question_form(asked, question, "/devices/act", meant.back_url, hidden)


# Doing it


def _act(site: Site, asked: Asked) -> Reply:
    meant = read_meant(site, asked)
    expected = asked.typed("expected")
    if not (expected.isascii() and expected.isdigit() and len(expected) < 12):
        raise Malformed("expected: say how many devices it should reach")
    shown, now = int(expected), len(meant.keys)
    if abs(shown - now) > max(_FEW_DEVICES, _FEW_SHARE * shown):
        text = f"{count_of(shown, 'device')} matched when you looked; now it is {number(now)}."
        return _asking(site, asked, meant, text)
    change = read_wish(asked, meant)
    if change is None:
        return _asking(site, asked, meant)
    try:
        bulk_edits.apply(site.folder_of(meant.product), change, meant.keys)
    except (Refused, BadPolicy) as problem:
        return _asking(site, asked, meant, hints.paste(str(problem), meant.product))
    await_shown(site, change, meant.keys)
    return see_other(_after(meant, change))


def _after(meant: MeantDevices, change: BulkChange) -> str:
    """Return where somebody goes on when it is done."""
    if meant.action != ROLL_OUT:
        is_gone = meant.action == BulkAction.FORGET
        if meant.is_one and not is_gone:
            return meant.back_url
        return url_with("/devices", [*fields_of(meant.wanted), ("done", meant.action)])
    fields = [("product", product_field(meant.product)), ("group", change.group)]
    return url_with("/rollouts/new", fields)


def _can_be_forced(site: Site, meant: MeantDevices, change: BulkChange | None) -> bool:
    """Return whether what was refused may be done in spite of the doubt."""
    if change is None or change.is_forced:
        return False
    folder = site.folder_of(meant.product)
    try:
        bulk_edits.preview(folder, replace(change, is_forced=True), meant.keys, meant.keys)
    except (Refused, BadPolicy):
        return False
    return True


def _known(site: Site, meant: MeantDevices) -> frozenset[str]:
    """Return which of the devices are on record."""
    if meant.is_all:
        return frozenset(meant.keys)
    return frozenset(key for key in meant.keys if site.index.device(key) is not None)


ROUTES = (Route("POST", "/devices/act", Access.ACT, _act),)
