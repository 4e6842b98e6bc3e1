"""HTML, made of elements: whatever is not an element is text, and is escaped. Pure."""

from collections.abc import Iterable
from html import escape

_VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta"))


class Html(str):
    """Text that is markup already: only this module makes it from text."""

    __slots__ = ()


# What an element may hold: None and False are nothing, so that a condition can stand in a list.
Node = Html | str | int | float | None | bool | Iterable["Node"]


def shown(value: object) -> str:
    """Return text with an escape in place of each character that no one would see.

    Control characters and marks that turn the direction of text around could make one device look
    like another.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def html_of(node: Node) -> Html:
    """Return a node as markup."""
    if isinstance(node, Html):
        return node
    if node is None or isinstance(node, bool):
        return Html()
    if isinstance(node, str | int | float):
        return Html(escape(shown(node)))
    return Html("".join(map(html_of, node)))


def with_lines(text: str) -> Html:
    """Return text whose lines stay lines; all else that nobody would see is shown."""
    return Html("\n".join(map(html_of, text.split("\n"))))


def element(tag: str, /, *children: Node, **attributes: object) -> Html:
    """Return an element.

    Args:
        attributes: `class_` is class, `aria_label` is aria-label; None and False leave one out,
            True gives it no value.
    """
    said = "".join(_attribute(*each) for each in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{said}>")
    return Html(f"<{tag}{said}>{html_of(children)}</{tag}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(shown(value))}"'


def joined(separator: Node, nodes: Iterable[Node]) -> Html:
    """Return nodes with a separator between them."""
    return Html(html_of(separator).join(map(html_of, nodes)))
