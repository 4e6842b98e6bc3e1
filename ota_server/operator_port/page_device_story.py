"""What became of one device: its time line, its downloads, the rollouts that it was in. I/O."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ota_server.journal.record_fields import time_in
from ota_server.model.quantity import approximate_size, count_of
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.device_rollouts import rollouts_of
from ota_server.operations.device_story import DOWNLOADS, StoryEntry, StoryPage, story
from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import rollout_state, time_of
from ota_server.operator_port.pieces import (
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


def time_line(logs: Path, key: str, url: str, before: str | None, now_ms: int) -> Node:
    """Return a part of the history of a device, the newest first; equal checks are one entry.

    Args:
        logs: the folder of the journal.
        url: of the page of the device.
        before: where the part before it ended; None: from the newest on.

    Raises:
        Malformed: `before` is not from such a page.
    """
    try:
        found = story(logs, key, _MOST_ENTRIES, before)
    except Refused as problem:
        raise Malformed(f"before: {problem}") from None
    except OSError as problem:
        return _unreadable(problem)
    rows = [_entry(each, now_ms) for each in found.entries]
    headings = ("When", "What", "Version", "Told", "Details", "Address")
    older = url_with(url, [("before", found.older)]) if found.older else None
    ways = _ways(url, before, older) if before or older else None
    return table(headings, rows, "There is nothing on record."), ways


def _ways(url: str, before: str | None, older: str | None) -> Html:
    return element(
        "nav",
        link(url, "Newest", class_="button") if before else None,
        " ",
        link(older, "Older →", class_="button") if older else None,
        class_="pager",
        aria_label="Parts of the history",
    )


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


def downloads(logs: Path, key: str, now_ms: int) -> Node:
    """Return the newest downloads of a device."""
    try:
        found = story(logs, key, _MOST_DOWNLOADS, events=DOWNLOADS)
    except OSError as problem:
        return _unreadable(problem)
    headings = ("When", "What", "Release", "Sent", "Took", "End")
    rows = [_download(each.first, now_ms) for each in found.entries]
    return table(headings, rows, "No download is on record."), _more_words(found)


def _more_words(found: StoryPage) -> Html | None:
    if found.older is None:
        return None
    return element("p", "Older ones are in the history below.", class_="quiet")


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


def rollouts(data_dir: Path, product: str, key: str, now_ms: int) -> Node:
    """Return the rollouts that a device was in, and what it counted as."""
    try:
        found = rollouts_of(data_dir, key, now_ms, _MOST_ROLLOUTS)
    except (Refused, BadPolicy) as problem:
        return element("p", with_code(hints.paste(str(problem), product)), class_="problem")
    except OSError as problem:
        return _unreadable(problem)
    rows: list[Sequence[Node]] = [
        (
            link(rollout_url(product, each.id), each.title),
            rollout_state(each.state),
            time_of(each.start_time, now_ms),
            state(_CASES.get(each.counts_as, "away"), each.counts_as.replace("_", " ")),
            each.reason,
        )
        for each in found
    ]
    headings = ("Rollout", "State", "Begun", "It counts as", "Why")
    return table(headings, rows, "It was in no rollout that is on record.")


def _unreadable(problem: OSError) -> Html:
    said = f"The journal cannot be read: {problem.filename or ''} {problem.strerror}."
    return element("p", said, class_="problem")
