"""The updater of a device, as it has shown itself: its family, and the room that it has. Pure."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# Of a device that speaks the server's own protocol. Its records and rows say nothing of it.
PLAIN_FAMILY = "br"
# Of a client that says nothing of itself.
OTHER_FAMILY = "other"
# Its devices say themselves how an update ends, whatever version they report.
SAYS_ITS_END = "hawkbit"
# Here, since commands know no requests; a test compares them with the rows.
FAMILY_NAMES = (
    *(PLAIN_FAMILY, "tasmota", "esp8266", "esp32", "pico", "mongoose", "rauc", "esp-idf"),
    *("esphome", "swupdate", "mender", "curl", "wget", "aria2", "esp32fota", "micropython"),
    *(SAYS_ITS_END, OTHER_FAMILY),
)
# By which status a family is told that there is no image for it now. Checked in the same way.
NO_UPDATE_STATUS = {
    **dict.fromkeys(("esp8266", "esp32", "pico", "mongoose", "esp-idf"), 304),
    "tasmota": 404,
    "rauc": 204,
}
# How the names of the chips begin that updaters of a family run on.
CHIPS = {
    "tasmota": ("ESP32", "ESP8266"),
    "esp8266": ("ESP8266",),
    "esp32": ("ESP32",),
    "esp-idf": ("ESP32",),
    "pico": ("RP2",),
}
_FAMILY = re.compile(r"[a-z0-9\-]{1,16}")
_CHIP = re.compile(r"[A-Za-z0-9\- ]{1,32}")
_MOST_BYTES = 10**12


class Updater(NamedTuple):
    """What is known of an updater.

    Attributes:
        family: the name of a row of `dialects.FAMILIES`.
        free_space: the bytes that it has for an image; None: it does not say.
        chip: that the last image is for that it reported, by version or hash; None: not known.
    """

    family: str
    free_space: int | None = None
    chip: str | None = None


def family_of(updater: Updater | None) -> str:
    """Return the name of the family; None is an updater of the server's own protocol."""
    return PLAIN_FAMILY if updater is None else updater.family


def updater_after(before: Updater | None, now: Updater | None) -> Updater | None:
    """Return what is known after a request; a client that says nothing changes nothing."""
    if before is None or now is None:
        return now
    chip = now.chip or before.chip
    if now.family == OTHER_FAMILY:
        now = before
    return now if now.chip == chip else now._replace(chip=chip)


def without_space(updater: Updater | None) -> Updater | None:
    """Return an updater that does not say what room it has."""
    return None if updater is None else updater._replace(free_space=None)


def updater_fields(updater: Updater) -> dict[str, str | int]:
    """Return it as fields of a record."""
    fields: dict[str, str | int] = {"family": updater.family}
    if updater.free_space is not None:
        fields["free_space"] = updater.free_space
    if updater.chip is not None:
        fields["chip"] = updater.chip
    return fields


def updater_in(fields: Mapping[str, Any]) -> Updater | None:
    """Return the updater in a record; None: it says none, or somebody has broken it."""
    family, space, chip = (fields.get(name) for name in ("family", "free_space", "chip"))
    if not isinstance(family, str) or not _FAMILY.fullmatch(family) or family == PLAIN_FAMILY:
        return None
    is_space = type(space) is int and 0 <= space < _MOST_BYTES
    is_chip = isinstance(chip, str) and _CHIP.fullmatch(chip)
    return Updater(family, space if is_space else None, chip if is_chip else None)
