"""Durations and sizes as operators write them. Pure."""

import re
from collections.abc import Mapping

DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
SIZE_UNITS = {"G": 1024**3, "M": 1024**2, "K": 1024, "": 1}
# The fraction ends after three digits: nobody means less than a millisecond.
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)
_SIZE = re.compile(r"([1-9]\d{0,14})([KMG]?)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `15m`, `1.5h` or `7d`.

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


def _in_units(number: float, units: Mapping[str, int]) -> str:
    for unit, size in units.items():
        if number >= size and number % size == 0:
            return f"{number // size:.15g}{unit}"
    return f"{number:g}{[*units][-1]}"
