"""Range and conditional fields (RFC 9110 sections 13 and 14): what to send. Pure."""

import re
from datetime import UTC, datetime
from enum import Enum
from itertools import pairwise

# RFC 9110 section 14.2 lets a server ignore costly ranges: aria2 and RAUC ask for one at a time; no
# update of a device needs more than a few.
MAX_RANGES = 16

_RANGES = re.compile(rb"(?i:bytes)=[ \t]*(.*)")
_ONE_RANGE = re.compile(rb"([0-9]+)-([0-9]*)|-([0-9]+)")
_MAX_DIGITS = 18  # more than any file has; keeps int() cheap for hostile digits

# RFC 9110 section 5.6.1: empty list elements are ignored. Possessive, so that it cannot backtrack.
_ENTITY_TAGS = re.compile(rb'[ \t,]*+(?:(?:W/)?"[!#-~\x80-\xff]*+"[ \t]*+(?:,[ \t,]*+|\Z))++')
_ENTITY_TAG = re.compile(rb'((?:W/)?)("[!#-~\x80-\xff]*")')

_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_MONTH = rb"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rb"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT" % (_MONTH, _CLOCK),
        rb"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT" % (_MONTH, _CLOCK),
        rb"[A-Z][a-z]{2} %b (?P<day>[ 0-9][0-9]) %b (?P<year>[0-9]{4})" % (_MONTH, _CLOCK),
    )
)


class Unsatisfiable(Exception):
    """No range lies within the image: answer 416 with Content-Range: bytes */size."""


class Precondition(Enum):
    """What the conditional fields of a request ask for."""

    MET = "met"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"


# A range as requested: (first, last), (first, None) to the end, or (None, length) for a suffix.
RangeSpec = tuple[int | None, int | None]
# A range as sent: from the first byte up to the second, which is not included.
Span = tuple[int, int]


def parse_ranges(value: bytes | None) -> tuple[RangeSpec, ...]:
    """Return the ranges of a Range field; none if it is missing, malformed or in another unit.

    RFC 9110 section 14.2: a malformed Range is ignored. The size of the image is not needed, since
    the ranges help to choose the image.
    """
    match = _RANGES.fullmatch(value) if value is not None else None
    if not match:
        return ()
    parts = match[1].split(b",", MAX_RANGES)
    if len(parts) > MAX_RANGES:
        return ()
    specs = [_parse_one(part.strip(b" \t")) for part in parts]
    return tuple(spec for spec in specs if spec) if all(specs) else ()


def _parse_one(text: bytes) -> RangeSpec | None:
    match = _ONE_RANGE.fullmatch(text)
    if not match:
        return None
    if match[3]:
        return None, _number(match[3])
    first = _number(match[1])
    last = _number(match[2]) if match[2] else None
    return None if last is not None and last < first else (first, last)


def _number(digits: bytes) -> int:
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def resolve(specs: tuple[RangeSpec, ...], size: int) -> tuple[Span, ...]:
    """Return the requested spans of an image of `size` bytes, in the requested order.

    Spans that overlap are merged, and then sorted, so that no byte is sent twice.

    Raises:
        Unsatisfiable: none of them lies within the image.
    """
    spans = []
    for first, last in specs:
        if first is None:
            start, stop = max(0, size - (last or 0)), size
        else:
            start, stop = first, size if last is None else min(last + 1, size)
        if start < stop:
            spans.append((start, stop))
    if not spans:
        raise Unsatisfiable
    return _without_overlap(spans)


def _without_overlap(spans: list[Span]) -> tuple[Span, ...]:
    in_order = sorted(spans)
    if all(a[1] <= b[0] for a, b in pairwise(in_order)):
        return tuple(spans)
    merged = [in_order[0]]
    for start, stop in in_order[1:]:
        if start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


def from_byte_zero(specs: tuple[RangeSpec, ...]) -> bool:
    """Return whether one of the ranges begins at the first byte."""
    return any(first == 0 for first, _ in specs)


def precondition(
    fields: dict[bytes, bytes], etag: str, modified_seconds: int | None
) -> Precondition:
    """Evaluate a GET's or HEAD's conditions in the order of RFC 9110 section 13.2.2.

    Args:
        etag: the current strong entity tag, with its quotes.
        modified_seconds: Last-Modified in seconds since the epoch; None to ignore dates.
    """
    if_match = fields.get(b"if-match")
    if if_match is not None:
        if not _matches(if_match, etag, strong=True):
            return Precondition.FAILED
    elif modified_seconds is not None:
        unmodified_since = parse_date(fields.get(b"if-unmodified-since"))
        if unmodified_since is not None and modified_seconds > unmodified_since:
            return Precondition.FAILED
    if_none_match = fields.get(b"if-none-match")
    if if_none_match is not None:
        if _matches(if_none_match, etag, strong=False):
            return Precondition.NOT_MODIFIED
    elif modified_seconds is not None:
        modified_since = parse_date(fields.get(b"if-modified-since"))
        if modified_since is not None and modified_seconds <= modified_since:
            return Precondition.NOT_MODIFIED
    return Precondition.MET


def if_range_matches(
    value: bytes | None, etag: str, modified_seconds: int | None, now_seconds: int
) -> bool:
    """Return whether Range may be honoured (RFC 9110 section 13.1.5).

    Strong comparison: a date must equal Last-Modified, which must be at least a second old.
    """
    if value is None:
        return True
    value = value.strip(b" \t")
    if _ENTITY_TAG.fullmatch(value):
        return value == etag.encode("ascii")
    if modified_seconds is None or modified_seconds >= now_seconds:
        return False
    return parse_date(value) == modified_seconds


def _matches(value: bytes, etag: str, strong: bool) -> bool:
    if value.strip(b" \t") == b"*":
        return True
    # An entity tag may contain a comma, so the list is matched as a whole and never split.
    if not _ENTITY_TAGS.fullmatch(value):
        return False
    tags = _ENTITY_TAG.findall(value)
    return any(tag == etag.encode("ascii") and not (strong and weak) for weak, tag in tags)


def parse_date(value: bytes | None) -> int | None:
    """Return an HTTP-date (RFC 9110 section 5.6.7) in seconds, or None if it is malformed."""
    for pattern in _DATES if value is not None else ():
        match = pattern.fullmatch(value)  # type: ignore[arg-type]
        if match:
            return _seconds(match)
    return None


def _seconds(match: re.Match[bytes]) -> int | None:
    year, month = int(match["year"]), _MONTHS.index(match["month"]) + 1
    if len(match["year"]) == 2:
        year += 2000 if year < 70 else 1900
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    if year < 1 or not 1 <= day <= 31 or hour > 23 or minute > 59 or second > 60:
        return None
    # A 31 February or a leap second is the one that follows. Not by calendar, which takes 0.3 MB.
    month_began = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
    return month_began + (((day - 1) * 24 + hour) * 60 + minute) * 60 + second
