"""POST /releases/upload: an image arrives, and waits to be published. I/O.

By script the file is the whole body, with its name in the query and the form's token in a header.
Without script it is a form of two parts, the token first. Either way it goes to the disk piece by
piece; the answer names the page that shows what it is (`page_upload`).
"""

from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.httpd.taken import TakenConnection
from ota_server.model.refusal import Refused
from ota_server.operations.uploads import Upload
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import see_other
from ota_server.operator_port.multipart import FormWithFile, boundary_of
from ota_server.operator_port.problems import json_reply, wants_page
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.operator_port.statuses import answered_by
from ota_server.system.data_dir import product_at

_PIECE_BYTES = 256 * 1024


class RequestBody:
    """The body of a request, as it arrives."""

    def __init__(self, taken: TakenConnection, length: int) -> None:
        self._taken = taken
        self._left = length

    def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        if not self._left:
            return b""
        piece = self._taken.receive(min(self._left, _PIECE_BYTES))
        self._left -= len(piece)
        return piece

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it."""
        while piece := self.receive():
            yield piece


def upload_url(upload: Upload) -> str:
    """Return the page of an image that has arrived."""
    return f"/uploads/{product_at(upload.data_dir) or DEFAULT}/{upload.id}"


def _receive(site: Site, asked: Asked) -> Reply:
    """Have the body read.

    Raises:
        TakesOver: always, unless the request is wrong as it is.
    """
    data_dir = site.folder_of(asked.one("product", DEFAULT))
    if not asked.request.content_length:
        raise Malformed("The image has to be the body of the request.")
    raise answered_by(site, asked, partial(_take, site, asked, data_dir))


def _take(site: Site, asked: Asked, data_dir: Path, taken: TakenConnection) -> Reply:
    request = asked.request
    body = RequestBody(taken, request.content_length)
    boundary = boundary_of(request.get(b"content-type") or b"")
    name, pieces, token = asked.one("name"), body.pieces, None
    if boundary is not None:
        form = FormWithFile(boundary, body.receive)
        form.read_fields()
        name, pieces, token = form.file_name, form.pieces, form.fields.get("form_token", "")
    site.authoriser.operator(request, asked.peer, Access.ACT, token)
    upload = site.uploads.receive(data_dir, name, request.content_length, pieces)
    if not upload.size:
        site.uploads.discard(upload.id)
        raise Refused("The file is empty: choose the file of a build.")
    url = upload_url(upload)
    if wants_page(asked):
        return see_other(url)
    said = {"id": upload.id, "page": url, "name": upload.name, "size": upload.size}
    return json_reply(HTTPStatus.CREATED, said, ("Location", url))


ROUTES = (Route("POST", "/releases/upload", Access.ACT, _receive, takes_body=True, asks_who=True),)
