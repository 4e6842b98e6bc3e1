"""Which version a device should run, and which image a request for bytes gets. Pure."""

from hashlib import sha256
from typing import NamedTuple

from ota_server.httpd.byterange import RangeSpec, from_byte_zero
from ota_server.model.device import RESTART_AFTER_MS, Download, Report
from ota_server.model.manifest import next_stop
from ota_server.model.version import Target, meaning, same_version
from ota_server.policy.policy import Pin, Policy, Stopped

NOTHING_DECIDED = Policy()
NO_TARGET = "there is no target"
ON_HOLD = "everything is on hold"


class Decision(NamedTuple):
    """The version that a device is told to run, the reason in a few words, and the release.

    `version` is spelled as the device spells it where it means what the device runs. `release` is
    the one whose image it may have; None: it may have none now.
    """

    version: str
    reason: str
    release: str | None


class Wanted(NamedTuple):
    """The release that a device should run, before it is asked whether it may have it."""

    version: str | None
    reason: str


def decide(
    report: Report, target: Target | None, policy: Policy = NOTHING_DECIDED, now_ms: int = 0
) -> Decision:
    """Decide which version the device should run.

    A version that equals the device's own in meaning is spelled as the device spells it: devices
    compare text, and `1.0` against `v1.0` would download for ever.

    Args:
        target: that of version.txt; None: there is none.
    """
    if policy.is_plain and target is not None:
        version = target.version
        if same_version(report.firmware_version, version):
            return Decision(report.firmware_version, "target", version)
        return Decision(version, "target", version)
    return _decide_by_policy(report, target, policy, now_ms)


def _decide_by_policy(
    report: Report, target: Target | None, policy: Policy, now_ms: int
) -> Decision:
    reported = report.firmware_version
    if policy.problem:
        return Decision(reported, f"nothing is offered while {policy.problem}", None)
    if policy.is_held:
        return Decision(reported, ON_HOLD, None)
    running = policy.release_of(reported)
    wanted = _wanted(report.mac, running, target, policy, now_ms)
    if wanted.version is None:
        return Decision(reported, wanted.reason, running if _has_image(running, policy) else None)
    stop = next_stop(running, wanted.version, policy.manifests)
    reason = wanted.reason
    if stop != wanted.version:
        reason = f"the stone on the way to {wanted.version}: {reason}"
    if same_version(running, stop):
        return Decision(reported, reason, stop)
    if policy.is_withdrawn(stop):
        return Decision(reported, f"{stop} was withdrawn; {reason}", None)
    if problem := policy.unusable.get(meaning(stop)):
        return Decision(reported, f"the manifest of {stop} {problem}; {reason}", None)
    is_target = target is not None and stop == target.version  # its image is the store's business
    if not is_target and not _has_image(stop, policy):
        return Decision(reported, f"the image of {stop} is missing; {reason}", None)
    return Decision(stop, reason, stop)


def _has_image(version: str, policy: Policy) -> bool:
    return meaning(version) in policy.images and meaning(version) not in policy.unusable


def _wanted(mac: str, running: str, target: Target | None, policy: Policy, now_ms: int) -> Wanted:
    """Return what a device should run. Without a version: what it runs already."""
    pinned = _pinned(mac, policy, now_ms)
    if pinned is not None:
        return pinned
    groups = policy.groups.get(mac, ())
    base, whose_base = _base(groups, target, policy)
    is_held_back, keeps_unknown = False, False
    for group in (*groups, ""):
        rollout = policy.rollouts.get(group)
        if rollout is None or policy.is_withdrawn(rollout.version):
            continue
        if not group and whose_base and not rollout.groups_too:
            reason = f"{base.reason}, which the rollout of {rollout.version} leaves alone"
            base = base if is_held_back else Wanted(base.version, reason)
            continue
        whose = f"the rollout of {rollout.version}{f' to {group}' if group else ''}"
        if same_version(running, rollout.version):
            return Wanted(None, f"it runs what {whose} brings")
        if is_held_back:
            continue  # by the rollout of its group, which goes before that of the fleet
        is_in = rollout.first_group in groups if rollout.first_group else False
        is_in = is_in or cohort_percent(rollout.version, mac) < rollout.percent
        # A way back is for those that are on the release, and takes nobody else anywhere.
        is_concerned = rollout.reverts is None or same_version(running, rollout.reverts)
        if is_in and is_concerned and rollout.state == "running":
            return Wanted(rollout.version, whose)
        is_held_back = True
        keeps_unknown = rollout.held_unknown == "keep"
    stopped = policy.stopped.get(meaning(running))
    if stopped is not None and _stays(stopped, base.version, whose_base):
        state = "withdrawn" if stopped.is_withdrawn else "aborted"
        return Wanted(
            None, f"it stays on {running}, which was {state}, until it has another target"
        )
    if is_held_back:
        if keeps_unknown and meaning(running) not in policy.images:
            return Wanted(None, f"held back by a rollout, and {running} is no known release")
        return Wanted(base.version, f"held back by a rollout: {base.reason}")
    return base


