"""All devices on record, for commands: from the index where it is current, else from the journal.

Both ways give the same devices in the same order; from the index it takes a fraction of the time
where a filter lets few of them through. How devices are is found out by whoever asks. I/O.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from ota_server.journal.replay import Replay, replay
from ota_server.model.device import Device
from ota_server.model.identity import product_of
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.system.data_dir import journal_dir

_Answer = TypeVar("_Answer")


class FleetSource(Protocol):
    """Where devices are read from.

    Attributes:
        bad_lines: how many lines of the journal were skipped because they were not records.
    """

    bad_lines: int

    def devices(
        self, product: str, wanted: DeviceFilter, now_ms: int
    ) -> Iterator[tuple[str, Device]]:
        """Yield devices of a product: those that a filter lets through, and maybe others."""

    def number_of_devices(self, products: Collection[str]) -> int:
        """Return how many devices of some products are on record."""


class _IndexSource:
    bad_lines = 0

    def __init__(self, index: DeviceIndex) -> None:
        self.devices = index.devices
        self.number_of_devices = index.number_of_devices


class _ReplaySource:
    def __init__(self, found: Replay) -> None:
        self._found = found
        self.bad_lines = found.bad_lines

    def devices(
        self, product: str, wanted: DeviceFilter, now_ms: int
    ) -> Iterator[tuple[str, Device]]:
        return self._found.devices(product)

    def number_of_devices(self, products: Collection[str]) -> int:
        found = self._found
        if not found.names.hashed and "" in products:
            return len(found.locations)
        keys = map(found.names.key_of, found.locations)
        return sum(product_of(key) in products for key in keys)


def ask_fleet(data_dir: Path, ask: Callable[[FleetSource], _Answer]) -> _Answer:
    """Return what `ask` returns of all devices that are on record.

    Args:
        data_dir: of the server, or of one of its products.
        ask: is called again where the index is lost meanwhile.

    Raises:
        OSError: the journal cannot be read.
    """
    index = DeviceIndex(data_dir)
    try:
        if index.is_current():
            return ask(_IndexSource(index))
    except IndexAway:
        pass
    finally:
        index.close()
    found = replay(journal_dir(data_dir))
    try:
        return ask(_ReplaySource(found))
    finally:
        found.close()
