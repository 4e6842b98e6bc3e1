"""Which version a device is told to run, and why. Pure.

The rules, in their order. Which release (`choose`); what comes first decides:

 1. A file of the policy that could never be read: no device is offered anything.
 2. The emergency hold: the same.
 3. The pin of the device, then that of its group. Under `--unknown-devices keep` a device that is
    in no group stays on what it runs.
 4. The rollouts of its groups, then that of the fleet, which leaves alone a group that has its own
    target unless it was begun for such groups too. A device that runs the release stays on it; one
    in an open wave is offered it; any other is held back, and so are all while it is paused,
    and while the server cannot learn the result: the controller is away, the journal fails, the
    table is full.
 5. A device that runs a release that was stopped stays on it until it has another target.
 6. One that is held back on a version that is not a known release stays on it.
 7. The target of its group, then that of the fleet; without either it is answered 503.

Then for the release that was found, or the next stepping stone on the way to it:

 8. The device runs it: it stays.
 9. It was withdrawn, its manifest cannot be used, or its image is missing, or altered or not
    readable as the server has found: nothing is offered.

Then whether the device may have it now (`withhold`, `put_off`):

10. The shipped sample is for the machine of the server.
11. The image does not fit into the room that the device has, or is for another chip (`fit`).
12. The loop breaker: a device that fetches one image again and again waits; so does one that
    reports that it failed with it, or has still to cancel another.
13. The maintenance window, then the download slots.
"""

from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from ota_server.model.device import Report
from ota_server.model.manifest import next_stop
from ota_server.model.version import SAMPLES, Target, meaning, same_version
from ota_server.policy.fit import why_unfit
from ota_server.policy.loop_breaker import why_wait, why_wait_after
from ota_server.policy.policy import Pin, Policy, Rollout, RolloutState, Stopped, StoppedState
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.situation import ImageOnDisk, Situation

TARGET = Cause(Reason.TARGET)
NO_TARGET = Cause(Reason.NO_TARGET)
NO_GROUP = Cause(Reason.NO_GROUP)
_HELD_BACK = Cause(Reason.HELD_BACK)
# Made once: most checks under a rollout have this result.
_HELD_BACK_ON_TARGET = Cause(Reason.HELD_BACK, behind=TARGET)
SAMPLE = Cause(Reason.SAMPLE)


class Decision(NamedTuple):
    """The version that a device is told to run, why, and the release.

    `version` is spelled as the device spells it where it means what the device runs. `release` is
    the one whose image it may have; None: no image now.
    """

    version: str
    cause: Cause
    release: str | None

    @property
    def reason(self) -> Reason:
        """The rule that decided."""
        return self.cause.reason


class Wanted(NamedTuple):
    """The release that a device should run, before it is asked whether it may have it.

    `version` is None where it should stay on what it runs.
    """

    version: str | None
    cause: Cause


def decide(report: Report, situation: Situation) -> Decision:
    """Decide which version the device is told to run, by all rules.

    The server calls the three steps one by one: for the later ones it has to look at files, and to
    ask for a download slot is to take one.
    """
    decision = withhold(report, choose(report, situation), situation)
    if situation.put_off is None:
        return decision
    return put_off(report, decision, situation.put_off, situation.wants_image)


def choose(report: Report, situation: Situation) -> Decision:
    """Decide which version the device should run: rules 1 to 9.

    A version that equals the device's own in meaning is spelled as the device spells it: devices
    compare text, and `1.0` against `v1.0` would download for ever.
    """
    target = situation.target
    if situation.policy.is_plain and target is not None:
        return choose_target(report, target)
    return _choose_by_policy(report, situation)


def choose_target(report: Report, target: Target) -> Decision:
    """Decide as `choose` does where operators have decided nothing but the target of the fleet."""
    version, reported = target.version, report.firmware_version
    if same_version(reported, version):
        return Decision(reported, TARGET, version)
    return Decision(version, TARGET, version)


def withhold(report: Report, chosen: Decision, situation: Situation) -> Decision:
    """Decide whether the device may have the release that was chosen: rules 10 to 12."""
    release, reported = chosen.release, report.firmware_version
    if release is None:
        return chosen
    image, policy = situation.image, situation.policy
    if not situation.is_local and _is_sample(release, image, policy):
        return Decision(reported, SAMPLE, release)
    is_offer = chosen.version != reported or situation.wants_image
    if is_offer and (report.updater is not None or policy.has_several_chips):
        unfit = why_unfit(report, release, image, policy)
        if unfit is not None:
            return Decision(reported, unfit._replace(behind=chosen.cause), None)
    if is_offer and (situation.download is not None or situation.action is not None):
        about = release, policy, situation.now_ms, None if image is None else image.sha256
        waits = why_wait(report.key, situation.download, *about)
        waits = waits or why_wait_after(report.key, situation.action, *about)
        if waits is not None:
            return Decision(reported, waits, None)
    return chosen


