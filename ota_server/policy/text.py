"""The files of the policy as texts: changed, with what people wrote in them kept. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ota_server.model.identity import parse_name
from ota_server.model.json_object import format_object, parse_object
from ota_server.model.timestamp import format_second, format_time, parse_time
from ota_server.policy.parse import parse_group, parse_pins, parse_retries
from ota_server.policy.policy import is_group_name

_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(Z|[+-]\d{2}:\d{2})?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-]\d{2}:\d{2})",
    re.IGNORECASE | re.ASCII,
)


MOST_LABEL = 64  # characters


def is_label(text: object) -> bool:
    """Return whether this may be the label of a device: a short printable text."""
    return isinstance(text, str) and 0 < len(text) <= MOST_LABEL and text.isprintable()


class Who(NamedTuple):
    """Whom a pin is for. `kind`: devices or groups, as pins.json has it."""

    kind: str
    name: str

    def __str__(self) -> str:
        """Return it as it stands in a sentence."""
        return self.name if self.kind == "devices" else f"group {self.name}"


def parse_who(text: str) -> Who | None:
    """Return the device or the group that an operator named, or None if it is neither."""
    mac = parse_name(text)
    if mac is not None:
        return Who("devices", mac)
    return Who("groups", text) if is_group_name(text) else None


def parse_until(text: str) -> int:
    """Return when a pin ends, in milliseconds since the epoch.

    A date is its beginning, in UTC unless it has an offset.

    Raises:
        ValueError: it is neither a date nor a time.
    """
    date = _DATE.fullmatch(text)
    if date:
        text = f"{date[1]}T00:00:00{date[2] or 'Z'}"
    if not _TIME.fullmatch(text):
        raise ValueError("neither a date such as 2027-01-31 nor a time with its offset")
    return parse_time(text.upper())


def time_text(ms: int) -> str:
    """Return a time for people: without milliseconds if they are zero."""
    return format_time(ms).replace(".000Z", "Z")


def with_pin(content: bytes, who: Who, version: str, until_ms: int | None) -> bytes:
    """Return pins.json with a new pin, which replaces that of the same device or group.

    Raises:
        BadPolicy: it cannot be read.
    """
    return with_pins(content, who.kind, [who.name], version, until_ms)


def with_pins(
    content: bytes, kind: str, names: Collection[str], version: str, until_ms: int | None
) -> bytes:
    """Do as `with_pin` for devices, or for groups.

    Raises:
        BadPolicy: it cannot be read.
    """
    fields = _pins(content)
    pin = {"version": version, "until": None if until_ms is None else time_text(until_ms)}
    fields[kind] = {**_without(fields.get(kind, {}), names), **dict.fromkeys(names, pin)}
    return format_object(fields)


def without_pin(content: bytes, who: Who) -> bytes:
    """Return pins.json without the pin of a device or a group.

    Raises:
        BadPolicy: it cannot be read.
    """
    return without_pins(content, who.kind, [who.name])


def without_pins(content: bytes, kind: str, names: Collection[str]) -> bytes:
    """Do as `without_pin` for devices, or for groups.

    Raises:
        BadPolicy: it cannot be read.
    """
    fields = _pins(content)
    if kind in fields:
        fields[kind] = _without(fields[kind], names)
    return format_object(fields)


def with_members(content: bytes, macs: Iterable[str]) -> tuple[bytes, list[str]]:
    """Return the list of a group with more devices at its end, and those that were not in it.

    Raises:
        BadPolicy: it cannot be read.
    """
    there = set(parse_group(content))
    added = [mac for mac in dict.fromkeys(macs) if mac not in there]
    end = b"\r\n" if b"\r\n" in content else b"\n"
    if added and content and not content.endswith(b"\n"):
        content += end
    return content + b"".join(mac.encode("ascii") + end for mac in added), added


def without_members(content: bytes, macs: Iterable[str]) -> tuple[bytes, list[str]]:
    """Return the list of a group without the lines of some devices, and those that were in it.

    Raises:
        BadPolicy: it cannot be read.
    """
    there = set(parse_group(content))
    removed = [mac for mac in dict.fromkeys(macs) if mac in there]
    going = set(removed)
    # Not by splitlines, which would break a line at U+2028 in a comment.
    lines = re.findall(r"[^\n]*\n|[^\n]+", content.decode("utf-8"))
    kept = "".join(line for line in lines if _name_in(line) not in going)
    return kept.encode("utf-8"), removed


def with_retry(content: bytes, mac: str, now_ms: int) -> bytes:
    """Return retries.json with a device that may try again from now on.

    Raises:
        BadPolicy: it cannot be read.
    """
    return with_retries(content, [mac], now_ms)


def with_retries(content: bytes, names: Collection[str], now_ms: int) -> bytes:
    """Do as `with_retry` for devices.

    Raises:
        BadPolicy: it cannot be read.
    """
    parse_retries(content or b"{}")
    kept = _without(parse_object(content or b"{}"), names)
    return format_object({**kept, **dict.fromkeys(names, format_time(now_ms))})


class Hold(NamedTuple):
    """Since when something is on hold, who did it and why; "": not on record.

    Attributes:
        what: is on hold, as it stands in a sentence.
        end: the command that ends it.
    """

    time: str = ""
    user: str = ""
    reason: str = ""
    what: str = "everything"
    end: str = "`unhold`"


def hold_content(reason: str, user: str, now_ms: int) -> bytes:
    """Return hold.json: who holds everything, since when and why, for people."""
    return format_object({"time": format_time(now_ms), "user": user, "reason": reason})


def parse_hold(content: bytes) -> Hold:
    """Return what hold.json says; one that was made by hand may be empty."""
    try:
        fields = parse_object(content)
    except ValueError:
        fields = {}
    texts = [fields.get(name) for name in ("time", "user", "reason")]
    return Hold(*(text if isinstance(text, str) else "" for text in texts))


def hold_text(hold: Hold) -> str:
    """Return what is on hold, since when, by whom and why, in words."""
    try:
        since = f" since {format_second(parse_time(hold.time))}"
    except ValueError:
        since = ""
    by = f" by {hold.user}" if hold.user else ""
    why = f": {hold.reason}" if hold.reason else ""
    return f"{hold.what} is on hold{since}{by}{why}"


def _pins(content: bytes) -> dict[str, Any]:
    """Return the pins with everything else in the file."""
    if not content:
        return {}
    parse_pins(content)
    return parse_object(content)


def _without(entries: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return entries without those of some devices or groups, however these are spelled."""
    going = {*names}
    return {
        name: entry for name, entry in entries.items() if (parse_name(name) or name) not in going
    }


def _name_in(line: str) -> str | None:
    return parse_name(line.removeprefix("\ufeff").partition("#")[0].strip())
