"""What all pages have in common: the head, the ways to other pages, what is on hold. I/O."""

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, Node, element, html_of
from ota_server.operator_port.pieces import form_token, notes
from ota_server.operator_port.sentences import capitalised, sentences, with_utc
from ota_server.operator_port.site import Site
from ota_server.operator_port.static_files import url_of
from ota_server.policy.hold import hold_lines
from ota_server.system.hints import hints

_PAGES = (
    ("/", "Overview"),
    ("/devices", "Devices"),
    ("/groups", "Groups"),
    ("/releases", "Releases"),
    ("/rollouts", "Rollouts"),
    ("/rejected", "Rejected"),
    ("/audit", "Audit"),
    ("/hold", "Hold"),
)
_FIELDS = field_lines(
    (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        # One URL is a whole page, or what is inside <main> for the script.
        ("Vary", "X-Fragment"),
    )
)


def page(
    site: Site,
    asked: Asked,
    title: str,
    content: Node,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    is_open: bool = False,
) -> Reply:
    """Return a page, or what is inside its <main> if the script asks for that.

    Args:
        is_open: strangers may see it: it says nothing about the fleet.
    """
    if not is_open:
        content = (_held(site), _left(site, asked), content)
    if asked.wants_fragment:
        whole = html_of(content)
    else:
        whole = Html("<!doctype html>\n" + _document(asked, title, content) + "\n")
    body = whole.encode("utf-8")
    return Reply(status, _FIELDS, body, content_length=len(body))


def see_other(url: str) -> Reply:
    """Return a 303: what a form has done is shown by another page, which can be reloaded."""
    return Reply(
        HTTPStatus.SEE_OTHER, field_lines((("Location", url), ("Cache-Control", "no-store")))
    )


def acted(
    site: Site, asked: Asked, url: str, warnings: Iterable[str] = (), product: str = ""
) -> Reply:
    """Return a 303 after an action; the page behind it has a note for each warning.

    Args:
        warnings: as commands print them, of this product.
    """
    said = [hints.paste(each, product) for each in warnings]
    site.left_notes.leave(asked.operator, urlsplit(url).path, sentences(said))
    return see_other(url)


def _left(site: Site, asked: Asked) -> Html | None:
    """Return the warnings of the action that has led to this page."""
    if asked.wants_fragment or asked.request.method == "HEAD":
        return None  # a fragment renews parts of a page that has them already; HEAD shows nothing
    left = site.left_notes.take(asked.operator, _path(asked))
    return element("div", notes(left, "note warn"), id="left", role="status") if left else None


def _path(asked: Asked) -> str:
    return asked.request.path.decode("latin-1")


def _document(asked: Asked, title: str, content: Node) -> Html:
    head = (
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="form-token", content=asked.operator.form_token or None),
        element("title", f"{title} · ota_server"),
        element("link", rel="icon", href=url_of("icon.svg"), type="image/svg+xml"),
        element("link", rel="stylesheet", href=url_of("page.css")),
        element("script", src=url_of("page.js"), defer=True),
    )
    body = (
        element("a", "To the content", href="#main", class_="skip"),
        element("header", _ways(asked), _who(asked), class_="top"),
        element("main", content, id="main", tabindex="-1", data_seen=asked.last_change),
        element("p", id="said", role="status", class_="said"),
    )
    return element("html", element("head", *head), element("body", *body), lang="en")


def _held(site: Site) -> Html | None:
    """Return what is on hold; None: nothing."""
    lines = hold_lines(site.data_dir)
    if not lines:
        return None
    # Without the command that ends it: the page of the hold has a button for that.
    texts = [line.rpartition("; ")[0] for line in lines]
    said = [element("p", capitalised(with_utc(text))) for text in texts]
    more = element("p", element("a", "The hold, and how to end it", href="/hold"))
    return element("div", said, more, class_="held", role="alert")


def _ways(asked: Asked) -> Html:
    """Return the links to the pages; the one that is shown is marked."""
    path = _path(asked)
    if path.startswith("/uploads/"):
        path = "/releases"

    def link(url: str, name: str) -> Html:
        is_here = path == url or (url != "/" and path.startswith(f"{url}/"))
        return element("a", name, href=url, aria_current="page" if is_here else None)

    return element("nav", [link(*each) for each in _PAGES], aria_label="Pages")


def _who(asked: Asked) -> Html:
    operator = asked.operator
    if not operator.is_session:
        return element("a", "Sign in", href="/login", class_="who")
    return element(
        "form",
        form_token(asked),
        element("span", operator.name, None if operator.may_act else " (may only look)"),
        " ",
        element("button", "Sign out", class_="plain"),
        method="post",
        action="/logout",
        class_="who",
    )
