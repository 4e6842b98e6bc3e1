"""Reading single fields of journal records, which may hold anything. Pure."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, TypeGuard

from ota_server.model.device import number_of, parse_mac
from ota_server.model.timestamp import parse_time
from ota_server.model.version import meaning

_MOST_BYTES = 10**18


@lru_cache(maxsize=16384)
def _mac_number(text: str) -> int | None:
    mac = parse_mac(text)
    return None if mac is None else number_of(mac)


def number_in(value: object) -> int | None:
    """Return a MAC address as a number, or None if the value is not one."""
    return _mac_number(value) if isinstance(value, str) and len(value) <= 17 else None


def time_in(value: object) -> int | None:
    """Return a time in milliseconds since the epoch, or None if the value is not one."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        return None


def is_of(record: Mapping[str, Any], kind: str, goals: Collection[str]) -> bool:
    """Return whether a record is about the image of one of these releases."""
    version = record.get(f"{kind}_version")
    return (
        isinstance(version, str)
        and meaning(version[:64]) in goals
        and isinstance(record.get(f"{kind}_sha256"), str)
    )


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value is a number of bytes."""
    return type(value) is int and 0 <= value <= _MOST_BYTES
