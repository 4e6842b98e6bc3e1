"""Records: writing and reading one line of the journal. Pure.

A line is one JSON object without nesting. All lines begin with the same keys in the same order, so
that a start can read a million of them with one pattern; other JSON is read too, but slower.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

from ota_server.journal.record_fields import key_in, whose
from ota_server.model.action import action_fields, action_in
from ota_server.model.device import Device, Download, Flat, action_of, flatten, updater_of
from ota_server.model.json_object import parse_object
from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.updater import updater_fields, updater_in
from ota_server.model.version import is_version

Scalar = str | int | float | bool | None

SNAPSHOT = "snapshot"
FORGET = "forget"  # its device is not on record until its next line

# What `parse_record` refuses must not match here: such a line would hide an older good one.
_YEAR = r"(?:19[7-9]\d|[2-9]\d{3})"
_LEAP_YEAR = r"(?:[12]\d|[3-9]\d)(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[3579][26])00"
_DAY = (
    r"(?:(?:0[13-9]|1[0-2])-(?:0[1-9]|[12]\d)|02-(?:0[1-9]|1\d|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-30|(?:0[13578]|1[02])-31)"
)
_DATE = rf"(?:{_YEAR}-{_DAY}|(?!1[0-8]|19[0-6])(?:{_LEAP_YEAR})-02-29)"
_TIME = rf'"{_DATE}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{{3}}Z"'
_MAC = "(?!(?:00:){5}00|(?:ff:){5}ff)" + ":".join(["[0-9a-f]{2}"] * 6)
_NUMBER = r"-?(?:0|[1-9]\d{0,17}+)(?:\.\d{1,17}+)?"  # int() refuses thousands of digits
_TEXT = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_DOWNLOAD = (
    r',"download_version":"[A-Za-z0-9][A-Za-z0-9._+\-]{0,63}","download_sha256":"[0-9a-f]{64}"'
    rf',"download_size":[1-9]\d{{0,17}},"download_request_time":{_TIME}'
    rf'(?:,"download_attempts":(?:0|[1-9]\d{{0,8}}+),"download_attempt_time":{_TIME}'
    r',"download_fetched":(?:0|[1-9]\d{0,16}+))?'
)
# A detail of one event. Not a name of a device's field: read as JSON, the later one would win.
_DETAIL = (
    r',"(?!time"|event"|product"|mac"|id"|firmware_version"|last_seen_time"|update_time"'
    r'|target_version"|address"|image_only"|first_seen_time"|download_)[a-z0-9_]++"'
    rf":(?:{_TEXT}|{_NUMBER}|true|false|null)"
)
# The common line. All repetitions are possessive: a hostile line costs no more than a good one.
COMMON_LINE = re.compile(
    (
        rf'^\{{"time":{_TIME},"event":"(?!forget")[a-z]++","product":"","mac":"({_MAC})"'
        rf',"firmware_version":{_TEXT},"last_seen_time":{_TIME},"update_time":(?:null|{_TIME})'
        rf',"target_version":(?:null|{_TEXT}),"address":{_TEXT}'
        rf'(?:,"image_only":true)?(?:,"first_seen_time":{_TIME})?(?:{_DOWNLOAD})?(?:{_DETAIL})*+\}}$'
    ).encode("ascii"),
    re.MULTILINE,
)


_CONSTANTS = {None: "null", True: "true", False: "false"}
# As `sealed` writes it. No device text can contain it: its quotes would be escaped.
SEALED = b',"sealed_from":'
_SEAL = re.compile(SEALED + rb'(0|[1-9]\d{0,17}),"crc32":"([0-9a-f]{8})"\}$')


class BadRecord(ValueError):
    """A line is not a record."""


class Seal(NamedTuple):
    """What a line says about the bytes before it: from `start` up to that line, their CRC-32.

    It detects bytes that were changed by accident or with an editor. It is no protection against
    forgery.
    """

    start: int
    crc: int


@lru_cache(maxsize=16384)
def _first_seen(ms: int) -> str:
    return f',"first_seen_time":"{format_time(ms)}"'


def format_record(
    event: str, key: str, device: Device, details: Mapping[str, Scalar] | None = None
) -> bytes:
    """Return the whole record of a device as one line of JSON, with its newline.

    `details` are the fields of this event alone.
    """
    return format_flat(event, key, flatten(device), details)


def format_flat(
    event: str, key: str, flat: Flat, details: Mapping[str, Scalar] | None = None
) -> bytes:
    """Return the record of a flat device.

    Formatted by hand, in a fifth of the time of json.dumps: each request needs one.
    """
    (
        time_ms,
        version,
        seen_ms,
        update_ms,
        target_version,
        address,
        image_only,
        first_ms,
        *download,
    ) = flat
    time = format_time(time_ms)
    seen = time if seen_ms == time_ms else format_time(seen_ms)
    update = "null" if update_ms is None else f'"{format_time(update_ms)}"'
    target = "null" if target_version is None else quoted(target_version)
    tail = ',"image_only":true' if image_only else ""
    if first_ms is not None:
        tail += _first_seen(first_ms)
    if download:
        if type(download[-1]) is tuple:
            del download[-1]
        if download:
            tail += _format_download(*download)
        if (updater := updater_of(flat)) is not None:
            tail += _format_scalars(updater_fields(updater))
        if (action := action_of(flat)) is not None:
            tail += _format_scalars(action_fields(action))
    if details:
        tail += _format_scalars(details)
    return (
        f'{{"time":"{time}","event":"{event}",{whose(key)}'
        f',"firmware_version":{quoted(version)}'
        f',"last_seen_time":"{seen}","update_time":{update}'
        f',"target_version":{target},"address":{quoted(address)}{tail}}}\n'
    ).encode("ascii")


def _format_scalars(fields: Mapping[str, Scalar]) -> str:
    return "".join(f',"{name}":{_scalar(value)}' for name, value in fields.items())


def _scalar(value: Scalar) -> str:
    """Return a value as JSON, in a tenth of the time of json.dumps."""
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    return repr(value)  # as json.dumps does with finite numbers


def _format_download(version: str, sha256: bytes, size: int, request_ms: int, *count: int) -> str:
    counted = ""
    if count:
        attempts, attempt_ms, fetched_bytes = count
        counted = (
            f',"download_attempts":{attempts},"download_attempt_time":"{format_time(attempt_ms)}"'
            f',"download_fetched":{fetched_bytes}'
        )
    return (
        f',"download_version":{quoted(version)}'
        f',"download_sha256":"{sha256.hex()}","download_size":{size}'
        f',"download_request_time":"{format_time(request_ms)}"{counted}'
    )


def format_marker(time_ms: int, devices: int) -> bytes:
    """Return the line that ends a snapshot of the device table."""
    return b'{"time":"%b","event":"%b","devices":%d}\n' % (
        format_time(time_ms).encode("ascii"),
        SNAPSHOT.encode("ascii"),
        devices,
    )


def format_seal(time_ms: int) -> bytes:
    """Return a line that says nothing until it is `sealed`."""
    return b'{"time":"%b","event":"seal"}\n' % format_time(time_ms).encode("ascii")


def sealed(line: bytes, seal: Seal) -> bytes:
    """Return a line with a seal of the bytes before it."""
    return b'%b%b%d,"crc32":"%08x"}\n' % (line.removesuffix(b"}\n"), SEALED, *seal)


def parse_seal(line: bytes) -> Seal | None:
    """Return the seal in a line without its newline, or None."""
    match = _SEAL.search(line)
    return None if match is None else Seal(int(match[1]), int(match[2], 16))


def is_marker(line: bytes) -> bool:
    """Return whether a line ends a snapshot."""
    if b'"event":"snapshot"' not in line:
        return False
    try:
        return parse_fields(line).get("event") == SNAPSHOT
    except BadRecord:
        return False


def parse_record(line: bytes) -> tuple[str, Device | None]:
    """Return the key and the device in a line; None as device if the line forgets it.

    Unknown fields are ignored.

    Raises:
        BadRecord: the line is not a whole device record.
    """
    return record_in(parse_fields(line))


def record_in(fields: dict[str, Any]) -> tuple[str, Device | None]:
    """Return what `parse_record` does, from the fields of a line.

    Raises:
        BadRecord: they are not those of a whole device record.
    """
    try:
        key = key_in(fields)
        if key is None:
            raise BadRecord("says no device")
        time, seen = fields["time"], fields["last_seen_time"]
        update, target = fields.get("update_time"), fields.get("target_version")
        first = fields.get("first_seen_time")
        time_ms = parse_time(time)
        # By position: names take longer, and a view of a large fleet makes all devices.
        device = Device(
            time_ms,
            _text(fields["firmware_version"]),
            time_ms if seen == time else parse_time(seen),
            None if update is None else parse_time(update),
            None if target is None else _text(target),
            _text(fields.get("address", "")),
            fields.get("image_only") is True,
            _download(fields),
            None if first is None else _full_hour(first),
            action_in(fields),
            updater_in(fields),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise BadRecord(f"{type(problem).__name__}: {problem}") from problem
    return key, None if fields.get("event") == FORGET else device


def parse_fields(line: bytes) -> dict[str, Any]:
    """Return all fields of a line, unchecked.

    Raises:
        BadRecord: the line is not a JSON object.
    """
    try:
        return parse_object(line)
    except ValueError as problem:
        raise BadRecord(str(problem)) from problem


# A fleet began to be on record in few hours.
_full_hour = lru_cache(maxsize=1024)(parse_time)


def _text(value: object) -> str:
    # The server only ever wrote printable ASCII here; a line that was edited may hold more.
    if not isinstance(value, str) or not value.isascii() or not (value.isprintable() or not value):
        raise TypeError(f"not printable text: {value!r:.40}")
    return value


def _download(fields: dict[str, Any]) -> Download | None:
    sha256 = fields.get("download_sha256")
    if sha256 is None:
        return None
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise TypeError("download_sha256 is not a SHA-256")
    size = fields["download_size"]
    if not isinstance(size, int) or not 0 < size < 10**18:
        raise TypeError("download_size is not a size")
    version = fields["download_version"]
    if not isinstance(version, str) or not is_version(version):
        raise TypeError("download_version is not a version")
    request_ms = parse_time(fields["download_request_time"])
    if "download_attempts" not in fields:
        return Download(version, sha256, size, request_ms)
    attempts, fetched = fields["download_attempts"], fields["download_fetched"]
    if not all(type(number) is int and 0 <= number < 10**17 for number in (attempts, fetched)):
        raise TypeError("download_attempts or download_fetched is not a number")
    attempt_ms = parse_time(fields["download_attempt_time"])
    return Download(version, sha256, size, request_ms, attempts, attempt_ms, fetched)
