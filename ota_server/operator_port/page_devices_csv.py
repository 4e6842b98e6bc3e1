"""All devices that match as CSV, for a spreadsheet: sent row by row, however many there are. I/O.

The table may change while it is sent; each device is in it once all the same. To a client that
speaks HTTP/1.1 it is sent in chunks, so that it notices when the rest is missing.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.httpd.taken import ConnectionEnds, TakenConnection, TakesOver
from ota_server.model.spreadsheet import csv_line, never_a_number
from ota_server.model.timestamp import format_second
from ota_server.operations.device_index import IndexAway, IndexedDevice
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.device_query import DeviceListing, read_listing
from ota_server.operator_port.html import shown as visible
from ota_server.operator_port.page_devices_columns import (
    COLUMNS,
    DeviceColumn,
    columns_that_fit,
)
from ota_server.operator_port.problems import with_safe_fields
from ota_server.operator_port.site import Site

# The first part comes soon; for each of the others the index may have to be read as a whole.
_FIRST_ROWS, _MORE_ROWS = 1000, 10_000
# Without it a spreadsheet may take the rest for another encoding than UTF-8.
_MARK = b"\xef\xbb\xbf"


def answer(site: Site, asked: Asked) -> Reply:
    """Send the table.

    Raises:
        TakesOver: always, unless it is refused.
        Malformed: the query cannot be read.
        IndexAway: there is no index now.
    """
    listing = read_listing(asked.query)._replace(cursor=None)
    parts = _parts(site, listing)
    first = next(parts)
    shown = listing.columns or columns_that_fit(listing.wanted, first, len(site.products) > 1)
    date = format_second(site.now_ms())[:10]
    fields = [
        ("Content-Type", "text/csv; charset=utf-8; header=present"),
        ("Content-Disposition", f'attachment; filename="devices-{date}.csv"'),
        ("Cache-Control", "no-store"),
    ]
    minor_version = asked.request.minor_version
    if minor_version:
        fields.append(("Transfer-Encoding", "chunked"))
    head = with_safe_fields(Reply(HTTPStatus.OK, field_lines(fields), content_length=None))

    def talk(taken: TakenConnection) -> None:
        taken.reply(head, minor_version)
        if asked.request.method == "HEAD":
            return
        send = partial(_send_chunk, taken) if minor_version else taken.send
        titles = [COLUMNS[name].field for name in shown]
        send(_MARK + csv_line(titles).encode("ascii") + _lines(first, shown))
        try:
            for content in _further(site, parts, shown):
                send(content)
        except IndexAway as problem:
            # Half of it is sent: only the end of the connection can say that the rest is missing.
            raise ConnectionEnds("the index of devices is made again") from problem
        if minor_version:
            taken.send(b"0\r\n\r\n")

    raise TakesOver(talk)


def _parts(site: Site, listing: DeviceListing) -> Iterator[Sequence[IndexedDevice]]:
    """Yield all rows of a list, part by part; the first part may be empty."""
    asked_for = (listing.wanted, listing.sort, listing.descending)
    found = site.index.page(*asked_for, None, _FIRST_ROWS)
    yield found.rows
    while found.next is not None:
        found = site.index.page(*asked_for, found.next, _MORE_ROWS)
        yield found.rows


def _further(
    site: Site, parts: Iterator[Sequence[IndexedDevice]], shown: Sequence[str]
) -> Iterator[bytes]:
    """Yield the lines of further parts; so many sheets are made at once that pages stay quick."""
    while True:
        with site.sheet_turns:
            rows = next(parts, None)
            content = b"" if rows is None else _lines(rows, shown)
        if rows is None:
            return
        yield content


def _lines(rows: Sequence[IndexedDevice], shown: Sequence[str]) -> bytes:
    columns = [COLUMNS[name] for name in shown]
    cells = ([_cell(each, row) for each in columns] for row in rows)
    return "".join(map(csv_line, cells)).encode("utf-8")


def _cell(column: DeviceColumn, row: IndexedDevice) -> str:
    value = column.value(row)
    return value if column.is_time else never_a_number(visible(value))


def _send_chunk(taken: TakenConnection, content: bytes) -> None:
    if content:  # an empty chunk is the end
        taken.send(b"%x\r\n%b\r\n" % (len(content), content))
