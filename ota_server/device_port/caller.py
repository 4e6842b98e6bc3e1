"""What a request says about its device: which one it is, what it runs, and what it wants. Pure.

A request can say in several ways which device sent it. The first that is there counts:

1. `_br_mac_`;
2. the headers of its family;
3. the user name of Basic authentication (RFC 7617), if that is a MAC address;
4. the path, `/d/<mac>/<version>/…`;
5. the query of esp32FOTA, `?id=`.

Two that disagree are refused, since one of them is wrong. What the device runs is said in as many
ways; "-" stands for a version that it does not say.
"""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator
from typing import NamedTuple

from ota_server.device_port.dialects import BR, FAMILIES, FOTA_PATH, OWN_FIELDS, Family, family_of
from ota_server.httpd.http1 import Request
from ota_server.model.device import (
    MAC_FIELD,
    REPORTED_VERSION,
    VERSION_FIELD,
    Report,
    Unidentified,
    single,
)
from ota_server.model.identity import device_key, parse_identity, parse_mac
from ota_server.model.updater import Updater
from ota_server.model.version import UNKNOWN_VERSION

# Of `Caller.mode`: all others want a file system.
FIRMWARE_MODES = ("", "sketch")
_AUTHORIZATION = b"authorization"
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]{1,400}={0,2})")
_DEVICE_PATH = re.compile(rb"/d/([^/]{1,64})/([^/]{1,64})(/.*)")
# getEfuseMac() of the ESP32's core: the MAC as a little-endian number, in decimal digits.
_FOTA_QUERY = re.compile(rb"(?:.*&)?id=([0-9]{1,15})(?:&.*)?")
_MAC_CHARACTERS = 17
# For each family that says in fields of its own who it is, those of all the others.
_IDENTITY_FIELDS_OF_OTHERS = {
    row.identity_fields: tuple(
        dict.fromkeys(
            name
            for other in FAMILIES
            for name in other.identity_fields
            if name not in row.identity_fields
        )
    )
    for row in FAMILIES
    if row.identity_fields
}
_NUMBER = re.compile(rb"[0-9]{1,12}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Caller(NamedTuple):
    """What a request says about its device.

    Attributes:
        path: what it asks for, without the part that says who it is.
        mode: what kind of image it wants, in lower case; "": its firmware.
        sketch_md5, sketch_sha256: of the image that it runs, in lower case; "": it does not say.
    """

    report: Report
    family: Family
    path: bytes
    mode: str = ""
    sketch_md5: str = ""
    sketch_sha256: str = ""


class _Claim(NamedTuple):
    """One way in which a request says who its device is. `name` is for messages."""

    name: str
    identity: str


def caller_of(request: Request, product: str = "", path: bytes | None = None) -> Caller:
    """Read what a request says about its device.

    Args:
        product: whose device it is.
        path: what it asks for there; None: as the request has it.

    Raises:
        Unidentified: it says nothing, or something that is malformed, sent twice or contradictory.
    """
    path = request.path if path is None else path
    if request.fields.keys() == OWN_FIELDS and not path.startswith(b"/d/") and path != FOTA_PATH:
        # As `read_common_image` leaves it: nothing else can say who it is. This saves a download
        # a tenth of its time.
        said = _claim(MAC_FIELD.decode(), single(MAC_FIELD, request.fields, request.repeated))
        version = _version(request, BR, None)
        return Caller(Report(device_key(product, said.identity), version), BR, path)
    in_path = _DEVICE_PATH.fullmatch(path) if path.startswith(b"/d/") else None
    path = path if in_path is None else in_path[3]
    family = family_of(request, path)
    claims = list(_claims(request, family, in_path, path))
    if not claims:
        raise _says_nothing(request)
    first = claims[0]
    for other in claims[1:]:
        if other.identity != first.identity:
            raise Unidentified(
                f"{first.name}, {other.name}",
                "disagree",
                f"{first.identity} and {other.identity}".encode(),
            )
    return _caller(request, family, in_path, path, device_key(product, first.identity))


def nameless_caller(request: Request, path: bytes) -> Caller:
    """Read what a client says that does not say which device it is.

    Raises:
        Unidentified: its version is malformed, or its mode sent twice.
    """
    return _caller(request, family_of(request, path), None, path, "")


def _caller(
    request: Request, family: Family, in_path: re.Match[bytes] | None, path: bytes, key: str
) -> Caller:
    if family.mode_field in request.repeated:
        raise Unidentified(family.mode_field.decode(), "sent twice")
    version, space = _version(request, family, in_path), _free_space(request, family.space_field)
    updater = None if family is BR else Updater(family.name, space)
    return Caller(
        Report(key, version, updater),
        family,
        path,
        _text(request, family.mode_field).lower(),
        _hash(request, family.md5_field, _MD5),
        _hash(request, family.sha256_field, _SHA256),
    )


def _says_nothing(request: Request) -> Unidentified:
    problem = Unidentified(MAC_FIELD.decode(), "missing")
    problem.says_nothing = VERSION_FIELD not in request.fields
    return problem


def _claims(
    request: Request, family: Family, in_path: re.Match[bytes] | None, path: bytes
) -> Iterator[_Claim]:
    fields = request.fields
    if MAC_FIELD in fields:
        yield _claim(MAC_FIELD.decode(), single(MAC_FIELD, fields, request.repeated))
    basic = _BASIC.fullmatch(fields.get(_AUTHORIZATION, b""))
    user = None if basic is None else _user_of(basic[1])
    # RAUC sends its machine id in the first request of a stream alone; what is in the URL, in all.
    is_rauc = family.name == "rauc"
    named_by_url = is_rauc and (user is not None or in_path is not None)
    for name in () if named_by_url else family.identity_fields:
        if name in fields:
            value = single(name, fields, request.repeated)
            # Mongoose OS sends an id or "-", then its MAC.
            yield _claim(name.decode(), value.rpartition(b" ")[2], is_rauc)
            break
    for name in _IDENTITY_FIELDS_OF_OTHERS.get(family.identity_fields, ()):
        if name in fields:
            value = single(name, fields, request.repeated)
            yield _claim(name.decode(), value.rpartition(b" ")[2], may_be_other=True)
    if user is not None:
        yield _Claim("authorization", user)
    if in_path is not None:
        yield _claim("the path", in_path[1])
    fota = _FOTA_QUERY.fullmatch(request.query) if path == FOTA_PATH else None
    if fota is not None:
        number = int(fota[1])
        mac = number.to_bytes(8, "little")[:6].hex() if number < 1 << 48 else ""
        yield _claim("id", mac.encode("ascii"))


def _claim(name: str, text: bytes, may_be_other: bool = False) -> _Claim:
    parse = parse_identity if may_be_other else parse_mac
    identity = parse(text.decode("latin-1"))
    if identity is None:
        raise Unidentified(name, "malformed", text)
    return _Claim(name, identity)


def _user_of(encoded: bytes) -> str | None:
    """Return the MAC address that is the user name; None: the user is not a device."""
    try:
        decoded = b64decode(encoded, validate=True).decode("latin-1")
    except BadBase64:
        return None
    # A user name has no colon (RFC 7617), but people write a MAC address with colons.
    if decoded[_MAC_CHARACTERS : _MAC_CHARACTERS + 1] in ("", ":"):
        mac = parse_mac(decoded[:_MAC_CHARACTERS])
        if mac is not None:
            return mac
    return parse_mac(decoded.partition(":")[0])


def _version(request: Request, family: Family, in_path: re.Match[bytes] | None) -> str:
    """Return what a device says that it runs; "-" if it does not say."""
    for name in (VERSION_FIELD, family.version_field):
        if name and name in request.fields:
            value = single(name, request.fields, request.repeated)
            if family.name == "mongoose" and name == family.version_field:
                value = _second_word(value)  # architecture, version, build
            return _checked_version(name.decode(), value)
    if in_path is not None:
        return _checked_version("the path", in_path[2])
    if MAC_FIELD in request.fields and not family.version_field:
        raise Unidentified(VERSION_FIELD.decode(), "missing")
    return UNKNOWN_VERSION


def _second_word(value: bytes) -> bytes:
    words = value.split()
    return words[1] if len(words) > 1 else value


def _checked_version(name: str, value: bytes) -> str:
    if not REPORTED_VERSION.fullmatch(value):
        raise Unidentified(name, "malformed", value)
    return value.decode("ascii")


def _text(request: Request, name: bytes) -> str:
    value = request.fields.get(name, b"") if name not in request.repeated else b""
    return value.decode("latin-1")


def _hash(request: Request, name: bytes, form: re.Pattern[str]) -> str:
    text = _text(request, name).lower()
    return text if form.fullmatch(text) else ""


def _free_space(request: Request, name: bytes) -> int | None:
    value = request.fields.get(name, b"")
    return int(value) if _NUMBER.fullmatch(value) else None


def is_from_browser(request: Request) -> bool:
    """Return whether a person looks at this server: no device asks for HTML."""
    is_device = MAC_FIELD in request.fields or VERSION_FIELD in request.fields
    wants_page = b"text/html" in request.fields.get(b"accept", b"")
    return wants_page and not is_device and request.method in ("GET", "HEAD")
