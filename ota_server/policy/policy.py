"""Policy: what operators have decided, as values. `parse` reads them from their files. Pure.

One value holds all of it, made again when a file has changed; `decision` asks it.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from ota_server.model.manifest import Manifest
from ota_server.model.version import meaning

HOLD_NAME = "hold.json"
PINS_NAME = "pins.json"
TARGETS_NAME = "targets.json"
STOPPED_NAME = "stopped.json"
RETRIES_NAME = "retries.json"
# Images that say one of these name the very chip, not an architecture. Not `ESP chip 99`: a newer
# server may know its name.
_CHIP_NAME = re.compile(r"ESP(?:32|8266)|RP2|SAMD|nRF")
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_\-]{0,31}")


class Pin(NamedTuple):
    """A release that a device or a group stays on, until `until_ms`; None: for ever."""

    version: str
    until_ms: int | None


class StoppedState(StrEnum):
    """Why devices are no longer offered a release, as in stopped.json."""

    WITHDRAWN = "withdrawn"
    ABORTED = "aborted"


class Stopped(NamedTuple):
    """A release that was withdrawn, or whose rollout was aborted.

    Devices that run it stay on it until their target differs from what it was when the release was
    stopped: `instead_of`, the fleet's target, or their group's, if it had its own. None: until the
    stop is lifted.
    """

    version: str
    is_withdrawn: bool
    instead_of: str | None
    group_targets: Mapping[str, str] = {}


class RolloutState(StrEnum):
    """The state of a rollout; `rollout_plan` shows what leads from one to another."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    DONE = "done"
    ABORTED = "aborted"


class Rollout(NamedTuple):
    """A rollout, as decisions need it.

    Attributes:
        state: running, or paused: then no further devices are offered it.
        percent: of the fleet or the group, by `cohort_percent`.
        first_group: its members are in every wave; None: there is no first group.
        held_unknown: what a device that is held back is told if its version is not a known
            release: keep (its own) or target.
        groups_too: the fleet's rollout includes groups that have their own target.
        reverts: the release that it leads back from; None: it is not a revert.
    """

    version: str
    state: RolloutState
    percent: float
    first_group: str | None = None
    held_unknown: str = "keep"
    groups_too: bool = False
    reverts: str | None = None


class Policy(NamedTuple):
    """All that operators have decided; keys of versions are their meanings.

    Attributes:
        problem: a file that could not be read at the start: no device is offered anything.
        pins: by key (`model.identity`).
        group_targets: the targets of groups that have their own.
        groups: the groups of a device by its key, in alphabetical order.
        rollouts: by group; "" is the whole fleet.
        manifests: of published releases.
        unusable: releases whose manifest cannot be read, and why.
        images: releases that have an image.
        unserved: releases whose image the running server cannot serve, and why.
        aliases: the version of a release by what its devices report.
        hashes: the version of a release by the hashes that its devices report of it.
        retries: when an operator ran `retry` for a device, by key, in ms.
        product: whose policy it is, "" for the default one.
        has_several_chips: the releases are for chips of more than one kind.
        keeps_ungrouped: a device in no group is told its own version, unless it is pinned.
    """

    problem: str = ""
    is_held: bool = False
    pins: Mapping[str, Pin] = {}
    group_pins: Mapping[str, Pin] = {}
    group_targets: Mapping[str, str] = {}
    stopped: Mapping[str, Stopped] = {}
    groups: Mapping[str, tuple[str, ...]] = {}
    rollouts: Mapping[str, Rollout] = {}
    manifests: Mapping[str, Manifest] = {}
    unusable: Mapping[str, str] = {}
    images: frozenset[str] = frozenset()
    unserved: Mapping[str, str] = {}
    aliases: Mapping[str, str] = {}
    hashes: Mapping[str, str] = {}
    retries: Mapping[str, int] = {}
    keeps_ungrouped: bool = False
    is_plain: bool = True
    has_several_chips: bool = False
    product: str = ""

    def release_of(self, reported: str) -> str:
        """Return the version of the release that a device runs, by what it reports."""
        return self.aliases.get(reported, reported)

    def is_withdrawn(self, version: str) -> bool:
        """Return whether a version was withdrawn."""
        stopped = self.stopped.get(meaning(version)) if self.stopped else None
        return stopped is not None and stopped.is_withdrawn


def is_group_name(text: str) -> bool:
    """Return whether `text` may name a group: a letter, then up to 31 of a-z 0-9 _ -."""
    return _GROUP_NAME.fullmatch(text) is not None


def known_chip(chip: str | None) -> str | None:
    """Return the chip that an image is for; None: it says none that is the chip of a device."""
    return chip if chip is not None and _CHIP_NAME.match(chip) else None


def make_policy(
    *,
    problem: str = "",
    is_held: bool = False,
    pins: tuple[Mapping[str, Pin], Mapping[str, Pin]] = ({}, {}),
    group_targets: Mapping[str, str] | None = None,
    stopped: Mapping[str, Stopped] | None = None,
    groups: Mapping[str, tuple[str, ...]] | None = None,
    rollouts: Mapping[str, Rollout] | None = None,
    manifests: Mapping[str, Manifest] | None = None,
    unusable: Mapping[str, str] | None = None,
    images: frozenset[str] = frozenset(),
    unserved: Mapping[str, str] | None = None,
    retries: Mapping[str, int] | None = None,
    keeps_ungrouped: bool = False,
    product: str = "",
) -> Policy:
    """Put a policy together from what the files hold."""
    manifests = manifests or {}
    aliases = {each.reports_as: each.version for each in manifests.values() if each.reports_as}
    has_stepping_stones = any(manifest.via for manifest in manifests.values())
    chips = {known_chip(each.chip) for each in manifests.values() if not each.any_chip}
    has_several_chips = len(chips - {None}) > 1
    decided = (problem, is_held, *pins, group_targets, stopped, rollouts, unusable, unserved)
    return Policy(
        problem=problem,
        is_held=is_held,
        pins=pins[0],
        group_pins=pins[1],
        group_targets=group_targets or {},
        stopped=stopped or {},
        groups=groups or {},
        rollouts=rollouts or {},
        manifests=manifests,
        unusable=unusable or {},
        images=images,
        unserved=unserved or {},
        aliases=aliases,
        hashes=_hashes(manifests.values()),
        retries=retries or {},
        keeps_ungrouped=keeps_ungrouped,
        is_plain=not any(
            (*decided, keeps_ungrouped, aliases, has_stepping_stones, has_several_chips)
        ),
        has_several_chips=has_several_chips,
        product=product,
    )


def _hashes(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Return which version has a hash; of two releases with the same bytes, the newer one."""
    found = {}
    for manifest in sorted(manifests, key=lambda each: each.time):
        for each in (manifest.sha256, manifest.md5, *manifest.reported_hashes):
            found[each] = manifest.version
    return found
