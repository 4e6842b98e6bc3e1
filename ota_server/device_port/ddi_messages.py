"""What devices and this server say to each other in hawkBit's DDI: paths in, JSON in and out. Pure.

The shape of each reply is hawkBit's, as far as SWUpdate, rauc-hawkbit-updater and Zephyr read it.
Some of them take nothing else: ids are strings; there is one chunk with one file; `download` and
`update` are always `forced`, since SWUpdate reports success for an update that it was told to skip.
"""

import json
import re
from typing import Any, NamedTuple

from ota_server.httpd.http1 import Request
from ota_server.model.action import Action
from ota_server.model.device import REPORTED_VERSION
from ota_server.model.identity import is_product_name, parse_identity
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.releases.image import Image

# Of feedback, which has some lines of a log; what became of the update is at its beginning.
MOST_BODY_BYTES = 64 * 1024
# Zephyr has a buffer of 300 bytes for a URL, and in earlier releases one of 200 bytes, with a zero,
# for the path of an image.
MOST_URL_BYTES, MOST_PATH_BYTES = 300, 199
_DEFAULT_TENANT = "default"
_PATH = re.compile(rb"/([A-Za-z0-9_\-]{1,32})/controller/v1/([^/]{1,192})(?:/(.*))?")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:")
# What devices call the version in their attributes.
_VERSION_NAMES = ("version", "sw_version", "firmware_version", "fw_version")
# SWUpdate's logs may have quotes in them that break its JSON; this is at its beginning.
_EXECUTION = re.compile(rb'"execution"\s*:\s*"([a-z]{1,16})"')
_FINISHED = re.compile(rb'"finished"\s*:\s*"([a-z]{1,16})"')
_WORD = re.compile(r"[a-z]{1,16}")
_MOST_DETAIL = 160
_MOST_DETAILS = 4


class DdiPath(NamedTuple):
    """A path of the DDI.

    Attributes:
        tenant, controller: as they are written there.
        product: the tenant's; None: it cannot be one.
        identity: the controller's; None: it is malformed.
        rest: what follows them, without a slash at either end.
    """

    tenant: str
    controller: str
    product: str | None
    identity: str | None
    rest: str


def parse_path(path: bytes) -> DdiPath | None:
    """Return the parts of a path of the DDI, or None if it is not one."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    tenant, controller = match[1].decode("ascii"), match[2].decode("latin-1")
    name = tenant.lower()
    is_product = is_product_name(name)
    product = "" if name == _DEFAULT_TENANT else name if is_product else None
    plain = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), match[2])
    identity = parse_identity(plain.decode("latin-1"))
    return DdiPath(tenant, controller, product, identity, (match[3] or b"").decode("latin-1"))


def most_body_bytes(request: Request) -> int:
    """Return how much of the body of a request is kept; 0: the DDI wants none there."""
    is_ours = request.method in ("POST", "PUT") and _PATH.fullmatch(request.path)
    return MOST_BODY_BYTES if is_ours else 0


class ActionFeedback(NamedTuple):
    """What a device says about an action. `detail` is printable ASCII, and short."""

    execution: str
    finished: str
    detail: str


def parse_feedback(body: bytes) -> ActionFeedback:
    """Read feedback. What is missing or of another kind is left empty: that is progress."""
    said = _object(body)
    if said is None:
        execution, finished = _EXECUTION.search(body), _FINISHED.search(body)
        return ActionFeedback(_found(execution), _found(finished), "")
    status = _dict(said.get("status"))
    finished_text = _dict(status.get("result")).get("finished")
    return ActionFeedback(
        _word(status.get("execution")), _word(finished_text), _detail(status.get("details"))
    )


def parse_version(body: bytes) -> str | None:
    """Return the version that a device reports among its attributes, or None."""
    said = _object(body)
    attributes = {} if said is None else _dict(said.get("data"))
    for name in _VERSION_NAMES:
        value = attributes.get(name)
        text = value.encode("utf-8", "replace") if isinstance(value, str) else b""
        if REPORTED_VERSION.fullmatch(text) and text != UNKNOWN_VERSION.encode():
            return text.decode("ascii")
    return None


def _object(body: bytes) -> dict[str, Any] | None:
    # Not `model.json_object`: SWUpdate sends line ends inside of strings.
    try:
        value = json.loads(body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _found(match: re.Match[bytes] | None) -> str:
    return "" if match is None else match[1].decode("ascii")


def _detail(value: object) -> str:
    texts = value if isinstance(value, list) else [value]
    words = " / ".join(each for each in texts[-_MOST_DETAILS:] if isinstance(each, str))
    plain = "".join(each if " " <= each <= "~" else " " for each in words[: 2 * _MOST_DETAIL])
    return " ".join(plain.split())[:_MOST_DETAIL]


class Hrefs(NamedTuple):
    """Makes the URLs of one device. `origin` is scheme and host, as the device reaches us."""

    origin: str
    path: DdiPath

    def to(self, rest: str) -> str:
        """Return the URL of something of the device."""
        controller = "".join(
            chr(each) if each in _SAFE or each == ord("%") else f"%{each:02X}"
            for each in self.path.controller.encode("latin-1")
        )
        # As hawkBit writes it: earlier releases of Zephyr ask for `default` and look for this.
        tenant = self.path.tenant if self.path.product else _DEFAULT_TENANT.upper()
        return f"{self.origin}/{tenant}/controller/v1/{controller}/{rest}"

    def to_image(self, sha256: str, file_name: str) -> str:
        """Return the URL of an image: of these bytes alone, whatever its release is called."""
        module = self.to(f"softwaremodules/{sha256}/artifacts/")
        path_bytes = len(module) - len(self.origin) + len(file_name)
        is_short = path_bytes <= MOST_PATH_BYTES
        is_short = is_short and len(f"{module}{file_name}.MD5SUM") <= MOST_URL_BYTES
        return module + (file_name if is_short else "image.swu")


def file_name_of(version: str) -> str:
    """Return how the file of a release is called. SWUpdate takes none without this ending."""
    return f"firmware_{version}.swu"


def poll_message(seconds: int, links: dict[str, str]) -> dict[str, Any]:
    """Return the reply to a poll, with the URLs of what the device should look at."""
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return {
        "config": {"polling": {"sleep": f"{hour:02}:{minute:02}:{second:02}"}},
        "_links": {name: {"href": url} for name, url in links.items()},
    }


def artifact(image: Image, file_name: str, hrefs: Hrefs) -> dict[str, Any]:
    """Return how an image is described. Zephyr reads `download-http` alone."""
    url = hrefs.to_image(image.sha256, file_name)
    urls = {"download": url, "md5sum": f"{url}.MD5SUM"}
    urls |= {f"{name}-http": each for name, each in urls.items()}
    return {
        "filename": file_name,
        "hashes": {"sha1": image.sha1, "md5": image.md5, "sha256": image.sha256},
        "size": image.size,
        "_links": {name: {"href": each} for name, each in urls.items()},
    }


def deployment(action: Action, product: str, described: dict[str, Any]) -> dict[str, Any]:
    """Return what a device should install. Zephyr wants the part to be called so."""
    chunk = {
        "part": "bApp",
        "version": action.image.version,
        "name": product or "firmware",
        "artifacts": [described],
    }
    forced = {"download": "forced", "update": "forced"}
    return {"id": str(action.id), "deployment": {**forced, "chunks": [chunk]}}


def cancel_order(action: Action) -> dict[str, Any]:
    """Return the order to cancel an action."""
    return {"id": str(action.id), "cancelAction": {"stopId": str(action.id)}}
