"""Which releases devices are told to run, and by what. Pure."""

from ota_server.model.version import meaning
from ota_server.policy.policy import Policy

FLEET_TARGET = "it is the target of the fleet"


def wanted_releases(policy: Policy, target: str | None, now_ms: int) -> dict[str, tuple[str, str]]:
    """Return them by their meanings: the version as it is named, and who names it, in words.

    Args:
        target: of the fleet.
    """
    named = [
        (pin.version, f"{who} is pinned to it")
        for who, pin in (*policy.pins.items(), *policy.group_pins.items())
        if pin.until_ms is None or now_ms < pin.until_ms
    ]
    for group, rollout in policy.rollouts.items():
        named.append((rollout.version, f"a rollout brings it to {group or 'the fleet'}"))
    for group, version in policy.group_targets.items():
        named.append((version, f"it is the target of group {group}"))
    if target is not None:
        named.append((target, FLEET_TARGET))
    found = {meaning(version): (version, whose) for version, whose in named}
    ways = list(found)
    for key in ways:  # grows while it is read: a stepping stone may have one of its own
        manifest = policy.manifests.get(key)
        via = None if manifest is None else manifest.via
        if manifest is not None and via is not None and meaning(via) not in found:
            found[meaning(via)] = via, f"it is the stepping stone to {manifest.version}"
            ways.append(meaning(via))
    return found
