"""Reading single fields of journal records, which may hold anything. Pure."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeGuard

from ota_server.model.identity import (
    device_key,
    identity_of,
    is_mac,
    is_product_name,
    parse_identity,
    product_of,
)
from ota_server.model.timestamp import parse_time
from ota_server.model.version import meaning

_MOST_BYTES = 10**18


@lru_cache(maxsize=16384)
def _key(product: str, identity: str) -> str | None:
    parsed = parse_identity(identity)
    if parsed is None or (product and not is_product_name(product)):
        return None
    return device_key(product, parsed)


def key_in(record: Mapping[str, Any]) -> str | None:
    """Return the key of the device of a record (`model.identity`), or None if it has none."""
    product, mac = record.get("product", ""), record.get("mac")
    identity = record.get("id") if mac is None else mac
    if not isinstance(product, str) or not isinstance(identity, str):
        return None
    if len(product) > 32 or len(identity) > 64 or (mac is not None and len(mac) > 17):
        return None
    key = _key(product, identity)
    return None if mac is not None and key is not None and not is_mac(identity_of(key)) else key


def whose(key: str) -> str:
    """Return the fields that say in a record whose it is, as JSON."""
    if "/" not in key:
        return f'"product":"","mac":"{key}"'
    product, identity = product_of(key), identity_of(key)
    name = "mac" if is_mac(identity) else "id"
    return f'"product":"{product}","{name}":{quoted(identity)}'


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
