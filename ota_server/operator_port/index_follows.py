"""What was just done to devices shows in the index a moment later: wait for that. I/O."""

from collections.abc import Callable, Mapping, Sequence

from ota_server.model.version import same_version
from ota_server.operations.bulk_edits import BulkAction, BulkChange
from ota_server.operations.device_index import IndexAway, IndexedDevice
from ota_server.operator_port.site import Site
from ota_server.policy.reason import Reason

# An action never takes longer for it; after that the page shows what the index has.
_MOST_SECONDS = 3.0
# Of many devices so many are asked about from each end: the index takes them in order.
_ASKED = 5


def await_shown(site: Site, change: BulkChange, keys: Sequence[str]) -> bool:
    """Wait until the index shows a change of devices that was made; False: too long.

    Args:
        keys: the devices; of many only a few are asked about.
    """
    left = [*dict.fromkeys((*keys[:_ASKED], *keys[-_ASKED:]))]

    def is_shown() -> bool:
        while left and _shows(site, change, left[-1]):
            left.pop()
        return not left

    try:
        return site.awaits(is_shown, _MOST_SECONDS)
    except IndexAway:
        return False


def _shows(site: Site, change: BulkChange, key: str) -> bool:
    device = site.index.device(key)
    if change.action is BulkAction.FORGET or device is None:
        # Of one that is not on record, only that shows.
        return device is None
    return _LOOKS[change.action](device, change)


def _is_pinned(device: IndexedDevice, change: BulkChange) -> bool:
    if not device.is_pinned or device.reason not in (Reason.PIN, Reason.GROUP_PIN):
        return device.is_pinned
    return device.release is not None and same_version(device.release, change.version)


def _is_unpinned(device: IndexedDevice, _: BulkChange) -> bool:
    return not device.is_pinned or device.reason is Reason.GROUP_PIN


_LOOKS: Mapping[BulkAction, Callable[[IndexedDevice, BulkChange], bool]] = {
    BulkAction.PIN: _is_pinned,
    BulkAction.UNPIN: _is_unpinned,
    # How the device is may stay as it was.
    BulkAction.RETRY: lambda _device, _change: True,
    BulkAction.LABEL: lambda device, change: device.label == change.label,
    BulkAction.ADD: lambda device, change: change.group in device.groups,
    BulkAction.REMOVE: lambda device, change: change.group not in device.groups,
}
