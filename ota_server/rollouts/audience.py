"""Which devices a rollout reaches, by groups, pins and the release that they run. I/O."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ota_server.evaluation.scope import RolloutScope
from ota_server.journal.replay import replay
from ota_server.model.identity import identity_of
from ota_server.model.manifest import Manifest
from ota_server.model.version import meaning, same_version
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan


def scope_of(
    plan: RolloutPlan, policy: Policy, members: frozenset[str] | None, now_ms: int
) -> RolloutScope:
    """Return whom a rollout reaches, by what operators have decided.

    Args:
        members: the devices that a revert is for; None: it is not a revert.
    """
    if plan.group:
        group = members_of(policy, plan.group)
        members = group if members is None else members & group
    if policy.keeps_ungrouped:
        grouped = frozenset(policy.groups)
        members = grouped if members is None else members & grouped
    return RolloutScope(
        members=members,
        first_group=members_of(policy, plan.first_group) if plan.first_group else frozenset(),
        left_out=pinned(policy, now_ms)
        | _elsewhere(policy, plan.group)
        | _left_alone(plan, policy),
        product=policy.product,
        releases=policy.images,
        aliases=policy.aliases,
        stepping_stones=stepping_stones_to(plan.version, policy.manifests),
        fit=_fit(plan, policy),
    )


def _fit(plan: RolloutPlan, policy: Policy) -> Policy:
    """Return what says which devices cannot take a release.

    Nothing does on the way over a stepping stone, which may fit. Nor is their room known where a
    device may ask for less than the image: compressed, or for a smaller one beside it first.
    """
    release = meaning(plan.version)
    manifest = policy.manifests.get(release)
    if manifest is None or manifest.via is not None:
        return Policy()
    manifests = policy.manifests
    is_beside = any(each.startswith(f"{release}-") for each in policy.images)
    if manifest.gzip is not None or is_beside:
        manifests = {**manifests, release: manifest._replace(size=0)}
    return Policy(
        manifests=manifests,
        aliases=policy.aliases,
        has_several_chips=policy.has_several_chips,
    )


def stepping_stones_to(version: str, manifests: Mapping[str, Manifest]) -> frozenset[str]:
    """Return the meanings of all stepping stones that a device may have to run before a release."""
    way = [meaning(version)]
    while (manifest := manifests.get(way[-1])) is not None and manifest.via is not None:
        stop = meaning(manifest.via)
        if stop in way:
            break  # a circle, which `publish` refuses: by hand only
        way.append(stop)
    return frozenset(way[1:])


def who_runs(log_dir: Path, policy: Policy, version: str) -> frozenset[str]:
    """Return the devices that run a release, by the journal.

    Raises:
        OSError: it cannot be read.
    """
    found = replay(log_dir)
    try:
        return frozenset(
            mac
            for mac, device in found.devices(policy.product)
            if same_version(policy.release_of(device.firmware_version), version)
        )
    finally:
        found.close()


def members_of(policy: Policy, group: str) -> frozenset[str]:
    """Return the devices of a group."""
    return frozenset(mac for mac, groups in policy.groups.items() if group in groups)


def _elsewhere(policy: Policy, group: str) -> frozenset[str]:
    """Return the devices that have another rollout before that of a group; "": of the fleet."""
    others = {
        other
        for other, rollout in policy.rollouts.items()
        if other and not policy.is_withdrawn(rollout.version) and (not group or other < group)
    }
    if not others:
        return frozenset()
    return frozenset(mac for mac, each in policy.groups.items() if not others.isdisjoint(each))


def groups_left_alone(plan: RolloutPlan, policy: Policy) -> list[tuple[str, str, int]]:
    """Return the groups that a rollout leaves alone, since they have a target of their own.

    Each with its name, its target and the number of its members. Groups without members are left
    out; members of two such groups are counted in both.
    """
    targets = _targets_kept(plan, policy)
    sizes = Counter(group for each in policy.groups.values() for group in each if group in targets)
    return [(group, targets[group], sizes[group]) for group in sorted(sizes)]


def _left_alone(plan: RolloutPlan, policy: Policy) -> frozenset[str]:
    """Return the devices that a rollout leaves alone, as `decision.choose` does."""
    targets = _targets_kept(plan, policy).keys()
    if not targets:
        return frozenset()
    return frozenset(mac for mac, each in policy.groups.items() if not targets.isdisjoint(each))


def _targets_kept(plan: RolloutPlan, policy: Policy) -> Mapping[str, str]:
    """Return the targets that groups keep while a rollout is on, unless it is to a group."""
    return {} if plan.group or plan.groups_too else policy.group_targets


def pins_of(policy: Policy, group: str, now_ms: int) -> list[str]:
    """Return what pins all devices of a group, groups first; []: not all of them are pinned."""
    members = members_of(policy, group)
    if members - pinned(policy, now_ms):
        return []
    names = {each for mac in members for each in (*policy.groups[mac], mac)}
    found = names & _pins_in_force(policy, now_ms)
    return [*sorted(found - members), *sorted(map(identity_of, found & members))]


def pinned(policy: Policy, now_ms: int) -> frozenset[str]:
    """Return the devices that are pinned, alone or with a group."""
    in_force = _pins_in_force(policy, now_ms)
    groups = in_force & policy.group_pins.keys()
    pinned = in_force & policy.pins.keys()
    if groups:
        pinned |= {mac for mac, each in policy.groups.items() if not groups.isdisjoint(each)}
    return frozenset(pinned)


def _pins_in_force(policy: Policy, now_ms: int) -> set[str]:
    """Return the devices and the groups that have a pin which has not ended."""
    return {
        name
        for pins in (policy.pins, policy.group_pins)
        for name, pin in pins.items()
        if pin.until_ms is None or now_ms < pin.until_ms
    }
