"""All routes of the operators' port, from the modules that answer them. Pure."""

from functools import partial

from ota_server.operator_port import (
    api,
    events,
    metrics_page,
    page_audit,
    page_device,
    page_devices,
    page_groups,
    page_hold,
    page_overview,
    page_rejected,
    page_release,
    page_release_change,
    page_releases,
    page_rollout,
    page_rollout_change,
    page_rollout_new,
    page_rollouts,
    page_upload,
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
    modules = (
        *(api, events, metrics_page, sign_in, page_overview, page_devices, page_device),
        *(page_groups, upload, page_hold, page_rejected),
        *(page_audit, page_upload, page_releases, page_release_change, page_release),
        *(page_rollouts, page_rollout_new, page_rollout, page_rollout_change),
    )
    return RouteTable((*files, *(route for module in modules for route in module.ROUTES)))
