"""Whether an image is for the devices that it would go to. I/O.

That of a rollout or an activation is compared with the image of the target, that of a revert with
the image that devices go back from, and what a pin or a group gives to devices with what they run.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from itertools import islice
from pathlib import Path

from ota_server.journal.replay import newest_of
from ota_server.model.device import Report
from ota_server.model.identity import identity_of, key_of_name
from ota_server.model.image_header import ImageHeader
from ota_server.model.quantity import count_of
from ota_server.model.refusal import Refused
from ota_server.model.version import is_sample, may_be_sample, same_version
from ota_server.policy.decision import choose
from ota_server.policy.explain import in_words
from ota_server.policy.fit import why_unfit
from ota_server.policy.gather import gather_fleet, image_on_disk
from ota_server.policy.policy import Pin, Policy, RolloutState
from ota_server.policy.reason import Cause
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.targets import read_base, read_group_targets
from ota_server.policy.text import Who
from ota_server.releases.inventory import find_release, header_of
from ota_server.releases.publish_request import mixed_up, unlike
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, product_at
from ota_server.system.files import sha256_of

_FORCE = "--force does it anyway"


def check_devices(
    data_dir: Path, version: str, group: str = "", has_groups: bool = False, is_forced: bool = False
) -> bool:
    """Return whether an image is for another chip or of another project than that of the target.

    One of another kind, or of no known one, is refused too, and counts no further once it is
    forced: the way back from it is to what its devices ran.

    Args:
        group: whose target; "": that of the fleet. A group without one has that of the fleet.
        has_groups: the groups that have a target of their own get the image too.

    Raises:
        Refused: it is, and nobody forces it; the message says why.
        BadPolicy, OSError: a file cannot be used or read.
    """
    base = read_base(data_dir, group)
    targets = {name_of_target(data_dir): base}
    if has_groups:
        targets |= _targets_of_groups(data_dir)
    mixed = _mixed_with(data_dir, version, targets)
    if not is_forced and (problems := mixed + _unlike(data_dir, version, targets)):
        raise Refused(f"{'; '.join(problems)}; {_FORCE}")
    return bool(mixed)


def check_groups(data_dir: Path, version: str, groups: Collection[str]) -> None:
    """Refuse to take their targets from groups for an image for other devices.

    Raises:
        Refused: the message says why.
        BadPolicy, OSError: a file cannot be used or read.
    """
    targets = _targets_of_groups(data_dir, groups)
    if mixed := _mixed_with(data_dir, version, targets) + _unlike(data_dir, version, targets):
        raise Refused(f"{'; '.join(mixed)}; {_FORCE}")


def _targets_of_groups(
    data_dir: Path, groups: Collection[str] | None = None
) -> dict[str, str | None]:
    """Return the targets of groups, of all where none are given, by what they are in a sentence."""
    return {
        f"the target of the group {group}": target
        for group, target in read_group_targets(data_dir).items()
        if groups is None or group in groups
    }


def _mixed_with(data_dir: Path, version: str, targets: Mapping[str, str | None]) -> list[str]:
    header = header_of_release(data_dir, version)
    return [
        each
        for name, target in targets.items()
        if target is not None
        for each in mixed_up(header, header_of_release(data_dir, target), name)
    ]


def _unlike(data_dir: Path, version: str, targets: Mapping[str, str | None]) -> list[str]:
    if not has_own_image(data_dir, version):
        return []  # which is refused elsewhere
    header = header_of_release(data_dir, version)
    return [
        each
        for name, target in targets.items()
        if target is not None and not same_version(target, version)
        for each in unlike(
            header, header_of_release(data_dir, target), name, f"the image of {version}"
        )
    ]


def name_of_target(data_dir: Path) -> str:
    """Return what the target of the fleet or a group is called in a sentence, with its product."""
    product = product_at(data_dir)
    return f"the current target{f' of the product {product}' if product else ''}"


def has_own_image(data_dir: Path, version: str | None) -> bool:
    """Return whether a release has an image, which is not the shipped sample."""
    release = None if version is None else find_release(data_dir / "firmware", version)
    if release is None or release.image is None:
        return False
    size = release.image.stamp.size
    return size > 0 and not (may_be_sample(size) and is_sample(size, sha256_of(release.image)))


def check_way_back(data_dir: Path, plan: RolloutPlan) -> None:
    """Refuse to take devices back from a rollout to an image for other devices.

    Raises:
        Refused: the message says why.
        OSError: an image cannot be read.
    """
    assert plan.instead_of is not None
    back, there = (header_of_release(data_dir, each) for each in (plan.instead_of, plan.version))
    mixed = [*mixed_up(back, there, plan.version, f"the image of {plan.instead_of}")]
    if not mixed and plan.is_mixed:  # what could tell is no longer there
        mixed = [f"{plan.version} was forced on other devices than those of {plan.instead_of}"]
    if mixed:
        another = f"{plan.command('start VERSION')} brings another release"
        raise Refused(f"{'; '.join(mixed)}; {another}, {_FORCE}")


def header_of_release(data_dir: Path, version: str) -> ImageHeader | None:
    """Return what the image of a release says of itself; None: nothing, or it is not there."""
    release = find_release(data_dir / "firmware", version)
    return None if release is None or release.image is None else header_of(release.image)


# Pins and groups


def check_pin(data_dir: Path, who: Who, pin: Pin | None) -> None:
    """Refuse a pin, or its end (None), that gives devices an image for others than they are.

    Raises:
        Refused: the message says why.
        OSError: the journal cannot be read.
    """
    if who.kind == "devices":
        check_pins(data_dir, [who.name], pin)
        return

    def change(policy: Policy) -> Policy:
        return policy._replace(group_pins=_with_pins(policy.group_pins, [who.name], pin))

    _check_moves(data_dir, lambda policy: _members(policy, who.name), change)


def check_pins(data_dir: Path, names: Collection[str], pin: Pin | None) -> None:
    """Do as `check_pin` for devices, by their names.

    Raises:
        Refused, OSError: as `check_pin`.
    """
    product = product_at(data_dir)
    keys = [key_of_name(product, name) for name in names]

    def change(policy: Policy) -> Policy:
        return policy._replace(pins=_with_pins(policy.pins, keys, pin))

    _check_moves(data_dir, lambda _: keys, change)


def _with_pins(pins: Mapping[str, Pin], keys: list[str], pin: Pin | None) -> dict[str, Pin]:
    going = {*keys}
    others = {key: each for key, each in pins.items() if key not in going}
    return others if pin is None else {**others, **dict.fromkeys(keys, pin)}


def _members(policy: Policy, group: str) -> list[str]:
    return [key for key, groups in policy.groups.items() if group in groups]


def left_out(data_dir: Path, who: Who, version: str) -> str:
    """Return which devices are not given a release that they are pinned to, and why; "": all are.

    Raises:
        OSError: the journal cannot be read.
    """
    policy = gather_fleet(data_dir, clock.now_ms()).policy
    if who.kind == "groups":
        return _left_out(data_dir, policy, _members(policy, who.name), str(who), version)
    keys = [key_of_name(product_at(data_dir), who.name)]
    if not (unfit := _unfit(data_dir, policy, keys, version)):
        return ""
    return f"{who} is not given it all the same: {in_words(unfit[0])}"


def left_out_of(data_dir: Path, names: Collection[str], version: str) -> str:
    """Do as `left_out` for devices, by their names.

    Raises:
        OSError: the journal cannot be read.
    """
    policy, product = gather_fleet(data_dir, clock.now_ms()).policy, product_at(data_dir)
    keys = [key_of_name(product, name) for name in names]
    return _left_out(data_dir, policy, keys, "", version)


def _left_out(data_dir: Path, policy: Policy, keys: list[str], whose: str, version: str) -> str:
    if not (unfit := _unfit(data_dir, policy, keys, version)):
        return ""
    devices = count_of(len(keys), "device") + f" of {whose}" * bool(whose)
    return f"{len(unfit)} of the {devices} are not given it all the same: {in_words(unfit[0])}"


def _unfit(data_dir: Path, policy: Policy, keys: list[str], version: str) -> list[Cause]:
    """Return why devices are not given a release, for each that is not."""
    image = image_on_disk(data_dir / "firmware", version)
    causes = [
        why_unfit(Report(key, each.firmware_version, each.updater), version, image, policy)
        for key, each in newest_of(journal_dir(data_dir), keys)
        if each is not None
    ]
    return [each for each in causes if each is not None]


def check_members(data_dir: Path, group: str, names: Collection[str], are_in: bool) -> None:
    """Refuse to take devices into a group, or out of it, as `check_pin`.

    Raises:
        Refused, OSError: as `check_pin`.
    """
    keys = [key_of_name(product_at(data_dir), name) for name in names]

    def change(policy: Policy) -> Policy:
        groups = dict(policy.groups)
        for key in keys:
            others = {*groups.get(key, ())} - {group}
            groups[key] = tuple(sorted(others | {group} if are_in else others))
        return policy._replace(groups=groups)

    _check_moves(data_dir, lambda _: keys, change)


def _check_moves(
    data_dir: Path, whom: Callable[[Policy], list[str]], change: Callable[[Policy], Policy]
) -> None:
    """Compare what devices would get by a change of the policy with what they run.

    A rollout counts as if all its waves were open: where devices are going, not where they are.
    """
    fleet = gather_fleet(data_dir, clock.now_ms())
    rollouts = {
        group: each._replace(percent=100.0, state=RolloutState.RUNNING)
        for group, each in fleet.policy.rollouts.items()
    }
    header = cache(partial(_header_if_readable, data_dir))
    if not _has_two_kinds(map(header, fleet.policy.images)):
        return  # so it is nearly always, and the journal need not be read
    before = fleet.policy._replace(rollouts=rollouts, is_held=False, is_plain=False)
    after = change(before)
    mixed: list[str] = []
    for key, device in newest_of(journal_dir(data_dir), whom(before)):
        report = Report(key, "-" if device is None else device.firmware_version)
        was, now = (
            choose(report, fleet.situation(key, device)._replace(policy=policy)).release
            for policy in (before, after)
        )
        if now is None or (was is not None and same_version(was, now)):
            continue
        runs = before.release_of(report.firmware_version)
        runs, does = (runs, "runs") if header(runs) or was is None else (was, "should run")
        name = f"{runs}, which {identity_of(key)} {does},"
        mixed += islice(mixed_up(header(now), header(runs), name, f"the image of {now}"), 1)
    if mixed:
        what = "an image for other devices"
        raise Refused(f"{count_of(len(mixed), 'device')} would get {what}: {mixed[0]}; {_FORCE}")


def _has_two_kinds(headers: Iterable[ImageHeader | None]) -> bool:
    said = [(each.chip, each.project) for each in headers if each is not None]
    return any(len({*each} - {None}) > 1 for each in zip(*said, strict=True))


def _header_if_readable(data_dir: Path, version: str) -> ImageHeader | None:
    try:
        return header_of_release(data_dir, version)
    except OSError:
        return None
