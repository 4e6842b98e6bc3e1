"""What became of one device: its time line, its downloads, the rollouts that it was in. I/O."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.journal.record_fields import time_in
from ota_server.model.quantity import approximate_size, count_of
from ota_server.model.refusal import Refused
from ota_server.operations.device_past import DevicePast, past_of
from ota_server.operations.device_story import DOWNLOADS, StoryEntry, StoryPage
from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import rollout_state, time_of
from ota_server.operator_port.pieces import (
    Heading,
    link,
    rollout_url,
    state,
    table,
    url_with,
    when,
    with_code,
)
from ota_server.system.hints import hints

_MOST_ENTRIES = 50
_MOST_DOWNLOADS = 10
_MOST_ROLLOUTS = 10
# By the name that the journal has for it.
_EVENTS = {
    "check": "asked for its version",
    "begin": "began a download",
    "download": "download ended",
    "part": "fetched a file beside the image",
    "device": "was on record",
    "feedback": "said how its update goes",
    "forget": "was forgotten",
}
_TOLD = Heading("Told", title="the version that the server answered")
_COUNTS_AS = Heading("It counts as", title="what the rollout takes it for, by what it did")
# What a device counts as in a rollout (`DeviceState`), by its colour; others are grey.
_CASES = {
    "updated": "good",
    "offered": "going",
    "downloading": "going",
    "undecided": "going",
    "cut": "back",
    "failed": "bad",
    "mislabelled": "bad",
    "silent": "silent",
}


class AskedPart(NamedTuple):
    """Which part of the history of a device is asked for.

    Attributes:
        url: of the page of the device.
        before: where the part before it ended; None: from the newest on.
        is_downloads: downloads alone.
    """

    url: str
    before: str | None
    is_downloads: bool

    def at(self, before: str | None, is_downloads: bool | None = None) -> str:
        """Return the URL of another part, or of all there is or of downloads alone."""
        chosen = self.is_downloads if is_downloads is None else is_downloads
        fields = [("only", "downloads" * chosen), ("before", before or "")]
        return url_with(self.url, [(name, value) for name, value in fields if value])


def read_past(data_dir: Path, key: str, asked_for: AskedPart, now_ms: int) -> DevicePast:
    """Return the rollouts of a device and a part of its history; equal checks are one entry.

    Args:
        data_dir: of its product.

    Raises:
        Malformed: `before` is not from such a page.
        OSError: the journal cannot be read.
    """
    events = DOWNLOADS if asked_for.is_downloads else None
    try:
        return past_of(data_dir, key, now_ms, _MOST_ENTRIES, asked_for.before, events)
    except Refused as problem:
        raise Malformed(f"before: {problem}") from None


def time_line(found: StoryPage, asked_for: AskedPart, now_ms: int) -> Node:
    """Return a part of the history as a table."""
    if asked_for.is_downloads:
        shown = _downloads_table(found.entries, now_ms)
    else:
        rows = [_entry(each, now_ms) for each in found.entries]
        headings = ("When", "What", "Version", _TOLD, "Details", "Address")
        shown = table(headings, rows, "There is nothing on record.")
    return _kinds(asked_for), shown, _ways(found, asked_for)


def _kinds(asked_for: AskedPart) -> Html:
    def way(words: str, is_downloads: bool) -> Html:
        here = "true" if is_downloads is asked_for.is_downloads else None
        return element("a", words, href=asked_for.at(None, is_downloads), aria_current=here)

    ways = (way("Everything", False), " ", way("Downloads alone", True))
    return element("nav", ways, class_="products", aria_label="What is shown of the history")


def _ways(found: StoryPage, asked_for: AskedPart) -> Html | None:
    if not (asked_for.before or found.older):
        return None
    newest = link(asked_for.at(None), "Newest", class_="button") if asked_for.before else None
    older = link(asked_for.at(found.older), "Older →", class_="button") if found.older else None
    return element("nav", newest, " ", older, class_="pager", aria_label="Parts of the history")


def _entry(entry: StoryEntry, now_ms: int) -> Sequence[Node]:
    first, last = entry.first, entry.last
    words: Node = _EVENTS.get(entry.event, entry.event)
    times: Node = _time(last, now_ms)
    if entry.checks > 1:
        words = count_of(entry.checks, "check")
        times = (times, element("small", " since ", _time(first, now_ms)))
    return (
        times,
        words,
        _text(first, "firmware_version"),
        _text(first, "target_version"),
        entry.what or "-",
        _text(first, "address"),
    )


def _time(fields: Mapping[str, Any], now_ms: int) -> Html:
    return when(time_in(fields.get("time")), now_ms, "at an unknown time")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "-" if value in (None, "") else str(value)


def downloads(found: StoryPage, now_ms: int) -> Node:
    """Return the newest downloads among the entries that were found."""
    chosen = [each for each in found.entries if each.event in DOWNLOADS]
    if not chosen and found.older:
        return element("p", "None among the newest entries of the history.", class_="quiet")
    return _downloads_table(chosen[:_MOST_DOWNLOADS], now_ms)


def _downloads_table(entries: Sequence[StoryEntry], now_ms: int) -> Html:
    headings = ("When", "What", "Release", "Sent", "Took", "End")
    rows = [_download(each.first, now_ms) for each in entries]
    return table(headings, rows, "No download is on record.")


def _download(fields: Mapping[str, Any], now_ms: int) -> Sequence[Node]:
    sent, took = fields.get("bytes_sent"), fields.get("duration_seconds")
    event = str(fields.get("event"))
    end: Node = "-"
    if event != "begin":
        is_whole = fields.get("complete") is True
        end = state("good", "complete") if is_whole else state("back", "not complete")
    file = fields.get("file")
    what = _EVENTS.get(event, event)
    return (
        _time(fields, now_ms),
        f"{what}: {file}" if file else what,
        _text(fields, "download_version"),
        approximate_size(sent) if type(sent) is int else "-",
        f"{took:,.1f} s" if type(took) in (int, float) else "-",
        end,
    )


def rollouts(past: DevicePast, product: str, now_ms: int) -> Node:
    """Return the rollouts that a device was in, and what it counted as."""
    if isinstance(past.problem, OSError):
        return unreadable(past.problem)
    if past.problem is not None:
        said = hints.paste(str(past.problem), product)
        return element("p", with_code(said), class_="problem")
    rows: list[Sequence[Node]] = [
        (
            link(rollout_url(product, each.id), each.title),
            rollout_state(each.state),
            time_of(each.start_time, now_ms),
            state(_CASES.get(each.counts_as, "away"), each.counts_as.replace("_", " ")),
            each.reason,
        )
        for each in past.rollouts[:_MOST_ROLLOUTS]
    ]
    headings = ("Rollout", "State", "Begun", _COUNTS_AS, "Why")
    return table(headings, rows, "It was in no rollout that is on record.")


def unreadable(problem: OSError) -> Html:
    """Return that the journal cannot be read."""
    said = f"The journal cannot be read: {problem.filename or ''} {problem.strerror}."
    return element("p", said, class_="problem")
