"""Operators: a server with a port for them, who asks there, and devices that they look at."""

import json
import re
import tempfile
import unittest
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.operations.token_edits import begin_login, create_token
from tests.support.client import Answer, Client, until
from tests.support.fleet import NEW, OLD, mac_of, write_images
from tests.support.pages import PageReader
from tests.support.server import Process

FORM_TYPE = "application/x-www-form-urlencoded"
Fields = Mapping[str, str | Sequence[str]]


def make_token(data_dir: Path, name: str = "ann", may_act: bool = True) -> str:
    """Put a token on record; return its secret."""
    return create_token(data_dir, name, may_act, None)[1]


class Operators:
    """Asks the operators' port, by a token or by a session of a browser.

    Attributes:
        token: that is sent; "": none.
        cookie: that is sent; "": nobody is signed in.
    """

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self.token = token
        self.cookie = ""

    def ask(
        self, method: str, path: str, body: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own; return the reply."""
        origin = f"127.0.0.1:{self.port}"
        head = {"Host": origin, "Accept": "text/html", "Connection": "close", **(fields or {})}
        if self.token:
            head.setdefault("Authorization", f"Bearer {self.token}")
        if self.cookie:
            head = {"Cookie": self.cookie, "Origin": f"http://{origin}", **head}
        if body:
            head["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        with Client(self.port) as client:
            client.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
            answer = client.answer(method)
            is_whole = "content-length" in answer.fields or method == "HEAD"
            if answer.status == 200 and not is_whole:
                content = client.read_all()
                if answer.fields.get("transfer-encoding") == "chunked":
                    content = unchunked(content)
                answer = answer._replace(body=content)
        return answer

    def get(self, path: str, **fields: str) -> Answer:
        """Return the reply to a GET."""
        return self.ask(
            "GET", path, fields={name.replace("_", "-"): v for name, v in fields.items()}
        )

    def page(self, path: str) -> PageReader:
        """Return a page; fails if it is none, or if its elements do not fit."""
        answer = self.get(path)
        assert answer.status == 200, (path, answer)
        assert answer.fields["content-type"] == "text/html; charset=utf-8", answer.head
        page = PageReader(answer.body.decode("utf-8"))
        assert not page.wrong, (path, page.wrong)
        return page

    def post(self, path: str, form: Fields) -> Answer:
        """Send a form, with the token of the session if somebody is signed in."""
        if self.cookie and "form_token" not in form:
            form = {"form_token": self.form_token(), **form}
        body = urlencode(form, doseq=True).encode("ascii")
        return self.ask("POST", path, body, {"Content-Type": FORM_TYPE})

    def json(self, method: str, path: str, content: object = None) -> tuple[int, Any]:
        """Send JSON, or nothing; return the status and what was answered."""
        fields = {"Accept": "application/json"}
        body = b""
        if content is not None:
            body = json.dumps(content).encode("utf-8")
            fields["Content-Type"] = "application/json"
        answer = self.ask(method, path, body, fields)
        return answer.status, json.loads(answer.body) if answer.body else None

    def sign_in(self, data_dir: Path, may_act: bool = True) -> None:
        """Sign in as a browser does, by the link of `token login`."""
        _, code = begin_login(data_dir, None, may_act)
        origin = {"Content-Type": FORM_TYPE, "Origin": f"http://127.0.0.1:{self.port}"}
        answer = self.ask("POST", "/login", urlencode({"code": code}).encode("ascii"), origin)
        assert answer.status == 303, answer
        self.cookie = answer.fields["set-cookie"].partition(";")[0]

    def form_token(self) -> str:
        """Return what forms of the session have to send."""
        match = re.search(rb'<meta name="form-token" content="([^"]+)"', self.get("/login").body)
        assert match is not None
        return match[1].decode("ascii")


def unchunked(content: bytes) -> bytes:
    """Return what was sent in chunks; fails if the rest is missing."""
    pieces = []
    while True:
        size, _, content = content.partition(b"\r\n")
        length = int(size, 16)
        assert content[length : length + 2] == b"\r\n", (size, content[:40])
        if not length:
            return b"".join(pieces)
        pieces.append(content[:length])
        content = content[length + 2 :]


class OperatorsCase(unittest.TestCase):
    """One server with a port for operators, and the devices on it, for all tests of a class.

    It has the releases v1.0.0 and v2.0.0, and v1.0.0 is the target. A class prepares its data
    directory by `prepare`, and makes its devices by `come`.

    Attributes:
        operators: asks by a token that may act.
    """

    ARGUMENTS: tuple[str, ...] = ()
    data_dir: Path
    server: Process
    operators: Operators

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.addClassCleanup(folder.cleanup)
        cls.data_dir = Path(folder.name) / "data"
        make_data_dir(cls.data_dir)
        cls.prepare()
        cls.server = Process(
            *("--data-dir", str(cls.data_dir), "--admin", "127.0.0.1:0", *cls.ARGUMENTS)
        )
        cls.addClassCleanup(cls.server.end)
        cls.operators = Operators(cls.server.admin_port, make_token(cls.data_dir))
        cls.come()

    @classmethod
    def prepare(cls) -> None:
        """Change the data directory before the server starts."""

    @classmethod
    def come(cls) -> None:
        """Have devices ask."""

    @classmethod
    def check_in(
        cls, devices: Mapping[str, str], path: str = "/version.txt", **fields: str
    ) -> list[Answer]:
        """Have devices ask for their version, each reporting one; return the replies.

        Args:
            devices: what each reports, by its MAC.
            path: that they ask for, such as that of a product.
        """
        return ask_all(cls.server.port, devices, path, **fields)

    @classmethod
    def await_devices(cls, count: int) -> None:
        """Wait until the index has so many devices, and all that they did is in it."""
        await_indexed(cls.data_dir, count)


def make_data_dir(data_dir: Path) -> None:
    """Make a data directory with two releases of which the old one is the target."""
    for name in ("version", "log"):
        (data_dir / name).mkdir(parents=True)
    # An image is served only when it is two seconds old, unless it came with its folder.
    images = data_dir / "images"
    write_images(images)
    images.rename(data_dir / "firmware")
    (data_dir / "version" / "version.txt").write_text(OLD)


def ask_all(
    port: int, devices: Mapping[str, str], path: str = "/version.txt", **fields: str
) -> list[Answer]:
    """Have devices ask on one connection, each reporting a version; return the replies."""
    replies = []
    with Client(port) as client:
        for mac, version in devices.items():
            client.request(path, {"_br_mac_": mac, "_br_fwv_": version, **fields})
            replies.append(client.answer())
    return replies


def some_devices(count: int, versions: Iterable[str] = (OLD, NEW)) -> dict[str, str]:
    """Return MACs with what each reports, the versions in turn."""
    listed = [*versions]
    return {mac_of(at): listed[at % len(listed)] for at in range(count)}


def await_indexed(data_dir: Path, count: int, seconds: float = 60.0) -> None:
    """Wait until the index of a data directory has so many devices, and all that they did."""
    found = until(lambda: _indexed(data_dir) == count, seconds, 0.05)
    assert found, _indexed(data_dir)


def _indexed(data_dir: Path) -> int:
    index = DeviceIndex(data_dir)
    try:
        summary = index.summary()
        return summary.total if summary.progress >= 1 else -1
    except IndexAway:
        return -1
    finally:
        index.close()
