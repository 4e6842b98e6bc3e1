"""The devices of a rollout that are not updated, by name and with their reason. I/O.

To find them the journal is read, which takes seconds for a large fleet. So a list is kept for a
while, ten times as long as it took: a page that changes by itself asks again and again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from ota_server.model.quantity import count_of
from ota_server.model.refusal import Refused
from ota_server.operations.rollout_devices import RolloutDevices, devices_of
from ota_server.operations.rollout_facts import RolloutDetail
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import (
    device_url,
    link,
    live,
    number,
    rollout_url,
    state,
    table,
    url_with,
    when,
    with_code,
)
from ota_server.policy.labels import read_labels
from ota_server.rollouts.outcome_list import ListedDevice, state_in_words

_LEAST_SECONDS = 0.3
_KEPT_TIMES = 10
_MOST_KEPT = 8
# From here on the list differs so much from the bars above it that it says how old it is.
_OLD_MS = 2000
# Of each reason; the page of one state has more.
_FEW, _MANY = 20, 1000
_COLOURS = {
    "failed": "bad",
    "mislabelled": "bad",
    "silent": "silent",
    "undecided": "going",
    "downloading": "going",
    "cut": "back",
}


class DeviceLists:
    """The lists that were found a moment ago. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[tuple[Path, str, str], tuple[float, tuple[RolloutDevices, int]]] = {}

    def of(
        self, data_dir: Path, rollout_id: str, state: str, now_ms: int
    ) -> tuple[RolloutDevices, int]:
        """Return the devices of a rollout in a state, and when they were so: now or a moment ago.

        Raises:
            Refused, BadPolicy, OSError: as `devices_of`.
        """
        key = data_dir, rollout_id, state
        with self._lock:  # one at a time: all others want the same one
            begin = time.monotonic()
            until, found = self._found.get(key, (0.0, None))
            if found is None or begin >= until:
                found = devices_of(data_dir, rollout_id, now_ms), now_ms
                now = time.monotonic()
                until = now + max(_LEAST_SECONDS, _KEPT_TIMES * (now - begin))
                self._found.pop(key, None)
                while len(self._found) >= _MOST_KEPT:
                    del self._found[next(iter(self._found))]
                self._found[key] = until, found
            return found


_lists = DeviceLists()


def devices_part(
    product: str,
    data_dir: Path,
    rollout_id: str,
    detail: RolloutDetail | None,
    asked: Asked,
    clock_ms: Callable[[], int],
) -> Html:
    """Return the part of a page that names the devices of a rollout.

    Args:
        detail: None: it is over.
        clock_ms: the time; it goes on while the journal is read.
    """
    heading = element("h2", "Devices that are not updated")
    if detail is not None and detail.progress is None:
        return live(
            "devices", "rollouts", heading, element("p", "No wave is open.", class_="quiet")
        )
    try:
        state_now = detail.state if detail else ""
        found, as_of_ms = _lists.of(data_dir, rollout_id, state_now, clock_ms())
    except Refused as problem:
        return live("devices", "rollouts", heading, element("p", with_code(f"{problem}.")))
    wanted = asked.one("state")
    url = rollout_url(product, rollout_id)
    labels, now_ms = read_labels(data_dir), clock_ms()
    listed = [each for each in found.devices if wanted in ("", each.state)]
    is_old = detail is not None and detail.is_on and now_ms - as_of_ms >= _OLD_MS
    return live(
        "devices",
        "rollouts",
        heading,
        element("p", "As of ", when(as_of_ms, now_ms), ".", class_="quiet") if is_old else None,
        _ways(found.devices, wanted, url),
        [
            _group(product, group, labels, now_ms, url, _MANY if wanted else _FEW)
            for group in _by_reason(listed)
        ],
        element("p", f"{found.more:,} further ones are not on record.") if found.more else None,
    )


def _ways(devices: Sequence[ListedDevice], wanted: str, url: str) -> Html:
    counts = Counter(each.state for each in devices)
    if not counts:
        return element("p", "There are none.", class_="quiet")

    def one(word: str, words: str) -> Html:
        link_ = url_with(url, [("state", word)] if word else [])
        return element("a", words, href=f"{link_}#devices", aria_current=_page(word == wanted))

    each = [one(word, f"{state_in_words(word)}: {count:,}") for word, count in counts.items()]
    ways = [one("", f"All: {len(devices):,}"), *each]
    return element(
        "nav", [(way, " ") for way in ways], class_="products", aria_label="Devices by state"
    )


def _page(is_here: bool) -> str | None:
    return "page" if is_here else None


def _by_reason(devices: Sequence[ListedDevice]) -> Iterator[Sequence[ListedDevice]]:
    """Yield devices that have state and reason in common: most have one of a few."""
    groups: dict[tuple[str, str], list[ListedDevice]] = {}
    for each in devices:
        groups.setdefault((each.state, each.reason), []).append(each)
    yield from groups.values()


def _group(
    product: str,
    devices: Sequence[ListedDevice],
    labels: Mapping[str, str],
    now_ms: int,
    url: str,
    most: int,
) -> Node:
    first = devices[0]
    rows = [
        (
            link(device_url(product, each.mac), each.mac),
            labels.get(each.mac, ""),
            each.firmware_version or "-",
            time_of(each.last_seen_time, now_ms) if each.last_seen_time else "not on record",
            each.address,
        )
        for each in devices[:most]
    ]
    more = len(devices) - len(rows)
    return (
        element(
            "h3",
            state(_COLOURS.get(first.state, "away"), state_in_words(first.state)),
            f", {count_of(len(devices), 'device')}: {first.reason}",
        ),
        table(("MAC or id", "Label", "Reports", "Last seen", "Address"), rows),
        element("p", _more(more, url, first.state, most)) if more else None,
    )


def _more(more: int, url: str, word: str, most: int) -> Node:
    if most == _MANY:
        return with_code(f"{number(more)} more are not shown; `rollout devices` lists all.")
    return link(f"{url_with(url, [('state', word)])}#devices", f"Show {number(more)} more")
