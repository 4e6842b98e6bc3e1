"""What has changed since the last look, by the time stamps of files, whoever changed them. I/O.

An operator may act on another page, by a command, or with an editor; a rollout moves by itself. All
of it shows in files, so a look is a few dozen calls of `stat`, and reads nothing while nothing
changes. Only where the index of devices has changed it is asked which devices are new.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

from ota_server.journal import rejected
from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.operator_port.changes import Changes
from ota_server.operator_port.device_query import product_field
from ota_server.policy import audit
from ota_server.policy.labels import FILE_NAME as LABELS_NAME
from ota_server.policy.policy import (
    HOLD_NAME,
    PINS_NAME,
    RETRIES_NAME,
    STOPPED_NAME,
    TARGETS_NAME,
)
from ota_server.policy.targets import VERSION_NAME
from ota_server.rollouts.files import ENDED_NAME
from ota_server.system.data_dir import journal_dir, log_dir, product_dir, product_names

LOOK_SECONDS = 0.5
# A fleet of thousands says something all the time.
_DEVICES_SECONDS = 1.0
_MOST_NAMED = 5
_MOST_REMEMBERED = 500
_KINDS_IN_VERSION = {
    HOLD_NAME: "hold",
    VERSION_NAME: "releases",
    STOPPED_NAME: "releases",
    TARGETS_NAME: "releases",
    PINS_NAME: "devices",
    LABELS_NAME: "devices",
    RETRIES_NAME: "devices",
    "groups": "devices",
}
_Stamp = tuple[int, int, int]
# What a file was like, by kind, product and path.
_Stamps = Mapping[tuple[str, str, str], _Stamp]


class ChangeWatch:
    """Notes what has changed. Used by one thread."""

    def __init__(self, data_dir: Path, index: DeviceIndex, changes: Changes) -> None:
        """Begin: what is there now is nothing new."""
        self._data_dir = data_dir
        self._changes = changes
        self._stamps = dict(_stamps(data_dir))
        self._devices = _NewDevices(index)
        self._look_at = self._devices_at = 0.0
        self._has_new = False
        self._devices.look()

    def look(self) -> None:
        """Note what has changed; to be called often, since it looks twice a second."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        before, self._stamps = self._stamps, dict(_stamps(self._data_dir))
        if before != self._stamps:
            self._tell(before, self._stamps)
        if self._has_new and now >= self._devices_at:
            self._devices_at = now + _DEVICES_SECONDS
            self._has_new = False
            self._changes.note("devices", **self._devices.look())

    def _tell(self, before: _Stamps, after: _Stamps) -> None:
        both = before.keys() | after.keys()
        changed = {each[:2] for each in both if before.get(each) != after.get(each)}
        for kind, product in sorted(changed):
            if kind == "devices":
                self._has_new = True
            else:
                self._changes.note(kind, product=product_field(product))


class _NewDevices:
    """Which devices have appeared, as far as it is cheap to find out.

    The time of a first record is not known to the minute: those that are new within the hour are
    told from one another by being remembered.
    """

    def __init__(self, index: DeviceIndex) -> None:
        self._index = index
        self._total: int | None = None
        self._known: OrderedDict[str, None] = OrderedDict()

    def look(self) -> dict[str, object]:
        """Return how many devices there are, and which ones are new; nothing if it is not known."""
        try:
            total = self._index.summary().total
            before, self._total = self._total, total
            if before is None:
                self._remember(_MOST_REMEMBERED)
            more = 0 if before is None else total - before
            named = self._remember(more + _MOST_REMEMBERED // 10)[:_MOST_NAMED] if more > 0 else []
        except IndexAway:
            self._total = None
            return {}
        new = [{"product": product_field(product), "mac": name} for product, name in named]
        return {"total": total, "new": new}

    def _remember(self, limit: int) -> list[tuple[str, str]]:
        """Return the newest devices that are not known yet, and know them from now on."""
        rows = self._index.page(
            sort="first", descending=True, limit=min(limit, _MOST_REMEMBERED)
        ).rows
        new = [(row.product, row.name) for row in rows if row.key not in self._known]
        for row in reversed(rows):
            self._known[row.key] = None
            self._known.move_to_end(row.key)
        while len(self._known) > 2 * _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return new


def _stamps(root: Path) -> Iterator[tuple[tuple[str, str, str], _Stamp]]:
    """Yield what the files are like that are looked at."""
    for name in ("index.sqlite", "index.sqlite-wal"):
        yield from _stamp("devices", "", journal_dir(root) / name)
    yield from _stamp("rejected", "", journal_dir(root) / rejected.FILE_NAME)
    for product in ("", *product_names(root)):
        folder = product_dir(root, product)
        yield from _stamp("releases", product, folder / "firmware")
        yield from _stamp("audit", product, log_dir(folder) / audit.FILE_NAME)
        yield from _stamp("rollouts", product, log_dir(folder) / ENDED_NAME)
        try:
            names = os.listdir(folder / "version")
        except OSError:
            continue
        for name in names:
            if kind := _kind_in_version(name):
                yield from _stamp(kind, product, folder / "version" / name)


def _kind_in_version(name: str) -> str | None:
    if name.endswith(".json") and name.startswith(("rollout", "progress")):
        return "rollouts"
    return _KINDS_IN_VERSION.get(name)


def _stamp(kind: str, product: str, path: Path) -> Iterator[tuple[tuple[str, str, str], _Stamp]]:
    try:
        found = os.stat(path)
    except OSError:
        return
    yield (kind, product, str(path)), (found.st_mtime_ns, found.st_size, found.st_ino)
