"""What an action will do, said before it is done, and the button that does it. No I/O."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ota_server.operations.typed_values import MOST_REASON
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.pieces import check_box, form, link, notes, text_field
from ota_server.operator_port.sentences import sentences

FORCE_FIELD = "force"
# What commands say to do, which a form does by a tick.
FORCE_ADVICE = "; --force does it anyway"


class Question(NamedTuple):
    """What an action will do.

    Attributes:
        sentences: what it does, and to how many devices.
        button: the words of the button.
        doubts: what speaks against it: it is done only in spite of them.
        asks_why: a reason can be given.
    """

    sentences: tuple[Node, ...]
    button: str
    is_danger: bool = False
    doubts: tuple[str, ...] = ()
    asks_why: bool = False


def question_form(
    asked: Asked,
    question: Question,
    url: str,
    back_url: str,
    hidden: Mapping[str, str | Sequence[str]] = {},
) -> Node:
    """Return a question with its button, which sends `hidden` to `url`, and the way back."""
    if not asked.operator.may_act:
        said = [element("p", sentence) for sentence in question.sentences]
        return said, notes(sentences(question.doubts), "problem"), may_not_act("do it")
    box = check_box("Do it in spite of that", FORCE_FIELD, "1") if question.doubts else None
    why = text_field("Why, for the record", "reason", maxlength=MOST_REASON, size=60)
    return (
        notes(sentences(question.doubts), "problem"),
        form(
            asked,
            url,
            [element("p", sentence) for sentence in question.sentences],
            element("p", why) if question.asks_why else None,
            element("p", box) if box else None,
            button_row(question.button, back_url, question.is_danger),
            hidden=hidden,
        ),
    )


def button_row(words: str, back_url: str, is_danger: bool = False) -> Html:
    """Return the button of a form, and the way back."""
    return element(
        "p",
        element("button", words, class_="danger" if is_danger else "main"),
        " ",
        link(back_url, "Leave it as it is", class_="button"),
        class_="actions",
    )


def is_forced(asked: Asked) -> bool:
    """Return whether a form that was sent asks for it in spite of doubts."""
    return asked.typed(FORCE_FIELD) == "1"


def may_not_act(what: str) -> Html:
    """Return what stands in place of buttons for whoever may only read."""
    return element(
        "p", f"To {what}, ", link("/login", "sign in"), " by a token that may act.", class_="quiet"
    )
