"""Devices: what a request says about one, and what is known about one. Pure.

A `Device` is all that is on record about a device. Each function here that is named after an event
takes what was known before it and returns what is known after it; the device table is the result of
all events in the journal.
"""

import re
from typing import Any, NamedTuple

from ota_server.model.version import same_version

MAC_FIELD = b"_br_mac_"
VERSION_FIELD = b"_br_fwv_"
DAY_MS = 24 * 3_600_000
_HOUR_MS = 3_600_000
_MAC = re.compile(
    r"[0-9a-f]{2}(?P<separator>[:-]?)[0-9a-f]{2}(?:(?P=separator)[0-9a-f]{2}){4}"
    r"|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"
)
_KEPT_MAC = re.compile(":".join(["[0-9a-f]{2}"] * 6))
_NO_DEVICE = frozenset(("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"))
_REPORTED_VERSION = re.compile(rb"[ -~]{1,64}")
# A device as one tuple without nesting: its fields up to `image_only`, then `first_seen_ms`, then
# those of its download, if it has one: the SHA-256 as bytes; the last three left out if all are 0.
Flat = tuple[Any, ...]
# A device that asks for byte 0 again this long after its last request starts a new download: longer
# than any client's pause between retries, shorter than the time between two releases.
RESTART_AFTER_MS = 10 * 60 * 1000
FREE_ATTEMPTS = 3


class Unidentified(Exception):
    """The request does not say which device sent it: answer 401 and name the field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class Report(NamedTuple):
    """What a request says about its device. The MAC is in lower-case pairs with colons."""

    mac: str
    firmware_version: str

    def as_fields(self) -> dict[bytes, bytes]:
        """Return the fields that `parse_report` reads this from."""
        return {
            MAC_FIELD: self.mac.encode("ascii"),
            VERSION_FIELD: self.firmware_version.encode("ascii"),
        }


class Download(NamedTuple):
    """The download that a device began last, pinned to its bytes.

    Attributes:
        request_ms: the time of its newest request that was answered with bytes, or by a HEAD.
        attempts: how often the device has fetched all of it, as `loop_breaker` counts that.
        attempt_ms: when it last had all of it.
        fetched_bytes: what it has fetched since then.
    """

    version: str
    sha256: str
    size: int
    request_ms: int
    attempts: int = 0
    attempt_ms: int = 0
    fetched_bytes: int = 0


class Device(NamedTuple):
    """All that is known about a device; times in milliseconds since the epoch.

    A NamedTuple, since a start makes a million: a frozen dataclass takes four times as long.

    Attributes:
        time_ms: the time of its newest record.
        last_seen_ms: when it last asked for the version, or, if it never does, for the image.
        update_ms: when it first reported the version that it runs now; None if that never changed.
        target_version: the version that it was last told to run; None if there was none.
        image_only: it has never asked for the version.
        first_seen_ms: the full hour after its first record; None if that record is older than this
            field.
    """

    time_ms: int
    firmware_version: str
    last_seen_ms: int
    update_ms: int | None
    target_version: str | None
    address: str
    image_only: bool
    download: Download | None
    first_seen_ms: int | None = None


def flatten(device: Device) -> Flat:
    """Return a device as one flat tuple, as it is kept and written."""
    download = device.download
    if download is None:
        return *device[:7], device.first_seen_ms
    sha256 = bytes.fromhex(download.sha256)
    count = download[4:] if any(download[4:]) else ()
    image = download.version, sha256, download.size, download.request_ms
    return *device[:7], device.first_seen_ms, *image, *count


def unflatten(flat: Flat) -> Device:
    """Reverse `flatten`."""
    download = None
    if len(flat) > 8:
        version, sha256, *rest = flat[8:]
        download = Download(version, sha256.hex(), *rest)
    return Device._make((*flat[:7], download, flat[7]))


def checked_again(
    flat: Flat, report: Report, target_version: str | None, address: str, now_ms: int
) -> Flat | None:
    """Return what `checked` would, if the reported version has not changed; else None."""
    version = report.firmware_version
    if flat[1] != version:
        return None
    return now_ms, version, now_ms, flat[3], target_version, address, False, *flat[7:]


def parse_mac(text: str) -> str | None:
    """Return a MAC address in lower-case pairs with colons, or None if `text` is not one.

    Twelve hex digits: bare, in pairs with `:` or `-`, or in fours with `.`. All zeros or all ones
    are not a device: an uninitialised radio reports them.
    """
    text = text.lower()
    if _KEPT_MAC.fullmatch(text):
        return None if text in _NO_DEVICE else text
    if not _MAC.fullmatch(text):
        return None
    digits = re.sub("[^0-9a-f]", "", text)
    mac = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    return None if mac in _NO_DEVICE else mac


def parse_report(fields: dict[bytes, bytes], repeated: frozenset[bytes]) -> Report:
    """Read the report from the fields of a request (names in lower case).

    Raises:
        Unidentified: a field is missing, sent twice, empty or malformed.
    """
    mac_text = _single(MAC_FIELD, fields, repeated)
    version = _single(VERSION_FIELD, fields, repeated)
    mac = parse_mac(mac_text.decode("latin-1"))
    if mac is None:
        raise Unidentified(MAC_FIELD.decode(), "malformed")
    if not _REPORTED_VERSION.fullmatch(version):
        raise Unidentified(VERSION_FIELD.decode(), "malformed")
    return Report(mac, version.decode("ascii"))


def _single(name: bytes, fields: dict[bytes, bytes], repeated: frozenset[bytes]) -> bytes:
    value = fields.get(name)
    if value is None:
        raise Unidentified(name.decode(), "missing")
    if name in repeated:
        raise Unidentified(name.decode(), "sent twice")
    if not value:
        raise Unidentified(name.decode(), "empty")
    return value


def version_changed(device: Device | None, report: Report) -> bool:
    """Return whether a device reports another version than before; spelling does not count."""
    return device is not None and not same_version(device.firmware_version, report.firmware_version)


def previous_version(device: Device | None, report: Report) -> dict[str, str]:
    """Return the detail for a record with which a device's version changes; else {}."""
    if device is None or not version_changed(device, report):
        return {}
    return {"previous_version": device.firmware_version}