def put_off(
    report: Report, decision: Decision, cause: Cause, wants_image: bool = False
) -> Decision:
    """Return the decision for a device that has to wait for its turn: rule 13."""
    is_offer = decision.version != report.firmware_version or wants_image
    if decision.release is None or not is_offer:
        return decision
    return Decision(report.firmware_version, cause._replace(behind=decision.cause), None)


def why_not_served(
    version: str, image: ImageOnDisk, policy: Policy, is_local: bool
) -> Cause | None:
    """Return why a client may not have the bytes of an image; None: it may have them."""
    if policy.is_withdrawn(version):
        return Cause(Reason.WITHDRAWN, version)
    key = meaning(version)
    if problem := policy.unusable.get(key):
        return Cause(Reason.BAD_MANIFEST, version, text=problem)
    if image.problem:
        return Cause(Reason.NO_IMAGE, version, text=image.problem)
    if not is_local and (image.size, image.sha256) in SAMPLES:
        return SAMPLE
    manifest = policy.manifests.get(key)
    if manifest is not None and manifest.sha256 != image.sha256:
        return Cause(Reason.ALTERED, version)
    return None


def unserved(version: str, policy: Policy) -> Cause | None:
    """Return why the running server cannot serve the image of a release; None: it can."""
    problem = policy.unserved.get(meaning(version))
    return None if problem is None else Cause(Reason.UNSERVED, version, text=problem)


def _is_sample(release: str, image: ImageOnDisk | None, policy: Policy) -> bool:
    manifest = policy.manifests.get(meaning(release))
    if manifest is not None:
        return (manifest.size, manifest.sha256) in SAMPLES
    return image is not None and (image.size, image.sha256) in SAMPLES


def _choose_by_policy(report: Report, situation: Situation) -> Decision:
    reported, policy = report.firmware_version, situation.policy
    if policy.problem:
        return Decision(reported, Cause(Reason.UNUSABLE_FILE, text=policy.problem), None)
    if policy.is_held:
        return Decision(reported, Cause(Reason.ON_HOLD), None)
    running = policy.release_of(reported)
    wanted, cause = _wanted(report.key, running, situation)
    if wanted is None:
        return Decision(reported, cause, running if _has_image(running, policy) else None)
    stop = next_stop(running, wanted, policy.manifests)
    if stop != wanted:
        cause = Cause(Reason.STEPPING_STONE, wanted, behind=cause)
    if same_version(running, stop):
        return Decision(reported, cause, stop)
    if policy.is_withdrawn(stop):
        return Decision(reported, Cause(Reason.WITHDRAWN, stop, behind=cause), None)
    if problem := policy.unusable.get(meaning(stop)):
        refused = Cause(Reason.BAD_MANIFEST, stop, text=problem, behind=cause)
        return Decision(reported, refused, None)
    target = situation.target
    is_target = target is not None and stop == target.version  # the store looks at its image
    if not is_target and not _has_image(stop, policy):
        return Decision(reported, Cause(Reason.NO_IMAGE, stop, behind=cause), None)
    if policy.unserved and (trouble := unserved(stop, policy)):
        # With the release: who asks for its image gets 404, or the image if it was just repaired.
        return Decision(reported, trouble._replace(behind=cause), stop)
    return Decision(stop, cause, stop)


def _has_image(version: str, policy: Policy) -> bool:
    return meaning(version) in policy.images and meaning(version) not in policy.unusable


