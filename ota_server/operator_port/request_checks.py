"""What can be said of a request without knowing any token: the checks 1 to 3, 5 and 6. Pure.

`authoriser` has the table of all checks.
"""

import hmac
from http import HTTPStatus

from ota_server.httpd.http1 import Request
from ota_server.operator_port.access import REALM, Access, Denied, Operator
from ota_server.operator_port.request_site import (
    SiteName,
    is_embedded_elsewhere,
    is_from_elsewhere,
    is_known_host,
    site_of,
)
from ota_server.operator_port.session_cookie import form_token_in

_SAFE_METHODS = frozenset(("GET", "HEAD"))
_FORWARDED = frozenset(
    (
        *(b"forwarded", b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-host"),
        *(b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server"),
    )
)


def may_change(request: Request) -> bool:
    """Return whether a request may change something, by its method."""
    return request.method not in _SAFE_METHODS


def is_forwarded(request: Request) -> bool:
    """Return whether a proxy may have sent a request for somebody else.

    nginx speaks HTTP/1.0 unless it is told otherwise, and then sends none of these fields.
    """
    return request.minor_version == 0 or not _FORWARDED.isdisjoint(request.fields)


def check_site(request: Request, origin: str, access: Access, names: frozenset[str]) -> None:
    """Refuse what a page of another site may have had a browser send.

    Args:
        origin: of the server, as its client sees it; "": it does not say.
        names: by which the server is known, in lower case.

    Raises:
        Denied: it is refused.
    """
    site = site_of(origin)
    if site is None or not is_known_host(site, names):
        host = origin.partition("://")[2][:200] or "nothing"
        raise Denied(
            HTTPStatus.FORBIDDEN,
            "Another name",
            f"This port is not known as {host}: use its address, or name it by --admin-name.",
        )
    fetch_site = _text(request, b"sec-fetch-site")
    if may_change(request):
        _check_origin(site, request, fetch_site)
    elif access is not Access.OPEN and is_embedded_elsewhere(
        fetch_site, _text(request, b"sec-fetch-mode")
    ):
        raise Denied(HTTPStatus.FORBIDDEN, "Another site", "A page of another site embeds this.")


def check_sent_by_page(request: Request) -> None:
    """Refuse what may change something, has a cookie, and does not say which page sent it.

    Raises:
        Denied: it is refused.
    """
    if (
        may_change(request)
        and request.get(b"origin") is None
        and request.get(b"sec-fetch-site") is None
    ):
        raise Denied(
            HTTPStatus.FORBIDDEN,
            "No Origin",
            "With a cookie, Origin has to say which page sent this; a program sends a token.",
        )


def check_may_act(operator: Operator) -> None:
    """Refuse who may only read.

    Raises:
        Denied: this one may only read.
    """
    if not operator.may_act:
        raise Denied(
            HTTPStatus.FORBIDDEN,
            "Not allowed to act",
            f"{operator.name} may only read; `token create NAME` makes a token that may act.",
            (("WWW-Authenticate", f'{REALM}, error="insufficient_scope"'),),
            has_commands=True,
        )


def check_form_token(operator: Operator, request: Request, given: str | None = None) -> None:
    """Refuse a form without the token of the session that sends it.

    Args:
        given: that a route has found in the body; None: look for it.

    Raises:
        Denied: it has none, or another one.
    """
    found = form_token_in(request) if given is None else given
    # As bytes: of text, compare_digest takes ASCII alone.
    if not hmac.compare_digest(found.encode("utf-8", "replace"), operator.form_token.encode()):
        raise Denied(
            HTTPStatus.FORBIDDEN,
            "An old form",
            "This form is not of your session; reload the page, and send it again.",
        )


def _check_origin(site: SiteName, request: Request, fetch_site: str | None) -> None:
    if is_from_elsewhere(site, _text(request, b"origin"), fetch_site):
        raise Denied(
            HTTPStatus.FORBIDDEN,
            "Another site",
            "A page of another site sent this; or a proxy in front of this port changed Host.",
        )


def _text(request: Request, name: bytes) -> str | None:
    value = request.get(name)
    return None if value is None else value.decode("latin-1")
