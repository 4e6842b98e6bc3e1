"""Devices: what a request says of one, and what is known of one. Pure.

A `Device` is all that is on record of a device. Each function here that is named for an event takes
what was known and answers what is known after it: folded over the journal they give the table.
"""

import re
from typing import Any, NamedTuple

from ota_server.model.version import same_version

MAC_FIELD = b"_br_mac_"
VERSION_FIELD = b"_br_fwv_"
SETTLED_MS = 24 * 3_600_000
_HOUR_MS = 3_600_000
_MAC = re.compile(
    r"[0-9a-f]{2}(?P<separator>[:-]?)[0-9a-f]{2}(?:(?P=separator)[0-9a-f]{2}){4}"
    r"|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"
)
_KEPT_MAC = re.compile(":".join(["[0-9a-f]{2}"] * 6))
_NO_DEVICE = frozenset(("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"))
_REPORTED_VERSION = re.compile(rb"[ -~]{1,64}")
# A device as one tuple without nesting: its fields up to `image_only`, `first_seen_ms`, then, where
# there is one, those of its download, with the SHA-256 as bytes, and without the last three where
# all are 0.
Flat = tuple[Any, ...]
# A device that reads byte 0 again this long after its last request is taken to start over: longer
# than any client's pause between retries, shorter than the time between two releases.
RESTART_AFTER_MS = 10 * 60 * 1000
FREE_ATTEMPTS = 3


class Unidentified(Exception):
    """The request does not say which device sent it: answer 401 and name the field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class Report(NamedTuple):
    """What a request says of its device. The MAC is in lower-case pairs with colons."""

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
        attempts: how often the device has fetched all of it, as `breaker` counts that.
        attempt_ms: when it had fetched all of it, last.
        fetched_bytes: those that it has fetched since then.
    """

    version: str
    sha256: str
    size: int
    request_ms: int
    attempts: int = 0
    attempt_ms: int = 0
    fetched_bytes: int = 0


class Device(NamedTuple):
    """All that is known of a device; times in milliseconds since the epoch.

    A NamedTuple, since a million of them are made at every start: a frozen dataclass takes four
    times as long to make.

    Attributes:
        time_ms: the time of its newest record.
        last_seen_ms: when it last asked for the version, or, if it never does, for the image.
        update_ms: when it first reported the version that it runs now; None: it never changed.
        target_version: the version that it was told to run, last; None: there was none to tell.
        image_only: it has never asked for the version.
        first_seen_ms: the full hour after it was first on record; None: that was before records
            said so.
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
    """Return a device as one flat tuple, the form that is kept and written."""
    download = device.download
    if download is None:
        return *device[:7], device.first_seen_ms
    sha256 = bytes.fromhex(download.sha256)
    count = download[4:] if any(download[4:]) else ()
    image = download.version, sha256, download.size, download.request_ms
    return *device[:7], device.first_seen_ms, *image, *count


def unflatten(flat: Flat) -> Device:
    """Return the device that `flatten` made flat."""
    download = None
    if len(flat) > 8:
        version, sha256, *rest = flat[8:]
        download = Download(version, sha256.hex(), *rest)
    return Device._make((*flat[:7], download, flat[7]))


def checked_again(
    flat: Flat, report: Report, target_version: str | None, address: str, now_ms: int
) -> Flat | None:
    """Return what `checked` would of a device whose version is as it was; None: look closer."""
    version = report.firmware_version
    if flat[1] != version:
        return None
    return now_ms, version, now_ms, flat[3], target_version, address, False, *flat[7:]


def parse_mac(text: str) -> str | None:
    """Return a MAC address in lower-case pairs with colons, None if `text` is none.

    Twelve hex digits: bare, in pairs by `:` or `-`, or in fours by `.`. All zeros and all ones are
    what an uninitialised radio reports, and no device.
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
        Unidentified: a field is missing, there twice, empty or malformed.
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
        raise Unidentified(name.decode(), "there twice")
    if not value:
        raise Unidentified(name.decode(), "empty")
    return value


def version_changed(device: Device | None, report: Report) -> bool:
    """Say whether `report` brings a new version to light; another spelling of it is none."""
    return device is not None and not same_version(device.firmware_version, report.firmware_version)


def previous_version(device: Device | None, report: Report) -> dict[str, str]:
    """Return the detail for a record that brings a new version to light; else none."""
    if device is None or not version_changed(device, report):
        return {}
    return {"previous_version": device.firmware_version}


def has_settled(device: Device, now_ms: int) -> bool:
    """Say whether a device has run what it fetched for a day: then it has made it."""
    download = device.download
    if download is None or not same_version(device.firmware_version, download.version):
        return False
    return now_ms - max(download.attempt_ms, device.update_ms or 0) >= SETTLED_MS


def _kept_download(device: Device, report: Report, now_ms: int) -> Download | None:
    """Return the download of a device that reports; its attempts are over once it has settled."""
    download = device.download
    if download is not None and version_changed(device, report) and has_settled(device, now_ms):
        return Download(*download[:4])
    return download


def reported(device: Device, report: Report, address: str, now_ms: int) -> Device:
    """Return the device after it reported its version and asked for nothing that there is."""
    return device._replace(
        time_ms=now_ms,
        firmware_version=report.firmware_version,
        update_ms=now_ms if version_changed(device, report) else device.update_ms,
        address=address,
        download=_kept_download(device, report, now_ms),
    )


def _first_seen(now_ms: int) -> int:
    """Return the full hour to come: so few different ones that their text is at hand."""
    return -(-now_ms // _HOUR_MS) * _HOUR_MS


def checked(
    device: Device | None, report: Report, target_version: str | None, address: str, now_ms: int
) -> Device:
    """Return the device after it asked which version to run and was told `target_version`."""
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
    """Return the device after it asked for an image and was given `download`; None: nothing."""
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
    """Return a MAC address as a number: 32 bytes in a table where the text takes 66."""
    return int(mac.replace(":", ""), 16)


def mac_of(number: int) -> str:
    """Return the text of a MAC address that `number_of` made a number."""
    return number.to_bytes(6).hex(":")


def goes_on(known: Download | None, sha256: str, under_way: bool, now_ms: int) -> bool:
    """Say whether a request for an image goes on with what its device does already.

    From byte 0 too: most clients begin anew when they were cut.
    """
    if known is None or known.sha256 != sha256:
        return False
    return under_way or now_ms - known.request_ms < RESTART_AFTER_MS
