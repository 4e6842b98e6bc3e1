"""What a running server says of itself at one moment, and its form as JSON. Pure.

It goes over a Unix socket (`figures.py`) to whoever shows it: metrics, a page, an API.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from ota_server.httpd.turn_counts import BUCKET_SECONDS
from ota_server.model.json_object import parse_object

MOST_BYTES = 64 * 1024
# Of so many downloads a name and the progress are said; of all their number.
MOST_DOWNLOADS = 100


class RunningDownload(NamedTuple):
    """A reply with an image that is being sent to a device.

    Attributes:
        file: what it is a part of the release beside or within the image; "": the image.
        start: the byte of the image where it begins; 0 if it is not a range.
        sent_bytes: how many of it the device's side has acknowledged.
        size: how many bytes it has.
    """

    key: str
    version: str
    file: str
    start: int
    sent_bytes: int
    size: int
    since_ms: int


class SlotFigures(NamedTuple):
    """The download slots.

    Attributes:
        limit: how many there are.
        downloading: how many devices download with one.
        waiting: how many devices were refused one and have not had one since.
    """

    limit: int
    downloading: int
    waiting: int


class JournalFigures(NamedTuple):
    """The journal, since the server started.

    Attributes:
        records: how many were written.
        errors: how often a write failed.
        outages: how often it became impossible to write.
        unrecorded: of how many devices the newest record is not in the file.
        written_ms: when the file was written last; 0: it cannot be found.
    """

    records: int = 0
    errors: int = 0
    outages: int = 0
    is_failing: bool = False
    unrecorded: int = 0
    written_ms: int = 0


class LiveFigures(NamedTuple):
    """What a running server says of itself. Counters begin at its start.

    Attributes:
        time_ms: when it said this.
        pid: of its process.
        since_ms: when it began to answer.
        requests: by route and status, as in `counts.CountedRoute`.
        durations: how many replies took how long, as in `TurnCounts.buckets`.
        duration_seconds: what all of them took together.
        last_request_ms: when a device was last answered; 0: not yet.
        rejected: requests by the reason, as in `counts.RejectReason`.
        running: how many transfers to devices run.
        downloads: the first hundred of them.
        ends: how transfers ended, as in `TransferEnd`.
        sent_bytes: what devices had acknowledged of their bodies.
        connections: how many are open.
        devices: how many it knows.
        turned_away: how often a new device was answered but not kept.
        slots: None: there is no limit.
    """

    time_ms: int = 0
    pid: int = 0
    since_ms: int = 0
    requests: Mapping[str, Mapping[str, int]] = {}
    durations: tuple[int, ...] = (0,) * (len(BUCKET_SECONDS) + 1)
    duration_seconds: float = 0.0
    last_request_ms: int = 0
    rejected: Mapping[str, int] = {}
    running: int = 0
    downloads: tuple[RunningDownload, ...] = ()
    ends: Mapping[str, int] = {}
    sent_bytes: int = 0
    connections: int = 0
    accepted_connections: int = 0
    refused_connections: int = 0
    devices: int = 0
    turned_away: int = 0
    journal: JournalFigures = JournalFigures()
    slots: SlotFigures | None = None


def as_fields(figures: LiveFigures) -> dict[str, Any]:
    """Return what is sent."""
    fields = figures._asdict()
    fields["journal"] = figures.journal._asdict()
    fields["slots"] = None if figures.slots is None else figures.slots._asdict()
    fields["downloads"] = [each._asdict() for each in figures.downloads]
    return fields


def as_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return what is sent as JSON; where it is too long, with fewer downloads."""
    downloads = fields.get("downloads", [])
    while True:
        content = json.dumps({**fields, "downloads": downloads}, separators=(",", ":"))
        if len(content) < MOST_BYTES or not downloads:
            return content.encode("ascii")
        downloads = downloads[: len(downloads) // 2]


def parse_figures(content: bytes) -> LiveFigures:
    """Read what was sent.

    Raises:
        ValueError: a server of another version sent it, or it is not whole.
    """
    try:
        fields = parse_object(content)
        slots = fields["slots"]
        figures = _like(LiveFigures(**fields), LiveFigures())._replace(
            requests={
                str(route): _counts(by_status) for route, by_status in fields["requests"].items()
            },
            durations=tuple(map(int, fields["durations"])),
            rejected=_counts(fields["rejected"]),
            ends=_counts(fields["ends"]),
            downloads=tuple(_like(RunningDownload(**each), _ONE) for each in fields["downloads"]),
            journal=_like(JournalFigures(**fields["journal"]), JournalFigures()),
            slots=None if slots is None else _like(SlotFigures(**slots), SlotFigures(0, 0, 0)),
        )
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"it is not what a server says of itself: {problem!r:.80}") from None
    if len(figures.durations) != len(BUCKET_SECONDS) + 1:
        raise ValueError("its durations are in other buckets")
    return figures


_ONE = RunningDownload("", "", "", 0, 0, 0, 0)
_T = TypeVar("_T", bound=tuple[Any, ...])


def _like(found: _T, example: _T) -> _T:
    """Return a value whose fields have the types of an example."""
    for one, other in zip(found, example, strict=True):
        if isinstance(other, str | bool | int | float) and type(one) is not type(other):
            raise TypeError(f"{one!r:.40}")
    return found


def _counts(fields: Mapping[str, Any]) -> dict[str, int]:
    counts = {str(name): count for name, count in fields.items()}
    if not all(type(count) is int for count in counts.values()):
        raise TypeError("a count is not a number")
    return counts
