"""What is on record besides devices, by the API: audit log and rejected clients. I/O."""

from http import HTTPStatus

from ota_server.httpd.reply import Reply
from ota_server.journal.rejected import read_rejected
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
from ota_server.policy import audit
from ota_server.system.data_dir import log_dir

_USUAL_LIMIT = 100


def _audit(site: Site, given: Given) -> Reply:
    """Return entries, the newest first; a cursor is the number of an entry, from the oldest on."""
    folder = site.folder_of(given.query.get("product", DEFAULT))
    entries = audit.entries(log_dir(folder))
    place = read_place(given.query.get("cursor"), int)
    end = len(entries) if place is None else max(0, min(place, len(entries)))
    begin = max(0, end - given.query.get("limit", _USUAL_LIMIT))
    after = write_place(begin) if begin else None
    content = {"entries": entries[begin:end][::-1], "next": after}
    return reply(content, HTTPStatus.OK, *next_link(given, after))


def _rejected(site: Site, _given: Given) -> Reply:
    found = sorted(read_rejected(site.journal_dir), key=lambda each: str(each["time"]))
    return reply({"entries": found[::-1]})


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
