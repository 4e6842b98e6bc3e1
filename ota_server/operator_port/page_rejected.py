"""/rejected: who was refused, and why. I/O.

A device without a valid identity is recorded nowhere else.
"""

from ota_server.httpd.reply import Reply
from ota_server.journal.rejected import MAX_ENTRIES
from ota_server.model.quantity import count_of
from ota_server.operations.audit_pages import RejectedEntry, rejected_entries
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Node, element
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import Heading, live, number, table
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site

_HEADINGS = (
    Heading("Why"),
    Heading("Address"),
    Heading("MAC"),
    Heading("Times", is_number=True),
    Heading("Last"),
    Heading("First"),
)


def _show(site: Site, asked: Asked) -> Reply:
    text = asked.one("text").strip()
    found = rejected_entries(site.data_dir)
    shown = [each for each in found if _holds(each, text)]
    now_ms = site.now_ms()
    content = (
        element("h1", "Rejected"),
        element(
            "p",
            "Clients that were refused recently: they said no valid MAC address or version, asked "
            f"for what is not there, or sent no HTTP. The newest {MAX_ENTRIES:,} kinds are kept.",
        ),
        _search(text),
        live(
            "rejected",
            "rejected",
            element("p", _in_words(len(shown), len(found), text), class_="quiet"),
            table(_HEADINGS, [_row(each, now_ms) for each in shown], "Nobody was refused."),
        ),
    )
    return page(site, asked, "Rejected", content)


def _holds(entry: RejectedEntry, text: str) -> bool:
    said = (entry.reason, entry.address, entry.mac or "")
    return any(text.casefold() in each.casefold() for each in said)


def _in_words(shown: int, found: int, text: str) -> str:
    kinds = count_of(found, "kind")
    return f"{number(shown)} of {kinds}" if text else kinds


def _search(text: str) -> Node:
    field = element("input", type="search", name="text", value=text or None)
    return element(
        "form",
        element("label", "Why, address or MAC", field),
        element("button", "Filter"),
        element("a", "Show all", href="/rejected", class_="button") if text else None,
        class_="filters",
        role="search",
    )


def _row(entry: RejectedEntry, now_ms: int) -> tuple[Node, ...]:
    return (
        entry.reason,
        entry.address,
        entry.mac or "-",
        number(entry.requests),
        time_of(entry.time, now_ms),
        time_of(entry.first_time, now_ms),
    )


ROUTES = (Route("GET", "/rejected", Access.READ, _show),)
