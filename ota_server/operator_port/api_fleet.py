"""Products, and how the fleet is, by the API. I/O."""

from http import HTTPStatus

from ota_server.httpd.reply import Reply
from ota_server.operations.product_facts import list_products
from ota_server.operator_port.api_operation import Given, Operation, Success, reply
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import Site


def _products(site: Site, _given: Given) -> Reply:
    products = [
        {
            "product": each.name,
            "target": each.target,
            "releases": each.releases,
            "devices": site.index.summary(each.name).total,
        }
        for each in list_products(site.data_dir, counts_devices=False)
    ]
    return reply({"products": products})


OPERATIONS = (
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
