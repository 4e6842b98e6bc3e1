"""Products, and how the fleet is, by the API. I/O."""

from http import HTTPStatus
from typing import Any

from ota_server.httpd.reply import Reply
from ota_server.model.timestamp import format_time
from ota_server.operations.device_filter import word_of
from ota_server.operations.device_index import FleetSummary
from ota_server.operations.fleet_overview import gatherers_of, overview
from ota_server.operations.product_facts import list_products
from ota_server.operations.status_fields import status_fields
from ota_server.operator_port.api_operation import Given, Operation, Success, reply
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import Site
from ota_server.policy.device_state import Condition


def _products(site: Site, _given: Given) -> Reply:
    products = [
        {
            "product": product_field(each.name),
            "target": each.target,
            "releases": each.releases,
            "devices": site.index.summary(each.name).total,
        }
        for each in list_products(site.data_dir, counts_devices=False)
    ]
    return reply({"products": products})


def _status(site: Site, _given: Given) -> Reply:
    found = overview(gatherers_of(site.data_dir), counts_devices=False)
    products = [
        {
            "product": product_field(product),
            **status_fields(status),
            "devices": _device_fields(site.index.summary(product)),
        }
        for product, status in found.items()
    ]
    return reply(
        {
            "time": format_time(site.now_ms()),
            "needs_person": any(each["needs_person"] for each in products),
            "products": products,
        }
    )


def _device_fields(summary: FleetSummary) -> dict[str, Any]:
    return {
        "total": summary.total,
        "conditions": {word_of(each): summary.conditions.get(each, 0) for each in Condition},
        "held_back_by": dict(summary.held_by),
        "versions": dict(summary.versions),
        "as_of": format_time(summary.as_of_ms),
        "index_progress": summary.progress,
    }


OPERATIONS = (
    Operation(
        "GET",
        "/status",
        Access.READ,
        "getStatus",
        "Show how each product is, and what needs a person",
        _status,
        Success(
            HTTPStatus.OK,
            "As `status --json` has it, but for states, which are one word.",
            reference("Status"),
        ),
    ),
    Operation(
        "GET",
        "/products",
        Access.READ,
        "listProducts",
        "List products",
        _products,
        Success(HTTPStatus.OK, "The default one is first.", reference("ProductList")),
    ),
)