def _pinned(mac: str, policy: Policy, now_ms: int) -> Wanted | None:
    pin = policy.pins.get(mac)
    if pin is not None and _is_in_force(pin, now_ms):
        return Wanted(pin.version, f"it is pinned to {pin.version}")
    if policy.group_pins:
        for group in policy.groups.get(mac, ()):
            pin = policy.group_pins.get(group)
            if pin is not None and _is_in_force(pin, now_ms):
                return Wanted(pin.version, f"its group {group} is pinned to {pin.version}")
    return None


def _is_in_force(pin: Pin, now_ms: int) -> bool:
    return pin.until_ms is None or now_ms < pin.until_ms


def _base(groups: tuple[str, ...], target: Target | None, policy: Policy) -> tuple[Wanted, str]:
    """Return the target of a device where no rollout is on, and of which group; "": the fleet."""
    for group in groups:
        version = policy.group_targets.get(group)
        if version is not None:
            return Wanted(version, f"the target of its group {group}"), group
    if target is None:
        return Wanted(None, NO_TARGET), ""
    return Wanted(target.version, "target"), ""


def is_left_alone(groups: tuple[str, ...], policy: Policy) -> bool:
    """Return whether the rollout of the fleet, if there is one, leaves a device alone.

    It does where one of the groups of the device has a target of its own, unless it was begun for
    such groups too: neither is the device offered the release, nor held back for it.
    """
    rollout = policy.rollouts.get("")
    if rollout is None or rollout.groups_too:
        return False
    return not policy.group_targets.keys().isdisjoint(groups)


def _stays(stopped: Stopped, base: str | None, group: str) -> bool:
    if base is None or same_version(base, stopped.version):
        return True
    before = stopped.group_targets.get(group, stopped.instead_of)
    return before is None or same_version(base, before)


def cohort_percent(version: str, mac: str) -> float:
    """Return where a device stands in the rollout of a release, from 0 up to 100.

    It is in the waves whose percentage is above that: the same on every server, more devices with
    each wave, and other devices first with another release.
    """
    digest = sha256(f"{meaning(version)}\n{mac}".encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


def continued_download(
    known: Download | None,
    under_way: bool,
    ranges: tuple[RangeSpec, ...],
    honours_range: bool,
    now_ms: int,
) -> Download | None:
    """Return the download that a request for the image continues; None: it begins one.

    No real client sends If-Range, and some fetch one image in many ranges, in parallel, or read
    byte 0 again; so a Range keeps the release that its device began (DESIGN rule 3).

    Args:
        under_way: a transfer of that download is running at this moment.
        ranges: what the request asks for; none for a HEAD and for a GET without Range.
        honours_range: its If-Range, if any, matches the release of `known`.
    """
    if known is None or not ranges or not honours_range:
        return None
    if from_byte_zero(ranges) and not under_way and now_ms - known.request_ms >= RESTART_AFTER_MS:
        return None
    return known


def pinned_download(
    known: Download | None,
    under_way: bool,
    running: str,
    told: str | None,
    now_ms: int,
) -> Download | None:
    """Return the download whose signature a device wants; None: that of what it would get.

    Clients ask for it before the image, during it and after it, and that may have taken long.

    Args:
        running: the release that it runs.
        told: the version that it was told to run, last.
    """
    if known is None or under_way or now_ms - known.request_ms < RESTART_AFTER_MS:
        return known
    if told is None or same_version(running, known.version):
        return None
    return known if same_version(told, known.version) else None
