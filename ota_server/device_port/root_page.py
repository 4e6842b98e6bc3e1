"""What a person gets who opens the port of devices in a browser. Pure."""

from http import HTTPStatus

from ota_server.httpd import reply
from ota_server.httpd.reply import Reply

_WHAT_THIS_IS = (
    "This is ota_server, from which devices get their firmware: they ask for /version.txt and "
    "/firmware.bin with the headers _br_mac_ and _br_fwv_."
)


def root_page(operators_url: str) -> Reply:
    """Return what this port is for, and where the page for operators is; "": there is none."""
    page = f" The page for operators is {operators_url}" if operators_url else ""
    return reply.text(HTTPStatus.OK, f"{_WHAT_THIS_IS}{page}\n")
