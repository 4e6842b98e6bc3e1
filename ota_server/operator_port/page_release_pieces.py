"""What pages show of a release: its states, how many devices run it. Pure."""

from collections.abc import Mapping

from ota_server.model.version import same_version
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


def running_in(facts: ReleaseFacts, running: Mapping[str, int]) -> int:
    """Return how many devices run a release, by how many report each version."""
    names = reported_by(facts)
    return sum(
        count
        for version, count in running.items()
        if any(same_version(version, name) for name in names)
    )


def runs_it(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that run a release."""
    return DeviceFilter(product=product, versions=reported_by(facts))


def told_it(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that were told a release last."""
    return DeviceFilter(product=product, targets=(facts.version,))


def runs_another(product: str, facts: ReleaseFacts) -> DeviceFilter:
    """Return the devices that do not run a release."""
    return DeviceFilter(product=product, not_versions=reported_by(facts))
