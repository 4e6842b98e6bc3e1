"""What pages show of a release: its states, how many devices run it. No I/O."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ota_server.model.version import spellings
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.release_facts import ReleaseFacts
from ota_server.operator_port.html import Node, joined
from ota_server.operator_port.pieces import state

# The colours of states by their words; others are neither good nor bad.
_COLOURS = {
    "target": "good",
    "rollout": "going",
    "withdrawn": "bad",
    "aborted": "back",
    "no image": "bad",
    "bad manifest": "bad",
    "altered": "bad",
    "unreadable": "bad",
    "not served": "bad",
}
_SHORT = 12


def release_states(facts: ReleaseFacts) -> Node:
    """Return the states of a release with their colours."""
    return (
        joined(" ", [state(_COLOURS.get(each, "away"), each) for each in facts.states])
        or "not in use"
    )


def short(digest: str) -> str:
    """Return the beginning of a digest, by which people tell two apart."""
    return digest[:_SHORT]


def reported_by(facts: ReleaseFacts) -> tuple[str, ...]:
    """Return what devices report that run a release."""
    manifest = facts.release.manifest
    others = (manifest.reports_as,) if manifest is not None and manifest.reports_as else ()
    return (facts.version, *others)


class ReleaseReach(NamedTuple):
    """How many devices report each version, and were told each version last."""

    running: Mapping[str, int]
    told: Mapping[str, int]

    def runs(self, facts: ReleaseFacts) -> int:
        """Return how many devices run a release."""
        return _of(self.running, reported_by(facts))

    def were_told(self, facts: ReleaseFacts) -> int:
        """Return how many devices were told a release last."""
        return _of(self.told, (facts.version,))


def _of(counts: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(counts.get(each, 0) for each in all_spellings(names))


def all_spellings(names: Iterable[str]) -> set[str]:
    """Return versions in each way that they can be reported."""
    return {spelling for name in names for spelling in spellings(name)}


def runs_it(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that run a release."""
    return DeviceFilter(product=product, versions=reported_by(facts))


def told_it(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that were told a release last."""
    return DeviceFilter(product=product, targets=(facts.version,))


def runs_another(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that do not run a release."""
    return DeviceFilter(product=product, not_versions=reported_by(facts))
