"""Durations, sizes and long lists as operators write and read them. Pure."""

import re
from collections.abc import Mapping, Sequence

DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
SIZE_UNITS = {"G": 1024**3, "M": 1024**2, "K": 1024, "": 1}
# The fraction ends after three digits: nobody means less than a millisecond.
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([smhd])", re.ASCII)
_SIZE = re.compile(r"([1-9]\d{0,14})([KMG]?)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `15 m`, `1.5h` or `7d`.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.40} is not a duration")
    return float(match[1]) * DURATION_UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """Return a duration in the largest unit that gives a whole number."""
    return _in_units(seconds, DURATION_UNITS)


def rounded_duration(seconds: float) -> str:
    """Return a duration for people, in its two largest units: `2d 3h`, `18m`, `5s`."""
    units = [*DURATION_UNITS.items()]
    at = next((at for at, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)
    rest, parts = int(seconds), list[str]()
    for unit, size in units[at : at + 2]:
        if rest >= size or not parts:
            parts.append(f"{rest // size}{unit}")
        rest %= size
    return " ".join(parts)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `512`, `64K` or `10M`, in powers of 1024.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.upper())
    if match is None:
        raise ValueError(f"{text!r:.40} is not a size")
    return int(match[1]) * SIZE_UNITS[match[2]]


def format_size(size: int) -> str:
    """Return a number of bytes in the largest unit that gives a whole number."""
    return _in_units(size, SIZE_UNITS)


def approximate_size(size: int) -> str:
    """Return a number of bytes for people, with two digits or more: `1.5 GiB`, `812 KiB`."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1024, larger
    is_whole = unit == "bytes" or amount >= 10
    return f"{amount:,.0f} {unit}" if is_whole else f"{amount:.1f} {unit}"


def _in_units(number: float, units: Mapping[str, int]) -> str:
    for unit, size in units.items():
        if number >= size and number % size == 0:
            return f"{number // size:.15g}{unit}"
    return f"{number:g}{[*units][-1]}"


def count_of(count: int, what: str, plural: str = "s") -> str:
    """Return how many there are in words, such as `1 device`, `1,200 devices`."""
    return f"{count:,} {what}{plural if count != 1 else ''}"


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first names of a list as text, and how many there are more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