def _wanted(mac: str, running: str, situation: Situation) -> Wanted:
    """Return what a device should run: rules 3 to 7."""
    policy = situation.policy
    pinned = _pinned(mac, policy, situation.now_ms)
    if pinned is not None:
        return pinned
    groups = policy.groups.get(mac, ())
    if policy.keeps_ungrouped and not groups:
        return Wanted(None, NO_GROUP)
    base, whose_base = _base(groups, situation)
    held_back: Cause | None = None
    keeps_unknown = False
    for group in (*groups, ""):
        rollout = policy.rollouts.get(group)
        if rollout is None or policy.is_withdrawn(rollout.version):
            continue
        if not group and whose_base and not rollout.groups_too:
            if held_back is None:
                left = _of_rollout(Reason.LEFT_ALONE, rollout)._replace(behind=base.cause)
                base = Wanted(base.version, left)
            continue
        if same_version(running, rollout.version):
            return Wanted(None, _of_rollout(Reason.RUNS_ROLLOUT, rollout, group))
        if held_back is not None:
            continue  # held back by the rollout of its group, which comes before the fleet's
        is_in = rollout.first_group in groups if rollout.first_group else False
        is_in = is_in or cohort_percent(rollout.version, mac) < rollout.percent
        # A revert is for devices that run the release; it moves no others.
        is_concerned = rollout.reverts is None or same_version(running, rollout.reverts)
        held_back = _HELD_BACK
        if is_in and is_concerned:
            paused: Reason | None = Reason.PAUSED
            if rollout.state == RolloutState.RUNNING:
                paused = _why_paused(group, situation)
            if paused is None:
                return Wanted(rollout.version, _of_rollout(Reason.ROLLOUT, rollout, group))
            held_back = Cause(paused)
        keeps_unknown = rollout.held_unknown == "keep"
    stopped = policy.stopped.get(meaning(running))
    if stopped is not None and _stays(stopped, base.version, whose_base):
        state = StoppedState.WITHDRAWN if stopped.is_withdrawn else StoppedState.ABORTED
        return Wanted(None, Cause(Reason.STOPPED, running, text=state))
    if held_back is None:
        return base
    if keeps_unknown and meaning(running) not in policy.images:
        unknown = Cause(Reason.UNKNOWN_RELEASE, running)
        return Wanted(None, held_back._replace(behind=unknown))
    if held_back is _HELD_BACK and base.cause is TARGET:
        return Wanted(base.version, _HELD_BACK_ON_TARGET)
    return Wanted(base.version, held_back._replace(behind=base.cause))


@lru_cache(maxsize=256)
def _of_rollout(reason: Reason, rollout: Rollout, group: str = "") -> Cause:
    return Cause(reason, rollout.version, group, rollout.reverts or "")


def _why_paused(group: str, situation: Situation) -> Reason | None:
    """Return why the server lets no device into an open wave; None: it does.

    A bad release could not be stopped by a device that is not on record, nor while the controller
    is dead, hangs or cannot write. While it still reads the journal for one rollout, the others go
    on.
    """
    if situation.is_journal_failing:
        return Reason.JOURNAL_FAILING
    if situation.is_turned_away:
        return Reason.TABLE_FULL
    attended = situation.attended
    return None if attended is None or group in attended else Reason.CONTROLLER_AWAY


def _pinned(mac: str, policy: Policy, now_ms: int) -> Wanted | None:
    pin = policy.pins.get(mac)
    if pin is not None and _is_in_force(pin, now_ms):
        return Wanted(pin.version, Cause(Reason.PIN, pin.version))
    if policy.group_pins:
        for group in policy.groups.get(mac, ()):
            pin = policy.group_pins.get(group)
            if pin is not None and _is_in_force(pin, now_ms):
                return Wanted(pin.version, Cause(Reason.GROUP_PIN, pin.version, group))
    return None


def _is_in_force(pin: Pin, now_ms: int) -> bool:
    return pin.until_ms is None or now_ms < pin.until_ms


def _base(groups: tuple[str, ...], situation: Situation) -> tuple[Wanted, str]:
    """Return the target of a device without rollouts, and its group; "": that of the fleet."""
    for group in groups:
        version = situation.policy.group_targets.get(group)
        if version is not None:
            return Wanted(version, Cause(Reason.GROUP_TARGET, version, group)), group
    target = situation.target
    if target is None:
        return Wanted(None, NO_TARGET), ""
    return Wanted(target.version, TARGET), ""


def is_left_alone(groups: tuple[str, ...], policy: Policy) -> bool:
    """Return whether the rollout of the fleet, if there is one, leaves a device alone.

    It does if one of the device's groups has its own target, unless the rollout was begun for such
    groups too: then the device is neither offered the release nor held back. It also leaves devices
    in no group alone under `--unknown-devices keep`.
    """
    if policy.keeps_ungrouped and not groups:
        return True
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

    It is in the waves whose percentage is above that. All servers agree on it, each wave adds
    devices to the one before, and each release begins with other devices.
    """
    digest = sha256(f"{meaning(version)}\n{mac}".encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100
