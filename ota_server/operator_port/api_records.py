"""What is on record besides devices, by the API: audit log and rejected clients. I/O."""

from http import HTTPStatus

from ota_server.httpd.reply import Reply
from ota_server.operations.audit_pages import audit_page, rejected_entries
from ota_server.operator_port.api_devices import LINK, PAGING, next_link
from ota_server.operator_port.api_operation import (
    Given,
    Operation,
    QueryField,
    Success,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.list_place import read_place, write_place
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import DEFAULT, Site

_USUAL_LIMIT = 100


def _audit(site: Site, given: Given) -> Reply:
    folder = site.folder_of(given.query.get("product", DEFAULT))
    limit, place = given.query.get("limit", _USUAL_LIMIT), given.query.get("cursor")
    found = audit_page(folder, limit, read_place(place, int))
    after = None if found.older is None else write_place(found.older)
    entries = [{**each.fields, "is_made": each.is_made} for each in found.entries]
    return reply({"entries": entries, "next": after}, HTTPStatus.OK, *next_link(given, after))


def _rejected(site: Site, _given: Given) -> Reply:
    return reply({"entries": [each.fields for each in rejected_entries(site.data_dir)]})


OPERATIONS = (
    Operation(
        "GET",
        "/audit",
        Access.READ,
        "listAudit",
        "List who changed what, the newest first",
        _audit,
        Success(HTTPStatus.OK, "A part of the log.", reference("AuditPage"), fields=LINK),
        query=(
            QueryField(
                "product", reference("ProductName"), "Of this product; of the default one else."
            ),
            *PAGING,
        ),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        "GET",
        "/rejected",
        Access.READ,
        "listRejected",
        "List the clients that were refused recently, the newest first",
        _rejected,
        Success(HTTPStatus.OK, "The newest 1,000 kinds.", reference("RejectedPage")),
    ),
)
