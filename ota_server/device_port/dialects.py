"""Families of devices: how each says who it is, and how it is told that there is nothing. Pure.

One table, `FAMILIES`: a new family is a row of it, and its tests. `caller.py` reads a request by
its row. The facts are from the sources of the clients; docs/devices/ has a page for each.
"""

import re
from enum import Enum
from typing import NamedTuple

from ota_server.httpd.http1 import Request
from ota_server.model.device import MAC_FIELD, VERSION_FIELD
from ota_server.model.updater import OTHER_FAMILY, PLAIN_FAMILY

FOTA_PATH = b"/esp32fota.json"
OWN_FIELDS = frozenset((MAC_FIELD, VERSION_FIELD))


# How Tasmota says its version: `14.1.0(release-tasmota32)`.
_WITH_VARIANT = re.compile(r"(v?[0-9]+(?:\.[0-9]+)+)\(([^()]+)\)")
# Images of it with less in them, which are never what a plug should stay on.
_SMALLER = ("minimal", "safeboot")


class NoUpdate(Enum):
    """How a family is told, by the answer to a request for the image, that there is none for it.

    NONE: it asks for the version first, so that this request is answered with the image, or with
        an error.
    NOT_MODIFIED, NO_CONTENT: 304, 204.
    NOT_FOUND: 404 with a short text. For those to whom each other answer is a success.
    """

    NONE = 0
    NOT_MODIFIED = 304
    NO_CONTENT = 204
    NOT_FOUND = 404


class Family(NamedTuple):
    """How the clients of a family speak. Field names are in lower case; b"": it has no such field.

    Attributes:
        field: a field of this name marks its requests; a prefix if it ends in a hyphen.
        agent: else the User-Agent begins so.
        marker: and the version has this text in it.
        identity_fields: the first of these that is there says which device it is.
        space_field: the bytes that are free for an image.
        sends_version: `mode` can be "version": it wants nothing but `x-version`.
        wants_sha256: it compares the image with `x-SHA256`.
    """

    name: str
    no_update: NoUpdate = NoUpdate.NONE
    field: bytes = b""
    agent: bytes = b""
    marker: bytes = b""
    identity_fields: tuple[bytes, ...] = ()
    version_field: bytes = b""
    mode_field: bytes = b""
    md5_field: bytes = b""
    sha256_field: bytes = b""
    space_field: bytes = b""
    sends_version: bool = False
    wants_sha256: bool = False


_ESP8266 = Family(
    "esp8266",
    NoUpdate.NOT_MODIFIED,
    field=b"x-esp8266-",
    agent=b"ESP8266-http-Update",
    identity_fields=(b"x-esp8266-sta-mac",),
    version_field=b"x-esp8266-version",
    mode_field=b"x-esp8266-mode",
    md5_field=b"x-esp8266-sketch-md5",
    space_field=b"x-esp8266-free-space",
    sends_version=True,
)
_ESP32 = Family(
    "esp32",
    NoUpdate.NOT_MODIFIED,
    field=b"x-esp32-",
    agent=b"ESP32-http-Update",
    # Old releases of the core send only the first; chips without Wi-Fi only the second.
    identity_fields=(b"x-esp32-sta-mac", b"x-esp32-base-mac"),
    version_field=b"x-esp32-version",
    mode_field=b"x-esp32-mode",
    md5_field=b"x-esp32-sketch-md5",
    sha256_field=b"x-esp32-sketch-sha256",
    space_field=b"x-esp32-free-space",
    wants_sha256=True,
)
BR = Family(PLAIN_FAMILY)
OTHER = Family(OTHER_FAMILY)
# hawkBit's DDI: told by its paths (`ddi.py`).
HAWKBIT = Family("hawkbit")
# The first row that fits is taken.
FAMILIES = (
    # Tasmota takes 304 for success and restarts. Its updaters are those of the next two rows, and
    # only the parentheses in its version tell it apart: `14.1.0(release-tasmota32)`.
    _ESP8266._replace(name="tasmota", no_update=NoUpdate.NOT_FOUND, marker=b"("),
    _ESP32._replace(name="tasmota", no_update=NoUpdate.NOT_FOUND, marker=b"("),
    _ESP8266,
    _ESP32,
    Family(
        "pico",
        NoUpdate.NOT_MODIFIED,
        field=b"x-pico-",
        agent=b"Pico-HTTP-Update",
        identity_fields=(b"x-pico-sta-mac",),
        version_field=b"x-pico-version",
        mode_field=b"x-pico-mode",
    ),
    Family(
        "mongoose",
        NoUpdate.NOT_MODIFIED,
        field=b"x-mgos-device-id",
        identity_fields=(b"x-mgos-device-id",),
        version_field=b"x-mgos-fw-version",
    ),
    Family(
        "rauc",
        NoUpdate.NO_CONTENT,
        field=b"rauc-machine-id",
        agent=b"rauc/",
        identity_fields=(b"rauc-machine-id",),
        version_field=b"rauc-system-version",
    ),
    Family("esp-idf", NoUpdate.NOT_MODIFIED, agent=b"ESP32 HTTP Client/"),
    Family("esphome", agent=b"ESPHome/"),
    Family("swupdate", agent=b"libcurl-agent/"),
    Family("mender", agent=b"Go-http-client/"),
    Family("curl", agent=b"curl/"),
    Family("wget", agent=b"Wget/"),
    Family("aria2", agent=b"aria2/"),
)
# Clients that say nothing of themselves, by what only they ask for.
BY_PATH = {FOTA_PATH: Family("esp32fota"), b"/version": Family("micropython")}


# What the names of fields, each in a line of its own, have in them if a request is of a family.
_MARKS = tuple(
    (row, b"\n" + row.field + (b"" if row.field.endswith(b"-") else b"\n")) for row in FAMILIES
)


def family_of(request: Request, path: bytes) -> Family:
    """Return the family of a client that asks for `path`.

    What has both of our headers speaks our protocol, whatever program sends them, unless it has the
    headers by which a family says who it is too.
    """
    fields = request.fields
    is_ours = fields.keys() >= OWN_FIELDS
    agent = fields.get(b"user-agent", b"")
    names = b"\n" + b"\n".join(fields) + b"\n"
    for family, mark in _MARKS:
        if mark not in names and not (family.agent and agent.startswith(family.agent)):
            continue
        if is_ours and not any(name in fields for name in family.identity_fields):
            return BR
        if family.marker in fields.get(family.version_field, b""):
            return family
    return BR if is_ours else BY_PATH.get(path, OTHER)


def without_variant(version: str) -> str:
    """Return what Tasmota calls `14.1.0(release-sensors)` as the release is called: `14.1.0`."""
    match = _WITH_VARIANT.fullmatch(version)
    is_whole = match is not None and not any(name in match[2] for name in _SMALLER)
    return match[1] if match is not None and is_whole else version
