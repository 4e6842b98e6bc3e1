"""How the devices of one product are, for the index, and which may be otherwise than before. I/O.

What decides is read when `look` is called. What that changes for devices:

| what changed | for which devices |
|---|---|
| a pin, a group's members, a label, a retry, what a rollout says of devices | for those named |
| a pin came to its end | for those pinned |
| anything else: a target, a wave, a rollout's state, a manifest, the hold, the window | for all |

How many devices did what under a rollout decides nothing, so its counts change nothing here. Nor do
momentary things count: whether a download slot is free, whom the window lets in all the same.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.device_port.admission_status import read_server_state
from ota_server.model.device import Device
from ota_server.model.identity import key_of_name, name_of
from ota_server.model.version import same_version
from ota_server.operations.device_filter import Apart
from ota_server.operations.index_judged import JudgedDevices
from ota_server.operations.index_row import IndexedState, stage_of
from ota_server.policy.device_state import QUIET_MS, Condition, Told, condition_when
from ota_server.policy.files import PolicyFiles
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.gather import FleetSituation, gather_fleet
from ota_server.policy.labels import FILE_NAME as LABELS_NAME
from ota_server.policy.labels import read_labels
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Reason
from ota_server.policy.situation import ServerState
from ota_server.rollouts.audience import pinned
from ota_server.system.data_dir import log_dir, product_at
from ota_server.system.files import Stamp, stamp_at

# An image whose bytes are replaced in place, and a device that falls silent under a rollout.
_LOOK_AGAIN_SECONDS = 60.0
_REJECTED = (Reason.WITHDRAWN, Reason.STOPPED)
# Under a hold, which is what a bad release leads to, they must not drop out of the count.
_ALWAYS_COUNTED = (Condition.FAILED, Condition.SILENT)
NOBODY = frozenset[str]()


class _Decided(NamedTuple):
    """What is behind a situation; equal: it is as it was."""

    policy: Policy
    server: ServerState
    stamps: tuple[Stamp | None, ...]


class ProductStates:
    """Says how the devices of one product are. Used by one thread.

    Attributes:
        now_ms: the moment for which it says that.
    """

    def __init__(self, data_dir: Path, now_ms: int) -> None:
        """Read what decides.

        Args:
            data_dir: of the product.
        """
        self.now_ms = now_ms
        self._data_dir = data_dir
        self._product = product_at(data_dir)
        server = _lasting(read_server_state(log_dir(data_dir)))
        self._policies = PolicyFiles(data_dir, server.keeps_ungrouped, server.unserved)
        self._judged = JudgedDevices(data_dir)
        self._labels: Mapping[str, str] = {}
        self._labels_stamp: Stamp | None = None
        self._look_again_at = 0.0
        self._read_before: _Decided | None = None
        self._pinned = NOBODY
        self._pins_end_ms: int | None = 0
        self._fleet = gather_fleet(data_dir, now_ms, server, self._policies.current())
        self.look(now_ms)

    def look(self, now_ms: int) -> frozenset[str] | None:
        """Read what has changed; return the keys of the devices that concerns, None: all."""
        now = time.monotonic()
        is_thorough = now >= self._look_again_at
        if is_thorough:
            self._look_again_at = now + _LOOK_AGAIN_SECONDS
        touched = self._look_at_policy(now_ms, is_thorough)
        named = {key_of_name(self._product, each) for each in self._look_at_names(is_thorough)}
        self.now_ms = now_ms
        self._fleet = self._fleet._replace(now_ms=now_ms)
        self._conditions = FleetConditions(self._data_dir, self._fleet, self._judge)
        return None if touched is None else touched | named

    def _look_at_policy(self, now_ms: int, is_thorough: bool) -> frozenset[str] | None:
        server = _lasting(read_server_state(log_dir(self._data_dir)))
        if server.keeps_ungrouped != self._fleet.server.keeps_ungrouped:
            self._policies = PolicyFiles(self._data_dir, server.keeps_ungrouped, server.unserved)
        self._policies.unserved = server.unserved
        self._policies.look_after()
        policy, before = self._policies.latest, self._fleet
        folders = (self._data_dir / "version" / "version.txt", self._data_dir / "firmware")
        read = _Decided(policy, server, tuple(map(stamp_at, folders)))
        if read != self._read_before or is_thorough:
            self._read_before = read
            self._fleet = gather_fleet(self._data_dir, now_ms, server, policy)
        is_end_of_pin = self._pins_end_ms is not None and now_ms >= self._pins_end_ms
        if policy is before.policy and not is_end_of_pin:
            return _touched(before, self._fleet)
        before_pinned, self._pinned = self._pinned, pinned(policy, now_ms)
        self._pins_end_ms = _first_end_ms(policy, now_ms)
        touched = _touched(before, self._fleet)
        return None if touched is None else touched | (before_pinned ^ self._pinned)

    def _look_at_names(self, is_thorough: bool) -> set[str]:
        """Return the names of devices whose labels have changed, or what rollouts say of them."""
        names = set(self._judged.look(self.now_ms))
        if is_thorough:
            names.update(self._judged.found)
        stamp = stamp_at(self._data_dir / "version" / LABELS_NAME)
        if stamp != self._labels_stamp:
            self._labels_stamp = stamp
            before, self._labels = self._labels, read_labels(self._data_dir)
            names.update(name for name, _ in before.items() ^ self._labels.items())
        return names

    def _judge(self, key: str, device: Device) -> str:
        found = self._judged.found
        listed = found.get(name_of(key)) if found else None
        return "" if listed is None else listed.state_now(device, self.now_ms)

    def marks(self, key: str) -> tuple[str, tuple[str, ...]]:
        """Return the label and the groups of a device."""
        label = self._labels.get(name_of(key), "") if self._labels else ""
        return label, self._fleet.policy.groups.get(key, ())

    def state(self, key: str, device: Device) -> IndexedState:
        """Return how a device is."""
        told = self._conditions.told_to(key, device)
        judged = self._judge(key, device)
        condition, cause = condition_when(told, device, self.now_ms, judged)
        is_pinned = key in self._pinned
        return IndexedState(
            condition,
            cause,
            told.release,
            stage_of(device, told),
            condition is Condition.SILENT or told.condition is not Condition.UP_TO_DATE,
            is_pinned,
            _apart(condition, cause.reason, is_pinned),
            self._due_ms(told, device),
        )

    def _due_ms(self, told: Told, device: Device) -> int | None:
        """Return when a device may be in another state although nothing is heard of it."""
        due_ms = told.cause.until_ms
        download = device.download
        if download is not None and download.attempts:
            is_quiet = max(device.last_seen_ms, download.request_ms) <= download.attempt_ms
            if is_quiet and not same_version(told.running, download.version):
                quiet_ms = download.attempt_ms + QUIET_MS
                due_ms = quiet_ms if due_ms is None else min(due_ms, quiet_ms)
        return due_ms if due_ms is not None and due_ms > self.now_ms else None


def _lasting(server: ServerState) -> ServerState:
    """Return what a server says of itself without what passes in a moment.

    That the controller looks after rollouts is taken for granted: it is the one who asks.
    """
    return server._replace(
        attended=None,
        is_journal_failing=False,
        is_table_full=False,
        taken_slots=0,
        let_in=frozenset(),
        is_policy_usable=True,
    )


def _apart(condition: Condition, reason: Reason, is_pinned: bool) -> Apart | None:
    if condition in _ALWAYS_COUNTED:
        return None
    if reason is Reason.ON_HOLD:
        return Apart.HELD
    if is_pinned:
        return Apart.PINNED
    return Apart.REJECTED if reason in _REJECTED else None


def _touched(before: FleetSituation, after: FleetSituation) -> frozenset[str] | None:
    """Return the keys of the devices for which two situations may differ; None: for all."""
    old, new = before.policy, after.policy
    if before._replace(now_ms=0, policy=new) != after._replace(now_ms=0):
        return None
    if old is new:
        return NOBODY
    if old._replace(**_by_key(new)) != new:
        return None
    return frozenset(
        key
        for one, other in (
            (old.pins, new.pins),
            (old.groups, new.groups),
            (old.retries, new.retries),
        )
        if one is not other
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key)
    )


def _by_key(policy: Policy) -> dict[str, Any]:
    """Return what of a policy is about single devices, and what follows from it."""
    return {
        "pins": policy.pins,
        "groups": policy.groups,
        "retries": policy.retries,
        "is_plain": policy.is_plain,
    }


def _first_end_ms(policy: Policy, now_ms: int) -> int | None:
    """Return when the next pin comes to its end; None: none does."""
    pins = (*policy.pins.values(), *policy.group_pins.values())
    ends = (pin.until_ms for pin in pins if pin.until_ms is not None and pin.until_ms > now_ms)
    return min(ends, default=None)
