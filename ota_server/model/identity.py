"""Which device it is: its identity, its product, and the key that no other device has. Pure.

A device calls itself by a MAC address, or, where its protocol has another name for it, by an
identity of up to 64 characters. Identities are unique within a product. A key is unique on a
server, and one text:

    product    identity             key
    (default)  00:11:22:33:44:55    00:11:22:33:44:55
    (default)  gw-1                 /gw-1
    plug       00:11:22:33:44:55    plug/00:11:22:33:44:55

So a MAC address of the default product, which most devices have, is its own key.
"""

import re
from hashlib import sha256

_MAC = re.compile(
    r"[0-9a-f]{2}(?P<separator>[:-]?)[0-9a-f]{2}(?:(?P=separator)[0-9a-f]{2}){4}"
    r"|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"
)
_KEPT_MAC = re.compile(":".join(["[0-9a-f]{2}"] * 6))
_NO_DEVICE = frozenset(("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"))
_IDENTITY = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_\-]{0,31}")
# What the first part of a path means already, or may come to mean.
_RESERVED = frozenset(
    ("api", "controller", "d", "default", "firmware", "healthz", "metrics", "version")
)
PRODUCT_RULE = "1 to 32 of a-z 0-9 _ -, beginning with a letter or digit, and none of " + ", ".join(
    sorted(_RESERVED)
)
IDENTITY_RULE = "a MAC address, or 1 to 64 printable ASCII characters without a blank at an end"
# Numbers of keys that are no MAC address: above all of those, below what 63 bits hold.
_HASHED = 1 << 62
_NAMED = "id:"


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


def parse_identity(text: str) -> str | None:
    """Return the identity that `text` is, or None; what reads as a MAC address is one."""
    if not _IDENTITY.fullmatch(text):
        return None
    if _KEPT_MAC.fullmatch(text.lower()) or _MAC.fullmatch(text.lower()):
        return parse_mac(text)
    return text


def parse_name(text: str) -> str | None:
    """Return how people write an identity, or None if `text` is none: a MAC address, or `id:gw-1`.

    The prefix keeps a MAC address that was mistyped from naming another device.
    """
    if not text.startswith(_NAMED):
        return parse_mac(text)
    identity = parse_identity(text.removeprefix(_NAMED))
    return identity if identity is None or is_mac(identity) else _NAMED + identity


def key_of_name(product: str, name: str) -> str:
    """Return the key of a device of a product by what `parse_name` returned."""
    return device_key(product, name.removeprefix(_NAMED))


def name_of(key: str) -> str:
    """Return how people write the identity in a key."""
    identity = identity_of(key)
    return identity if is_mac(identity) else _NAMED + identity


def is_product_name(text: str) -> bool:
    """Return whether `text` can name a product other than the default one."""
    return _PRODUCT.fullmatch(text) is not None and text not in _RESERVED


def parse_key(text: str) -> str | None:
    """Return the key that `text` is, or None."""
    product, slash, rest = text.partition("/")
    if not slash:
        return parse_mac(text)
    identity = parse_identity(rest)
    if identity is None or (product and not is_product_name(product)):
        return None
    return device_key(product, identity)


def device_key(product: str, identity: str) -> str:
    """Return the key of a device; see the table above.

    Args:
        product: its name, "" for the default one.
        identity: as `parse_identity` returns it.
    """
    if not product and _KEPT_MAC.fullmatch(identity):
        return identity
    return f"{product}/{identity}"


def product_of(key: str) -> str:
    """Return the product of a device, "" for the default one."""
    product, slash, _ = key.partition("/")
    return product if slash else ""


def identity_of(key: str) -> str:
    """Return what a device calls itself."""
    product, slash, identity = key.partition("/")
    return identity if slash else product


def is_mac(identity: str) -> bool:
    """Return whether an identity is a MAC address."""
    return _KEPT_MAC.fullmatch(identity) is not None


def number_of(key: str) -> int:
    """Return a key as a number of 63 bits: it takes 32 bytes of memory, its text 66.

    A MAC address of the default product is below 2**48; another key is hashed: of a million, two
    are alike with a chance of 1 to 4,600,000.
    """
    if "/" in key:
        return _HASHED | int.from_bytes(sha256(key.encode("ascii")).digest()[:8]) >> 3
    return int(key.replace(":", ""), 16)


def compact(key: str) -> int | str:
    """Return a key in few bytes, if it is a MAC address."""
    return key if "/" in key else number_of(key)


def expand(compacted: int | str) -> str:
    """Reverse `compact`."""
    return compacted if isinstance(compacted, str) else compacted.to_bytes(6).hex(":")


class KeyNames:
    """Which keys the numbers of `number_of` are; MAC addresses of the default product cost nothing.

    Attributes:
        hashed: the keys whose numbers are hashed.
    """

    def __init__(self) -> None:
        self.hashed: dict[int, str] = {}

    def number_of(self, key: str) -> int:
        """Return the number of a key, and remember it."""
        number = number_of(key)
        if number >= _HASHED:
            self.hashed[number] = key
        return number

    def key_of(self, number: int) -> str:
        """Return the key of a number.

        Raises:
            KeyError: it is hashed, and was never asked for here.
        """
        return self.hashed[number] if number >= _HASHED else number.to_bytes(6).hex(":")
