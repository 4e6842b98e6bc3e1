"""`/metrics`: what a Prometheus reads. I/O."""

from collections.abc import Iterator
from http import HTTPStatus

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.operations.device_filter import Apart, DeviceFilter
from ota_server.operations.device_index import IndexAway
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.exposition import CONTENT_TYPE
from ota_server.operator_port.fleet_metrics import OTHER_VERSIONS
from ota_server.operator_port.metrics import metrics_text
from ota_server.operator_port.metrics_gather import gather_metrics
from ota_server.operator_port.metrics_input import FleetFigures
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import Site

_FIELDS = field_lines((("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store")))


def _metrics(site: Site, _asked: Asked) -> Reply:
    given = gather_metrics(site.data_dir, dict(_fleets(site)), site.now_ms(), _skipped(site))
    body = metrics_text(given).encode("utf-8")
    return Reply(HTTPStatus.OK, _FIELDS, body, content_length=len(body))


def _skipped(site: Site) -> int | None:
    """Return how many lines of the journal are no records; None: there is no index now."""
    try:
        return site.index.summary().bad_lines
    except IndexAway:
        return None


def _fleets(site: Site) -> Iterator[tuple[str, FleetFigures]]:
    """Yield the devices of each product; none while there is no index: all else is there."""
    for product in site.products:
        try:
            summary = site.index.summary(product)
            newest = site.index.page(DeviceFilter(product=product), "seen", True, limit=1).rows
        except IndexAway:
            return
        if summary.progress < 1:
            return
        yield (
            product,
            FleetFigures(
                summary.conditions,
                {**summary.versions, OTHER_VERSIONS: summary.other_versions},
                summary.as_of_ms,
                newest[0].seen_ms if newest else 0,
                summary.apart.get(Apart.PINNED, 0),
                summary.counted,
            ),
        )


ROUTES = (Route("GET", "/metrics", Access.READ, _metrics),)
