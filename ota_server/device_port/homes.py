"""Where devices check from: what is fetched elsewhere, in a device's name, is not counted. Pure.

The loop breaker counts how often a device fetches an image, and then lets it wait. Whoever knows a
MAC address could have its device wait, by three downloads. So those alone count that go to the
address of the device's last check. After a start, downloads count up to the next check.

Whoever checks in the device's name as well still makes it wait. An earlier address would not help:
a check from a third one pushes it out. Nor can downloads count by address: a device that loops in a
mobile network, where its address changes, would never be stopped.
"""

from collections import OrderedDict

from ota_server.model.address import source_of
from ota_server.model.device import Device

# Devices that download, at 150 bytes each. Of more, those that began the longest ago are forgotten.
_MOST = 20_000


class Homes:
    """The addresses of the last checks of devices that download. The caller holds a lock."""

    def __init__(self) -> None:
        self._homes: OrderedDict[str, int] = OrderedDict()

    def is_home(self, key: str, before: Device | None, address: str) -> bool:
        """Return whether a device that asks for its image has checked from that address.

        Args:
            before: what was known of the device before this request.
        """
        if before is None:
            return True
        known = self._homes.get(key)
        # Its newest record is a check. A device that never checks stays where it was first.
        has_checked = before.last_seen_ms >= before.time_ms and not before.image_only
        if has_checked or (known is None and before.image_only):
            known = self._homes[key] = source_of(before.address)
            self._homes.move_to_end(key)
            if len(self._homes) > _MOST:
                self._homes.popitem(last=False)
        return known is None or known == source_of(address)
