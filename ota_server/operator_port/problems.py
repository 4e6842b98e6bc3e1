"""Errors of the operators' port: a problem (RFC 9457) for programs, a page for people. Pure."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.operator_port.api_words import in_api_words
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, element
from ota_server.operator_port.pieces import link, with_code

if TYPE_CHECKING:
    from ota_server.operator_port.site import Site

Fields = Sequence[tuple[str, str]]

# Whatever a device managed to get into a page could load nothing, send nothing and run nothing.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFE = field_lines(
    (
        ("Content-Security-Policy", _POLICY),
        ("X-Content-Type-Options", "nosniff"),
        # Not `no-referrer`: with that a browser says `Origin: null` where it sends a form.
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    )
)


class Problem(Exception):
    """A request that is not answered as it was meant.

    Attributes:
        detail: what is wrong and what to do, in sentences.
        fields: of the reply.
        title: the kind of problem; that of the status, if nothing else is said.
        errors: the parts of the request that are wrong, for programs.
        is_of_sign_in: to sign in, or by another token, would do.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        fields: Fields = (),
        title: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        is_of_sign_in: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
        self.title = title or status.phrase
        self.errors = errors
        self.is_of_sign_in = is_of_sign_in


def with_safe_fields(answer: Reply) -> Reply:
    """Return a reply with what tells a browser to be careful."""
    answer.fields += _SAFE
    return answer


def json_reply(
    status: HTTPStatus,
    content: object,
    *fields: tuple[str, str],
    kind: str = "application/json",
) -> Reply:
    """Return a reply of JSON."""
    body = json.dumps(content).encode("ascii") + b"\n"
    lines = field_lines((("Content-Type", kind), ("Cache-Control", "no-store"), *fields))
    return Reply(status, lines, body, content_length=len(body))


def problem_reply(site: "Site", asked: Asked, problem: Problem) -> Reply:
    """Return the reply of a problem: JSON for programs, else a page."""
    if not wants_page(asked):
        said: dict[str, object] = {
            "type": "about:blank",
            "title": problem.title,
            "status": problem.status,
            "detail": _for_program(asked, problem.detail),
        }
        if problem.errors:
            said["errors"] = [
                {**each, "detail": _for_program(asked, each["detail"])} for each in problem.errors
            ]
        kind = "application/problem+json"
        return json_reply(problem.status, said, *problem.fields, kind=kind)
    content = (
        element("h1", problem.title),
        element("p", with_code(problem.detail), class_="problem"),
        element("p", link("/login", "Sign in")) if problem.is_of_sign_in else None,
        _way_back(asked),
    )
    answer = page(site, asked, problem.title, content, status=problem.status, is_open=True)
    answer.fields += field_lines(problem.fields)
    return answer


def _for_program(asked: Asked, text: str) -> str:
    path = asked.request.path
    return in_api_words(text, path) if path.startswith(b"/api/") else text


def _way_back(asked: Asked) -> Html | None:
    """Return a link to the page that somebody comes from; None: it is not one of these."""
    try:
        before = urlsplit((asked.request.get(b"referer") or b"").decode("ascii"))
    except ValueError:
        return None
    host = (asked.request.get(b"host") or b"").decode("latin-1")
    # A path that begins with two slashes would be the name of a host.
    if before.netloc != host or not before.path.startswith("/") or before.path.startswith("//"):
        return None
    url = urlunsplit(("", "", before.path, before.query, ""))
    return element("p", element("a", "Back to the page before", href=url))


def wants_page(asked: Asked) -> bool:
    """Return whether somebody looks at it in a browser."""
    path, accept = asked.request.path, asked.request.get(b"accept") or b""
    return not path.startswith((b"/api/", b"/metrics")) and b"text/html" in accept
