"""Devices: what a request says about one, and what is known about one. Pure.

A `Device` is all that is on record about a device. Each function here that is named after an event
takes what was known before it and returns what is known after it; the device table is the result of
all events in the journal.
"""

import re
from typing import Any, NamedTuple

from ota_server.model.action import Action, pack_action, unpack_action
from ota_server.model.quoting import quoted
from ota_server.model.updater import Updater, updater_after
from ota_server.model.version import same_version

MAC_FIELD = b"_br_mac_"
VERSION_FIELD = b"_br_fwv_"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
REPORTED_VERSION = re.compile(rb"[ -~]{1,64}")
# A device as one tuple: its fields up to `image_only`, then `first_seen_ms`, then those of its
# download, if it has one: the SHA-256 as bytes; the last three left out if all are 0. Last, as the
# only tuple in it, its updater and its action, if it has either; None stands for the other one.
Flat = tuple[Any, ...]
# A device that asks for byte 0 again this long after its last request starts a new download: longer
# than any client's pause between retries, shorter than the time between two releases.
RESTART_AFTER_MS = 10 * 60 * 1000
FREE_ATTEMPTS = 3


class Unidentified(Exception):
    """The request does not say which device sent it: answer 401 and name the field.

    Attributes:
        field: what is wrong: the name of a header, or several.
        says_nothing: it does not even try to say that.
    """

    says_nothing = False

    def __init__(self, field: str, problem: str, sent: bytes = b"") -> None:
        super().__init__(f"{field} {problem}" + (f": {quoted(sent)}" if sent else ""))
        self.field = field


class Report(NamedTuple):
    """What a request says about its device.

    Attributes:
        key: as in `model.identity`.
        updater: None: one that speaks the server's own protocol.
    """

    key: str
    firmware_version: str
    updater: Updater | None = None

    def as_fields(self) -> dict[bytes, bytes]:
        """Return our own fields, as a device sends them."""
        return {
            MAC_FIELD: self.key.encode("ascii"),
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
        action: the newest one of a device that reports how its updates end.
        updater: as in a `Report`.
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
    action: Action | None = None
    updater: Updater | None = None


def flatten(device: Device) -> Flat:
    """Return a device as one flat tuple, as it is kept and written."""
    download, action, updater = device.download, device.action, device.updater
    last: Flat = ()
    if action is not None or updater is not None:
        packed = None if action is None else pack_action(action)
        last = ((None if updater is None else tuple(updater), packed),)
    if download is None:
        return *device[:7], device.first_seen_ms, *last
    sha256 = bytes.fromhex(download.sha256)
    count = download[4:] if any(download[4:]) else ()
    image = download.version, sha256, download.size, download.request_ms
    return *device[:7], device.first_seen_ms, *image, *count, *last


def unflatten(flat: Flat) -> Device:
    """Reverse `flatten`."""
    download, action, updater = None, None, updater_of(flat)
    if type(flat[-1]) is tuple:
        action = action_of(flat)
        flat = flat[:-1]
    if len(flat) > 8:
        version, sha256, *rest = flat[8:]
        download = Download(version, sha256.hex(), *rest)
    return Device._make((*flat[:7], download, flat[7], action, updater))


def updater_of(flat: Flat) -> Updater | None:
    """Return the updater of a flat device."""
    packed = flat[-1][0] if type(flat[-1]) is tuple else None
    return None if packed is None else Updater(*packed)


def action_of(flat: Flat) -> Action | None:
    """Return the action of a flat device."""
    packed = flat[-1][1] if type(flat[-1]) is tuple else None
    return None if packed is None else unpack_action(packed)


def checked_again(
    flat: Flat, report: Report, target_version: str | None, address: str, now_ms: int
) -> Flat | None:
    """Return what `checked` would, if neither version, updater nor clock has changed; else None."""
    version, last = report.firmware_version, flat[-1]
    if flat[1] != version or flat[0] > now_ms:
        return None
    if (last[0] if type(last) is tuple else None) != report.updater:
        return None
    return now_ms, version, now_ms, flat[3], target_version, address, False, *flat[7:]


def single(name: bytes, fields: dict[bytes, bytes], repeated: frozenset[bytes]) -> bytes:
    """Return the value of a field that has to be there, once, and not empty.

    Raises:
        Unidentified: it is not so.
    """
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


def not_later(device: Device, now_ms: int) -> Device:
    """Return a device without times later than now: a clock that was ahead has written those."""
    time_ms, _, seen_ms, update_ms, *_ = device
    download, first_ms, action = device.download, device.first_seen_ms, device.action
    since_ms = 0 if action is None else action.since_ms
    latest_ms = max(time_ms, seen_ms, update_ms or 0, (first_ms or 0) - HOUR_MS, since_ms)
    if download is not None:
        latest_ms = max(latest_ms, download.request_ms, download.attempt_ms)
    if latest_ms <= now_ms:
        return device
    if download is not None:
        download = download._replace(
            request_ms=min(download.request_ms, now_ms),
            attempt_ms=min(download.attempt_ms, now_ms),
        )
    if action is not None:
        action = action._replace(since_ms=min(since_ms, now_ms))
    return device._replace(
        time_ms=min(time_ms, now_ms),
        last_seen_ms=min(seen_ms, now_ms),
        update_ms=None if update_ms is None else min(update_ms, now_ms),
        first_seen_ms=None if first_ms is None else min(first_ms, _first_seen(now_ms)),
        download=download,
        action=action,
    )


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
        updater=updater_after(device.updater, report.updater),
    )


def _first_seen(now_ms: int) -> int:
    """Return the next full hour: there are so few of them that their text stays cached."""
    return -(-now_ms // HOUR_MS) * HOUR_MS


def first_seen_hour(device: Device) -> int | None:
    """Return the beginning of the full hour in which a device was first seen, as people see it.

    It never moves, and is never later than the first record, of which the end of that hour is on
    record. None: it is not.
    """
    if device.first_seen_ms is None:
        return None
    # A clock that went back leaves a device that was seen before it was seen first.
    return (min(device.first_seen_ms, device.last_seen_ms) - 1) // HOUR_MS * HOUR_MS


def checked(
    device: Device | None, report: Report, target_version: str | None, address: str, now_ms: int
) -> Device:
    """Return the device after it asked for the version and was told `target_version`."""
    if device is None:
        device = Device(
            now_ms, report.firmware_version, now_ms, None, target_version, address, False, None
        )
        return device._replace(first_seen_ms=_first_seen(now_ms), updater=report.updater)
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
        device.action,
        updater_after(device.updater, report.updater),
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
        device = Device(
            now_ms, report.firmware_version, now_ms, None, target_version, address, True, download
        )
        return device._replace(first_seen_ms=_first_seen(now_ms), updater=report.updater)
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
        device.action,
        updater_after(device.updater, report.updater),
    )


def goes_on(known: Download | None, sha256: str, under_way: bool, now_ms: int) -> bool:
    """Return whether a request for an image continues the download `known`.

    Also from byte 0: most clients start again at the beginning after a cut.
    """
    if known is None or known.sha256 != sha256:
        return False
    return under_way or now_ms - known.request_ms < RESTART_AFTER_MS
