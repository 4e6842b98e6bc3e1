"""All routes of the operators' port, from the modules that answer them."""

from functools import partial

from ota_server.operator_port import (
    api,
    events,
    page_hold,
    page_rejected,
    sign_in,
    static_files,
    upload,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.routes import Route, RouteTable


def all_routes() -> RouteTable:
    """Return the routes."""
    files = [
        Route("GET", f"/static/{name}", Access.OPEN, partial(static_files.answer, name))
        for name in static_files.NAMES
    ]
    modules = (api, events, sign_in, upload, page_hold, page_rejected)
    return RouteTable((*files, *(route for module in modules for route in module.ROUTES)))
