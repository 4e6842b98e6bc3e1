"""The devices of a rollout that are not updated, by name and with their reason. I/O.

To find them may take a while for a large fleet. So a list is kept for ten times as long as it took
of the processor: a page that changes by itself asks again and again.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from ota_server.model.quantity import count_of
from ota_server.model.refusal import Refused
from ota_server.operations.rollout_devices import GroupedDevices, groups_of
from ota_server.operations.rollout_facts import RolloutDetail
from ota_server.operations.rollout_listing import ListedGroup, LiveRollouts
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
from ota_server.operator_port.site import Site
from ota_server.policy.labels import read_labels
from ota_server.rollouts.outcome_list import state_in_words

_LEAST_SECONDS = 0.3
_KEPT_TIMES = 10
_MOST_KEPT = 32
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
        self._turns: dict[tuple[Path, str, str], Lock] = {}
        self._found: dict[tuple[Path, str, str], tuple[float, GroupedDevices]] = {}

    def of(
        self, data_dir: Path, rollout_id: str, state: str, now_ms: int, live: LiveRollouts
    ) -> GroupedDevices:
        """Return the devices of a rollout in a state, as they are now or were a moment ago.

        Raises:
            Refused, BadPolicy, OSError: as `groups_of`.
        """
        key = data_dir, rollout_id, state
        with self._lock:
            turn = self._turns.setdefault(key, Lock())
        with turn:  # one finds it, and all others who want the same one wait
            until, found = self._found.get(key, (0.0, None))
            if found is None or time.monotonic() >= until:
                # Not the time on the clock: a wait for the processor says nothing of the work.
                begin = time.thread_time()
                found = groups_of(data_dir, rollout_id, now_ms, _MANY, live)
                took = time.thread_time() - begin
                self._keep(key, time.monotonic() + max(_LEAST_SECONDS, _KEPT_TIMES * took), found)
            return found

    def _keep(self, key: tuple[Path, str, str], until: float, found: GroupedDevices) -> None:
        with self._lock:
            self._found.pop(key, None)
            self._found[key] = until, found
            while len(self._found) > _MOST_KEPT:
                del self._found[next(iter(self._found))]
            for other in [*self._turns]:
                if other != key and other not in self._found and not self._turns[other].locked():
                    del self._turns[other]


_lists = DeviceLists()


def devices_part(
    site: Site,
    product: str,
    data_dir: Path,
    rollout_id: str,
    detail: RolloutDetail | None,
    asked: Asked,
) -> Html:
    """Return the part of a page that names the devices of a rollout.

    Args:
        detail: None: it is over.
    """
    heading = element("h2", "Devices that are not updated")
    if detail is not None and detail.progress is None:
        return live(
            "devices", "rollouts", heading, element("p", "No wave is open.", class_="quiet")
        )
    try:
        state_now = detail.state if detail else ""
        found = _lists.of(data_dir, rollout_id, state_now, site.now_ms(), site.rollouts)
    except Refused as problem:
        return live("devices", "rollouts", heading, element("p", with_code(f"{problem}.")))
    wanted = asked.one("state")
    url = rollout_url(product, rollout_id)
    labels, now_ms = read_labels(data_dir), site.now_ms()  # it went on meanwhile
    is_old = detail is not None and detail.is_on and now_ms - found.as_of_ms >= _OLD_MS
    as_of = element("p", "As of ", when(found.as_of_ms, now_ms), ".", class_="quiet")
    return live(
        "devices",
        "rollouts",
        heading,
        as_of if is_old else None,
        _ways(found.groups, wanted, url),
        [
            _group(product, group, labels, now_ms, url, _MANY if wanted else _FEW)
            for group in found.groups
            if wanted in ("", group.state)
        ],
        element("p", f"{found.more:,} further ones are not on record.") if found.more else None,
    )


def _ways(groups: Sequence[ListedGroup], wanted: str, url: str) -> Html:
    counts = Counter[str]()
    for group in groups:
        counts[group.state] += group.total
    if not counts:
        return element("p", "There are none.", class_="quiet")

    def one(word: str, words: str) -> Html:
        link_ = url_with(url, [("state", word)] if word else [])
        return element("a", words, href=f"{link_}#devices", aria_current=_page(word == wanted))

    each = [one(word, f"{state_in_words(word)}: {count:,}") for word, count in counts.items()]
    ways = [one("", f"All: {counts.total():,}"), *each]
    return element(
        "nav", [(way, " ") for way in ways], class_="products", aria_label="Devices by state"
    )


def _page(is_here: bool) -> str | None:
    return "page" if is_here else None


def _group(
    product: str,
    group: ListedGroup,
    labels: Mapping[str, str],
    now_ms: int,
    url: str,
    most: int,
) -> Node:
    rows = [
        (
            link(device_url(product, each.mac), each.mac),
            labels.get(each.mac, ""),
            each.firmware_version or "-",
            time_of(each.last_seen_time, now_ms) if each.last_seen_time else "not on record",
            each.address,
        )
        for each in group.devices[:most]
    ]
    more = group.total - len(rows)
    return (
        element(
            "h3",
            state(_COLOURS.get(group.state, "away"), state_in_words(group.state)),
            f", {count_of(group.total, 'device')}: {group.reason}",
        ),
        table(("MAC or id", "Label", "Reports", "Last seen", "Address"), rows),
        element("p", _more(more, url, group.state, most)) if more else None,
    )


def _more(more: int, url: str, word: str, most: int) -> Node:
    if most == _MANY:
        return with_code(f"{number(more)} more are not shown; `rollout devices` lists all.")
    return link(f"{url_with(url, [('state', word)])}#devices", f"Show {number(more)} more")
