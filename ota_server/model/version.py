"""Versions: what can name a release, and when two names mean the same one. Pure."""

import re
from functools import lru_cache
from typing import NamedTuple

MAX_VERSION_FILE_BYTES = 256
MAX_SIGNATURE_BYTES = 64 * 1024

# What a device "reports" that says no version, and no hash by which it is known.
UNKNOWN_VERSION = "-"
VERSION_RULE = "1 to 64 of A-Z a-z 0-9 . _ + -, beginning with a letter or digit"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+\-]{0,63}")
_PARTS = re.compile(r"([0-9]+)|([^0-9]+)")
# The most digits of a number that are counted in `order_of`: no version has as many.
_MOST_DIGITS = 20_000
_IMAGE_NAME = re.compile(r"firmware_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin")

# The demonstration images that this project ships. No real device may flash them.
SAMPLES = {
    (4096, "3fe4585681af5a2ecfdd6d11d84e36a3aa543af8ebc06cc4a9f9bdd07e3e580f"): "v1.0.0",
    (4096, "6e98cbfcbf394612174e29f1fbe88eab08b241dab93659f564b256f0e3edbb20"): "v1.0.1",
}
_SAMPLE_SIZES = frozenset(size for size, _ in SAMPLES)


class NoVersion(ValueError):
    """version.txt does not hold a version."""


class Target(NamedTuple):
    """What version.txt asks for: the version, what ends a reply (a newline or nothing), the image.

    `image_name` is the file in `firmware/` that holds the image; None if it is missing.
    """

    version: str
    end: str
    image_name: str | None
    image_size: int

    @property
    def may_be_sample(self) -> bool:
        """Whether the image has the size of a shipped sample: only its hash can tell."""
        return may_be_sample(self.image_size)


def is_version(text: str) -> bool:
    """Return whether `text` can name a release: 1 to 64 of A-Z a-z 0-9 . _ + -."""
    return _VERSION.fullmatch(text) is not None


def meaning(version: str) -> str:
    """Return a version in the spelling that all others share: `v1.0` and `1.0` are one release."""
    # By characters: a pattern takes longer, and each check during a rollout asks five times.
    return version[1:] if version[:1] == "v" and "0" <= version[1:2] <= "9" else version


@lru_cache(maxsize=4096)
def same_version(one: str, other: str) -> bool:
    """Compare two versions by meaning. Order never matters: going back is just another target."""
    return one == other or meaning(one) == meaning(other)


@lru_cache(maxsize=4096)
def order_of(version: str) -> str:
    """Return a text by whose characters versions are sorted as people do: v1.10 after v1.9.

    A number becomes a mark, how many digits it has, and these. Zero comes before text, and every
    other number after it.
    """
    parts = []
    for digits, text in _PARTS.findall(meaning(version)):
        number = digits.lstrip("0")
        if number:
            parts.append(f"\x03{chr(32 + min(len(number), _MOST_DIGITS))}{number}")
        else:
            parts.append("\x01" if digits else f"\x02{text}")
    return "".join(parts)


def spellings(version: str) -> tuple[str, ...]:
    """Return all spellings of `version`, the exact one first."""
    bare = meaning(version)
    if bare != version:
        return version, bare
    return (version, "v" + version) if version[:1].isdigit() else (version,)


def image_name(version: str) -> str:
    """Return the name of the file in `firmware/` that holds the image of `version`."""
    return f"firmware_{version}.bin"


def signature_name(version: str) -> str:
    """Return the name of the file in `firmware/` that holds the signature of `version`."""
    return f"{image_name(version)}.sig"


def version_of_image_name(name: str) -> str | None:
    """Return the version in the file name of an image, or None if it is not such a name."""
    match = _IMAGE_NAME.fullmatch(name)
    return match[1] if match else None


def parse_version_file(content: bytes) -> tuple[str, str]:
    """Return the version in version.txt and what ends it: a newline or nothing.

    A byte order mark, CR and trailing blanks are dropped: editors leave them, devices compare text.

    Raises:
        NoVersion: it holds none; the message says why, for the operator.
    """
    if len(content) > MAX_VERSION_FILE_BYTES:
        raise NoVersion(f"is over {MAX_VERSION_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NoVersion("is not UTF-8") from None
    version = text.rstrip(" \t\r\n")
    if not version:
        raise NoVersion("is empty")
    if "\n" in version:
        raise NoVersion("has more than one line")
    if not is_version(version):
        raise NoVersion(f"holds no version: {version[:40]!r} (1 to 64 of A-Z a-z 0-9 . _ + -)")
    return version, "\n" if text.rstrip(" \t\r").endswith("\n") else ""


def entity_tag(sha256: str) -> str:
    """Return the strong entity tag of an image, with its quotes: 128 bits of its SHA-256."""
    return f'"{sha256[:32]}"'


def is_sample(size: int, sha256: str) -> bool:
    """Return whether an image is a shipped sample."""
    return (size, sha256) in SAMPLES


def may_be_sample(size: int) -> bool:
    """Return whether a shipped sample has this size, so that only a hash can tell."""
    return size in _SAMPLE_SIZES
