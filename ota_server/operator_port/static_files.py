"""The style, the script, the icon: files of the package, which browsers may keep. I/O."""

from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply

if TYPE_CHECKING:
    from ota_server.operator_port.asked import Asked
    from ota_server.operator_port.site import Site

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
NAMES = tuple(_TYPES)


@cache
def url_of(name: str) -> str:
    """Return the URL of a file, which changes when the file does."""
    return f"/static/{name}?{sha256(_content(name)).hexdigest()[:12]}"


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


def answer(name: str, _site: "Site", _asked: "Asked") -> Reply:
    """Return one of the files."""
    body = _content(name)
    fields = (
        ("Content-Type", _TYPES[name]),
        ("Cache-Control", "public, max-age=31536000, immutable"),
    )
    return Reply(HTTPStatus.OK, field_lines(fields), body, content_length=len(body))
