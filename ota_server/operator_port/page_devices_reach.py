"""What an action will do to which devices, in sentences. I/O: it asks the index."""

from collections.abc import Iterable, Iterator

from ota_server.model.identity import name_of
from ota_server.model.quantity import count_of
from ota_server.model.version import same_version
from ota_server.operations.bulk_edits import BulkAction, BulkChange, BulkPreview
from ota_server.operations.device_index import IndexedDevice
from ota_server.operator_port.html import Node, element
from ota_server.operator_port.page_devices_bar import ROLL_OUT
from ota_server.operator_port.page_devices_meant import MeantDevices
from ota_server.operator_port.pieces import number
from ota_server.operator_port.sentences import until_text
from ota_server.operator_port.site import Site
from ota_server.policy.files import PolicyFiles

_DOES = {
    BulkAction.PIN.value: "pins {devices} to {version}",
    BulkAction.UNPIN.value: "ends the {pins} of {devices}",
    BulkAction.RETRY.value: "lets {devices} fetch {their} release again at once",
    BulkAction.LABEL.value: "labels {devices} {label}",
    BulkAction.FORGET.value: "forgets {devices}: a device that asks again is a new one",
    BulkAction.ADD.value: "adds {devices} to the group {group}",
    BulkAction.REMOVE.value: "removes {devices} from the group {group}",
    ROLL_OUT: "makes {devices} the group {group}; then you choose the release",
}


def reach_sentences(
    site: Site, meant: MeantDevices, change: BulkChange, found: BulkPreview
) -> Iterator[Node]:
    """Yield what an action will do, and to how many devices.

    Raises:
        IndexAway: there is no index now.
    """
    is_one = found.changing == 1
    words = _DOES[meant.action].format(
        devices=_devices(site, meant, found),
        version=change.version,
        group=change.group,
        label=_label_words(change, is_one),
        pins="pin" if is_one else "pins",
        their="its" if is_one else "their",
    )
    yield element("strong", f"This {words}{until_text(change.until_ms)}.")
    if change.action is BulkAction.PIN:
        yield from _updates(site, meant, change.version)
    if found.already:
        stays = "stays as it is" if found.already == 1 else "stay as they are"
        yield f"{number(found.already)} of these {stays}."


def _devices(site: Site, meant: MeantDevices, found: BulkPreview) -> str:
    """Return how many devices change; one that was named, by its name and its label."""
    if len(meant.keys) != 1:
        return count_of(found.changing, "device")
    device = site.index.device(meant.keys[0])
    label = f" ({device.label})" if device is not None and device.label else ""
    return f"the device {name_of(meant.keys[0])}{label}"


def _label_words(change: BulkChange, is_one: bool) -> str:
    if change.label:
        return f"“{change.label}”"
    return f"with nothing: {'its label goes' if is_one else 'their labels go'}"


def _updates(site: Site, meant: MeantDevices, version: str) -> Iterator[str]:
    """Yield how many devices that are pinned report another version than that, if any does."""
    policy = PolicyFiles(site.folder_of(meant.product)).current()
    others = [
        each.version
        for each in _on_record(site, meant)
        if not same_version(policy.release_of(each.version), version)
    ]
    if others and len(meant.keys) == 1:
        yield f"It reports {others[0]}, and changes to {version}."
    elif others:
        does = "reports another version, and changes"
        do = "report another version, and change"
        yield f"{number(len(others))} of these {does if len(others) == 1 else do} to {version}."


def _on_record(site: Site, meant: MeantDevices) -> Iterable[IndexedDevice]:
    if meant.is_all:
        return site.index.rows(meant.wanted)
    return filter(None, map(site.index.device, meant.keys))
