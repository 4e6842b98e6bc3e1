"""What an operator types, on the command line, into a form or into JSON, read into values. Pure.

Each function takes one text and returns its value. A `BadValue` says what is wrong in a sentence
that fits behind the name of an option as well as of a field.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from ota_server.model.identity import parse_mac, parse_name
from ota_server.model.quantity import parse_duration
from ota_server.model.refusal import Refused
from ota_server.model.version import VERSION_RULE, is_version
from ota_server.policy.policy import is_group_name
from ota_server.policy.rollout_plan import MOST_NOTE, MOST_SECONDS
from ota_server.policy.text import MOST_LABEL, is_label, parse_until

# The most characters of a reason: `status`, the audit log and the server's log show it.
MOST_REASON = 500
MOST_DEVICES = 1_000_000
# Nobody means devices that ask once a day.
SHORTEST_UNSEEN_SECONDS = 86400.0
_PERCENT = re.compile(r"\d{1,3}(?:\.\d{1,4})? ?%?", re.ASCII)
_YES, _NO = ("on", "true", "yes", "1"), ("", "off", "false", "no", "0")
_Value = TypeVar("_Value")


class BadValue(ValueError):
    """One value cannot be used; the message says why, for the operator."""


class BadFields(Refused):
    """Fields of a form or of an object cannot be used.

    Attributes:
        problems: what is wrong with each, by its name.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)


def parse_version(text: str) -> str:
    """Return the version of a release."""
    if not is_version(text):
        raise BadValue(f"{text[:70]!r} is not a version: use {VERSION_RULE}")
    return text


def parse_group_name(text: str) -> str:
    """Return the name of a group."""
    if not is_group_name(text) or parse_mac(text):
        raise BadValue(
            f"{text[:40]!r} is not a group's name: a letter, then up to 31 of a-z 0-9 _ -"
        )
    return text


def parse_waves(text: str) -> tuple[float, ...]:
    """Return the percentages of waves, rising to 100."""
    waves = tuple(map(_number, text.split(",")))
    if None in waves:
        raise BadValue(
            f"{text[:40]!r} is not a list of percentages with commas, such as 1,10,50,100"
        )
    percents = [percent for percent in waves if percent is not None]
    if percents != sorted(set(percents)) or percents[-1] != 100 or not percents[0]:
        raise BadValue(f"{text[:40]!r} does not rise from above 0 to 100, as 1,10,50,100 does")
    return tuple(percents)


def parse_share(text: str) -> float:
    """Return a share of devices, in percent, from 0 to under 100."""
    percent = _number(text)
    if percent is None or percent >= 100:
        raise BadValue(f"{text[:40]!r} is not a percentage from 0 to under 100, such as 2%")
    if not text.strip().endswith("%"):
        # In a wave of ten devices, two devices are 20 %.
        raise BadValue(
            f"{text[:40]!r} could be a number of devices: it is a share of them; type {percent:g}%"
        )
    return percent


def _number(text: str) -> float | None:
    """Return a percentage as a number, or None if it is not a percentage."""
    if not _PERCENT.fullmatch(text.strip()):
        return None
    return float(text.strip().rstrip("% "))


def parse_device_count(text: str) -> int:
    """Return a number of devices, from 1 up."""
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= MOST_DEVICES:
        raise BadValue(f"{text[:40]!r} is not a number of devices from 1 to {MOST_DEVICES}")
    return int(text)


def parse_time_limit(text: str) -> float:
    """Return the seconds of a duration up to a year."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = MOST_SECONDS + 1.0
    if seconds > MOST_SECONDS:
        raise BadValue(
            f"{text[:40]!r} is not a duration up to a year: a number and s, m, h or d, such as 15m"
        )
    return seconds


def parse_unseen(text: str) -> float:
    """Return for how many seconds devices were not heard from that are to be forgotten."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds < SHORTEST_UNSEEN_SECONDS:
        raise BadValue(f"{text[:40]!r} is not a duration from 1d up, such as 90d")
    return seconds


def parse_end_time(text: str) -> int:
    """Return a date or a time in milliseconds since the epoch."""
    try:
        return parse_until(text)
    except ValueError as problem:
        raise BadValue(f"{text[:40]!r} is not a time: {problem}") from None


def parse_reason(text: str) -> str:
    """Return why something is done: a sentence or two, on one line."""
    return _one_line(text, MOST_REASON)


def parse_note(text: str) -> str:
    """Return a note of an operator, on one line."""
    note = _one_line(text, MOST_NOTE)
    if not note.isprintable():
        raise BadValue("it holds characters that cannot be shown")
    return note


def _one_line(text: str, most: int) -> str:
    line = " ".join(text.split())
    if len(line) > most:
        raise BadValue(f"it has {len(line)} characters: give {most} at most")
    return line


def parse_label(text: str) -> str:
    """Return the label of a device; "": it is to have none."""
    if text and (text != text.strip() or not is_label(text)):
        raise BadValue(
            f"{text[:80]!r} is not a label: up to {MOST_LABEL} characters, on one line, "
            "without a blank at either end"
        )
    if parse_name(text) or text == "-":
        raise BadValue(
            f"{text!r} would be taken for a MAC address or for standard input, not for a label"
        )
    return text


def parse_choice(*choices: str) -> Callable[[str], str]:
    """Return what reads one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise BadValue(f"{text[:40]!r} is not one of {', '.join(choices)}")
        return text

    return parse


def parse_switch(text: str) -> bool:
    """Return whether something was chosen, as a form or a person says it."""
    if text.lower() not in (*_YES, *_NO):
        raise BadValue(f"{text[:40]!r} is neither on nor off")
    return text.lower() in _YES


def read_fields(
    fields: Mapping[str, object], readers: Mapping[str, Callable[[object], _Value]]
) -> dict[str, _Value]:
    """Return the values of fields, by their names; what is null counts as left out.

    Raises:
        BadFields: some cannot be used, or have no reader.
    """
    values, problems = {}, {}
    for name, value in fields.items():
        if name not in readers:
            problems[name[:40]] = "is not known here"
        elif value is not None:
            try:
                values[name] = readers[name](value)
            except BadValue as problem:
                problems[name] = str(problem)
    if problems:
        raise BadFields(problems)
    return values


def from_text(parse: Callable[[str], _Value]) -> Callable[[object], _Value]:
    """Return what reads a field that is a text."""

    def read(value: object) -> _Value:
        if not isinstance(value, str):
            raise BadValue(f"{value!r:.40} is not a text")
        return parse(value)

    return read


def from_switch(value: object) -> bool:
    """Read a field that is a truth value, in JSON or in a form."""
    return value if isinstance(value, bool) else from_text(parse_switch)(value)


def from_number(parse: Callable[[str], _Value], unit: str) -> Callable[[object], _Value]:
    """Return what reads a field that is a text with a unit, or a number of that unit."""

    def read(value: object) -> _Value:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return from_text(parse)(value)
        # By way of the text, so that one function knows the limits; not 1e-07.
        return parse(f"{value:.4f}".rstrip("0").rstrip(".") + unit)

    return read
