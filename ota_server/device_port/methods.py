"""Methods: what a request with another one than a path takes is answered. Reads no files."""

from http import HTTPStatus

from ota_server.httpd import reply
from ota_server.httpd.http1 import KNOWN_METHODS, Request
from ota_server.httpd.reply import Reply


def wrong_method(request: Request, *methods: str) -> Reply | None:
    """Return the answer to a request whose method is none of these, or None if it is one."""
    methods = methods or ("GET", "HEAD")
    if request.method in methods:
        return None
    if request.method in KNOWN_METHODS:
        return not_allowed(*methods)
    return reply.text(HTTPStatus.NOT_IMPLEMENTED, "Not Implemented")


def not_allowed(*methods: str) -> Reply:
    """Return the 405 that names the methods that a path takes."""
    allowed = ("Allow", ", ".join(methods or ("GET", "HEAD")))
    return reply.text(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", allowed)
