"""Signing in by the link that `token login` prints, and signing out. I/O."""

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import page, see_other
from ota_server.operator_port.html import Node, element
from ota_server.operator_port.pieces import with_code
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site
from ota_server.system.hints import hints


def _show(site: Site, asked: Asked) -> Reply:
    """Show the button that signs in: to follow a link changes nothing, who presses it does."""
    content: Node
    code = asked.one("code")
    if code:
        content = element(
            "form",
            element("input", type="hidden", name="code", value=code),
            element("p", "This link works once, within five minutes after it was printed."),
            element("button", "Sign in", class_="main"),
            method="post",
            action="/login",
        )
    else:
        content = (
            element("p", "To act on the fleet, print a link that signs you in, and open it:"),
            element("pre", hints.paste("`token login`").strip("`")),
            element(
                "p",
                with_code(hints.paste("`token login NAME` is for the holder of a token; ")),
                with_code(hints.paste("`token create NAME` makes one.")),
                class_="quiet",
            ),
        )
    return page(site, asked, "Sign in", (element("h1", "Sign in"), content), is_open=True)


def _sign_in(site: Site, asked: Asked) -> Reply:
    session = site.authoriser.begin_session(asked.request, asked.peer, asked.typed("code"))
    answer = see_other("/")
    answer.fields += field_lines((("Set-Cookie", session.cookie),))
    return answer


def _sign_out(site: Site, asked: Asked) -> Reply:
    cookie = site.authoriser.end_session(asked.request, asked.peer)
    answer = see_other("/")
    answer.fields += field_lines((("Set-Cookie", cookie),))
    return answer


ROUTES = (
    Route("GET", "/login", Access.OPEN, _show),
    Route("POST", "/login", Access.OPEN, _sign_in),
    Route("POST", "/logout", Access.READ, _sign_out),
)
