"""In which condition each device on record is, and how many are in each. I/O."""

from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path

from ota_server.journal.replay import replay
from ota_server.model.device import Device, Report
from ota_server.model.identity import name_of
from ota_server.model.updater import Updater
from ota_server.policy.device_state import (
    HELD_BY,
    Condition,
    DeviceCondition,
    Told,
    condition_when,
    told_now,
)
from ota_server.policy.explain import in_words, with_turn
from ota_server.policy.fleet_status import DeviceCounts
from ota_server.policy.gather import FleetSituation, image_on_disk
from ota_server.policy.reason import Cause, Reason

_MOST_NAMED = 1000

# Most devices of a fleet have one of a few causes.
_words = lru_cache(maxsize=1024)(in_words)


class FleetConditions:
    """Says how any device is, at one moment.

    Most devices of a fleet are told the same, so what those are told that run one version, by
    updaters that are alike, is found out once: it depends on a MAC only by groups, pins and
    rollouts, and by whose turn it is.
    """

    def __init__(
        self, data_dir: Path, fleet: FleetSituation, judged: Callable[[str, Device], str]
    ) -> None:
        """Take what devices have in common.

        Args:
            judged: returns what `condition_of` takes as that, for a MAC and its device.
        """
        self._fleet = fleet
        self.product = fleet.policy.product
        self._judged = judged
        self._image_of = cache(partial(image_on_disk, data_dir / "firmware"))
        self._told: dict[tuple[str, Updater | None, bool, tuple[str, ...]], Told] = {}

    def of(self, mac: str, device: Device) -> DeviceCondition:
        """Return how a device is."""
        told = self.told_to(mac, device)
        return condition_when(told, device, self._fleet.now_ms, self._judged(mac, device))

    def is_outdated(self, mac: str, device: Device) -> bool:
        """Return whether a device runs another release than it should, however it is.

        One that fell silent after an update does not run what it reported before that.
        """
        is_silent = self.of(mac, device).condition is Condition.SILENT
        return is_silent or self.told_to(mac, device).condition is not Condition.UP_TO_DATE

    def in_words(self, mac: str, cause: Cause) -> str:
        """Return why a device gets what it gets."""
        return _words(with_turn(cause, mac, self._fleet.policy))

    def told_to(self, mac: str, device: Device) -> Told:
        """Return what a device is told if it asks now."""
        fleet, policy = self._fleet, self._fleet.policy
        version, updater = device.firmware_version, device.updater
        if not policy.rollouts and mac not in policy.pins and fleet.server.put_off(mac) is None:
            key = (
                version,
                updater,
                fleet.is_local(device.address),
                policy.groups.get(mac, ()),
            )
            told = self._told.get(key)
            if told is None:
                situation = fleet.situation(mac, device._replace(download=None, action=None))
                told = told_now(Report(mac, version, updater), situation, self._image_of)
                self._told[key] = told
            # What a device has fetched or reported matters only where it is offered something.
            is_new = device.download is None and device.action is None
            if is_new or not told.is_offered:
                return told
        report = Report(mac, version, updater)
        return told_now(report, fleet.situation(mac, device), self._image_of)


def count_devices(log_dir: Path, conditions: FleetConditions) -> DeviceCounts:
    """Count all devices on record.

    Raises:
        OSError: the journal cannot be read.
    """
    counts, held, versions = Counter[Condition](), Counter[str](), Counter[str]()
    broken: dict[Reason, list[str]] = {Reason.STUCK: [], Reason.REPEATED: []}
    found = replay(log_dir)
    try:
        for mac, device in found.devices(conditions.product):
            condition, cause = conditions.of(mac, device)
            counts[condition] += 1
            versions[device.firmware_version] += 1
            if condition is Condition.HELD_BACK:
                held[HELD_BY.get(cause.reason, cause.reason.value)] += 1
            if cause.reason in broken and len(broken[cause.reason]) < _MOST_NAMED:
                broken[cause.reason].append(name_of(mac))
    finally:
        found.close()
    stuck, waiting = (tuple(macs) for macs in broken.values())
    return DeviceCounts(counts.total(), counts, held, versions, stuck, waiting, found.bad_lines)