def ran_for_a_day(device: Device, now_ms: int) -> bool:
    """Return whether a device has run what it fetched for a day: then that update succeeded."""
    download = device.download
    if download is None or not same_version(device.firmware_version, download.version):
        return False
    return now_ms - max(download.attempt_ms, device.update_ms or 0) >= DAY_MS


def _kept_download(device: Device, report: Report, now_ms: int) -> Download | None:
    """Return the download to keep: without its attempts if the device ran it for a day before."""
    download = device.download
    if download is not None and version_changed(device, report) and ran_for_a_day(device, now_ms):
        return Download(*download[:4])
    return download


def reported(device: Device, report: Report, address: str, now_ms: int) -> Device:
    """Return the device after it reported its version in a request for something else."""
    return device._replace(
        time_ms=now_ms,
        firmware_version=report.firmware_version,
        update_ms=now_ms if version_changed(device, report) else device.update_ms,
        address=address,
        download=_kept_download(device, report, now_ms),
    )


def _first_seen(now_ms: int) -> int:
    """Return the next full hour: there are so few of them that their text stays cached."""
    return -(-now_ms // _HOUR_MS) * _HOUR_MS


def checked(
    device: Device | None, report: Report, target_version: str | None, address: str, now_ms: int
) -> Device:
    """Return the device after it asked for the version and was told `target_version`."""
    if device is None:
        version, first_ms = report.firmware_version, _first_seen(now_ms)
        return Device(now_ms, version, now_ms, None, target_version, address, False, None, first_ms)
    return Device(
        now_ms,
        report.firmware_version,
        now_ms,
        now_ms if version_changed(device, report) else device.update_ms,
        target_version,
        address,
        False,
        _kept_download(device, report, now_ms),
        device.first_seen_ms,
    )


def asked_for_image(
    device: Device | None,
    report: Report,
    target_version: str | None,
    address: str,
    now_ms: int,
    download: Download | None,
) -> Device:
    """Return the device after it asked for an image; `download` is what it got, None if nothing."""
    if device is None:
        version, first_ms = report.firmware_version, _first_seen(now_ms)
        return Device(
            now_ms, version, now_ms, None, target_version, address, True, download, first_ms
        )
    return Device(
        now_ms,
        report.firmware_version,
        now_ms if device.image_only else device.last_seen_ms,
        now_ms if version_changed(device, report) else device.update_ms,
        target_version,
        address,
        device.image_only,
        download or _kept_download(device, report, now_ms),
        device.first_seen_ms,
    )


def number_of(mac: str) -> int:
    """Return a MAC address as a number: it takes 32 bytes of memory, its text 66."""
    return int(mac.replace(":", ""), 16)


def mac_of(number: int) -> str:
    """Reverse `number_of`."""
    return number.to_bytes(6).hex(":")


def goes_on(known: Download | None, sha256: str, under_way: bool, now_ms: int) -> bool:
    """Return whether a request for an image continues the download `known`.

    Also from byte 0: most clients start again at the beginning after a cut.
    """
    if known is None or known.sha256 != sha256:
        return False
    return under_way or now_ms - known.request_ms < RESTART_AFTER_MS
