"""The page `/metrics`: what Prometheus reads, text format 0.0.4. Pure.

`metrics_gather` finds the input. docs/metrics.md says what each metric means.
"""

from collections.abc import Iterator

from ota_server.operator_port.exposition import MetricFamily, exposition
from ota_server.operator_port.fleet_metrics import fleet_families
from ota_server.operator_port.metrics_input import MetricsInput
from ota_server.operator_port.server_metrics import process_families, server_families


def metrics_text(given: MetricsInput) -> str:
    """Return all metrics as Prometheus reads them."""
    return exposition(metric_families(given))


def metric_families(given: MetricsInput) -> Iterator[MetricFamily]:
    """Yield all metrics; of a server that does not answer there are no figures."""
    yield from process_families(given)
    if given.server is not None:
        yield from server_families(given.server)
    yield from fleet_families(given.products)
