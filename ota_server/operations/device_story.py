"""What is on record of one device, as a time line: checks that say the same are one entry. I/O."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.journal.search import LinePlace, newest_first
from ota_server.model.refusal import Refused

# Checks are alike that say the same in these; one that says more is told by itself.
_SAME = ("event", "firmware_version", "target_version", "address", "status")
_TOLD = ("previous_version", "range_start")
_KNOWN = ("firmware_version", "target_version", "address")
# Of a page: beyond that an entry is cut, and the next page has the rest of it.
_MOST_RECORDS = 20_000
DOWNLOADS = ("begin", "download", "part")


class StoryEntry(NamedTuple):
    """An entry of the time line: one record, or several checks that are alike.

    Attributes:
        first, last: its records, as the journal has them; the same one where it is one.
        checks: how many records it is made of.
    """

    first: Mapping[str, Any]
    last: Mapping[str, Any]
    checks: int

    @property
    def event(self) -> str:
        """What kind of record it is, as the journal has it."""
        return str(self.first.get("event"))

    @property
    def what(self) -> str:
        """What the record says besides its version, target and address, in words."""
        return ", ".join(what_happened(self.first))


class StoryPage(NamedTuple):
    """A part of the time line, the newest entry first.

    Attributes:
        older: what `story` takes as `before` for the next part; None: there is none.
    """

    entries: tuple[StoryEntry, ...]
    older: str | None


def story(
    log_dir: Path,
    key: str,
    limit: int,
    before: str | None = None,
    events: Collection[str] | None = None,
) -> StoryPage:
    """Return the newest entries of a device's time line, or the next ones.

    Args:
        log_dir: of the journal.
        key: of the device (`model.identity`).
        limit: how many entries at most.
        before: from the page before; None: begin with the newest.
        events: of records of these kinds alone, such as `DOWNLOADS`; None: of all.

    Raises:
        Refused: `before` is not from a page.
        OSError: the journal cannot be read.
    """
    start = None if before is None else _place(before)
    entries: list[StoryEntry] = []
    for place, entry, is_last in _folded_back(_records(log_dir, key, start, events)):
        entries.append(entry)
        if len(entries) == limit and not is_last:
            return StoryPage(tuple(entries), f"{place.number}-{place.offset}")
    return StoryPage(tuple(entries), None)


class StoryFold:
    """Makes the same page of records that come with the oldest first."""

    def __init__(
        self, limit: int, before: str | None = None, events: Collection[str] | None = None
    ) -> None:
        """Begin without a record; the arguments are those of `story`.

        Raises:
            Refused: `before` is not from a page.
        """
        self._limit = limit
        self._before = None if before is None else _place(before)
        self._events = events
        # One more than is wanted says whether there are older ones.
        self._closed: deque[tuple[LinePlace, StoryEntry]] = deque(maxlen=limit)
        self._open: tuple[LinePlace, StoryEntry] | None = None
        self._has_older = False

    def observe(self, place: LinePlace, fields: Mapping[str, Any]) -> None:
        """Take the next record of the device."""
        is_beyond = self._before is not None and place >= self._before
        if is_beyond or (self._events is not None and fields.get("event") not in self._events):
            return
        if self._open is not None:
            begin, entry = self._open
            if _repeats(entry.last, fields):
                return
            if _is_alike(entry.last, fields):
                self._open = begin, StoryEntry(entry.first, fields, entry.checks + 1)
                return
            self._has_older |= len(self._closed) == self._limit
            self._closed.append(self._open)
        self._open = place, StoryEntry(fields, fields, 1)

    def page(self) -> StoryPage:
        """Return the newest entries."""
        found = [*self._closed, *filter(None, [self._open])]
        has_older = self._has_older or len(found) > self._limit
        entries = tuple(entry for _, entry in reversed(found[-self._limit :]))
        if not has_older:
            return StoryPage(entries, None)
        place = found[-self._limit][0]
        return StoryPage(entries, f"{place.number}-{place.offset}")


_Placed = tuple[LinePlace, Mapping[str, Any]]
# An entry, the place of its oldest record, and whether that is the oldest of all.
_PlacedEntry = tuple[LinePlace, StoryEntry, bool]


def _records(
    log_dir: Path, key: str, before: LinePlace | None, events: Collection[str] | None
) -> Iterator[_Placed]:
    for place, fields in newest_first(log_dir, key, before):
        if events is None or fields.get("event") in events:
            yield place, fields


def _place(text: str) -> LinePlace:
    number, _, offset = text.partition("-")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (number, offset)):
        raise Refused(f"{text[:40]!r} is not where a page of the history ends")
    return LinePlace(int(number), int(offset))


def _folded_back(records: Iterable[_Placed]) -> Iterator[_PlacedEntry]:
    """Yield entries, the newest first.

    As `folded` makes them. `device` lines, which repeat what is known at the head of a file, can
    only be told from others by the record before them, which comes after them here.
    """
    current: StoryEntry | None = None
    repeated: list[_Placed] = []
    at = LinePlace(0, 0)
    for place, fields in records:
        if fields.get("event") == "device":
            repeated.append((place, fields))
            continue
        told = _not_repeating(fields, repeated)
        repeated = []
        is_long = current is not None and current.checks >= _MOST_RECORDS
        if current is None or told or is_long or not _is_alike(fields, current.first):
            if current is not None:
                yield at, current, False
            yield from ((*each, False) for each in told)
            current = StoryEntry(fields, fields, 1)
        else:
            current = StoryEntry(fields, current.last, current.checks + 1)
        at = place
    told = _not_repeating({}, repeated)
    if current is not None:
        yield at, current, not told
    for number, each in enumerate(told, start=1):
        yield (*each, number == len(told))


def _not_repeating(
    before: Mapping[str, Any], repeated: list[_Placed]
) -> list[tuple[LinePlace, StoryEntry]]:
    """Return the `device` lines that say something new, the newest first, as `repeated` is.

    Args:
        before: the record before them.
    """
    told = []
    for place, fields in reversed(repeated):
        if not _repeats(before, fields):
            told.append((place, StoryEntry(fields, fields, 1)))
            before = fields
    return told[::-1]


def folded(records: Iterable[Mapping[str, Any]]) -> Iterator[StoryEntry]:
    """Yield the entries of records that come with the oldest first, in the same order."""
    entry: StoryEntry | None = None
    for fields in records:
        if entry is not None and _repeats(entry.last, fields):
            continue
        if entry is not None and _is_alike(entry.last, fields):
            entry = StoryEntry(entry.first, fields, entry.checks + 1)
            continue
        if entry is not None:
            yield entry
        entry = StoryEntry(fields, fields, 1)
    if entry is not None:
        yield entry


def _repeats(before: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Return whether a record is a `device` line, which repeats what is known already."""
    is_known = all(before.get(name) == fields.get(name) for name in _KNOWN)
    return fields.get("event") == "device" and is_known


def _is_alike(before: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return (
        fields.get("event") == "check"
        and all(before.get(name) == fields.get(name) for name in _SAME)
        and not any(name in each for each in (before, fields) for name in _TOLD)
    )


def what_happened(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a record says besides its columns, the most important first."""
    event, status = fields.get("event"), fields.get("status")
    if event == "begin":
        yield f"{fields.get('method', 'GET')} of {fields.get('download_version')}"
    elif event in ("download", "part") and status in (200, 206) and "complete" in fields:
        yield "complete" if fields.get("complete") is True else "cut"
        yield f"{fields.get('bytes_sent')} bytes"
    elif event == "feedback":
        yield f"{fields.get('action_version')} {fields.get('action_state')}"
        if fields.get("detail"):
            yield f"it says: {fields['detail']}"
    elif status is not None:
        yield f"answered {status}"
    if "file" in fields:
        yield str(fields["file"])
    elif "range_start" in fields:
        yield f"from byte {fields['range_start']}"
    if "previous_version" in fields:
        yield f"was {fields['previous_version']}"
