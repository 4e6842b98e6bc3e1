"""In which condition a device is: the one definition that `status` and `devices` share. Pure.

What comes first counts, so each device is in one condition, and the numbers add up to the fleet:

 1. silent      it has a whole image that it does not run, and has said nothing since, for an hour
 2. failed      it has had the whole image of the release that it should run, and reports another
                version more than 15 minutes later, or has fetched the image again
 3. away        it was not heard from for a day
 4. undecided   it has had the whole image of the release that it should run, has asked again since,
                and says no version: nothing shows whether it runs it
 5. held back   it should run another release and may not have it now: the cause says why
 6. behind      it should run another release, and is offered it when it asks next
 7. up to date  it runs what it should

A rollout knows more of a device: how often it polls, who else is silent. Where one judges a device
(`judged`), that decides in place of rules 1 and 2.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from ota_server.model.device import DAY_MS, Device, Report
from ota_server.model.version import UNKNOWN_VERSION, meaning, same_version
from ota_server.policy.decision import Decision, choose, put_off, withhold
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.situation import ImageOnDisk, Situation

# As long as a rollout, by default, lets a device take to install an image, and to say so.
GRACE_MS = 15 * 60 * 1000
QUIET_MS = 60 * 60 * 1000

ImageOf = Callable[[str], ImageOnDisk | None]


class Condition(StrEnum):
    """How a device is; the head of this file defines each, in this order."""

    SILENT = "silent"
    FAILED = "failed"
    AWAY = "away"
    UNDECIDED = "undecided"
    HELD_BACK = "held back"
    BEHIND = "behind"
    UP_TO_DATE = "up to date"


class DeviceCondition(NamedTuple):
    """The condition of a device, and what it gets if it asks now.

    Attributes:
        cause: why it gets that; `explain.in_words` says it.
    """

    condition: Condition
    cause: Cause


# A device that is told its own version for one of these reasons runs what it should.
_IN_ORDER = (
    Reason.TARGET,
    Reason.GROUP_TARGET,
    Reason.LEFT_ALONE,
    Reason.RUNS_ROLLOUT,
    Reason.ROLLOUT,
    Reason.PIN,
    Reason.GROUP_PIN,
)
# What holds a device back, in a word or two; `explain.in_words` says it in a sentence.
HELD_BY = {
    Reason.UNUSABLE_FILE: "a broken file in version/",
    Reason.ON_HOLD: "the hold",
    Reason.HELD_BACK: "a rollout that has not come to it",
    Reason.PAUSED: "a paused rollout",
    Reason.CONTROLLER_AWAY: "the controller is away",
    Reason.JOURNAL_FAILING: "the journal cannot be written",
    Reason.TABLE_FULL: "the table of devices is full",
    Reason.STOPPED: "it runs a stopped release",
    Reason.UNKNOWN_RELEASE: "it runs no known release",
    Reason.NO_TARGET: "there is no target",
    Reason.NO_GROUP: "it is in no group",
    Reason.WITHDRAWN: "the release was withdrawn",
    Reason.BAD_MANIFEST: "a broken manifest",
    Reason.NO_IMAGE: "the image is missing",
    Reason.UNSERVED: "the image is altered or cannot be read",
    Reason.SAMPLE: "the sample is for this machine",
    Reason.NO_ROOM: "too little room on them",
    Reason.WRONG_CHIP: "the image is for another chip",
    Reason.REPEATED: "the loop breaker",
    Reason.STUCK: "the loop breaker",
    Reason.UPDATE_FAILED: "failed updates",
    Reason.CANCELING: "an update that is being canceled",
    Reason.WINDOW_CLOSED: "the maintenance window",
    Reason.NO_SLOT: "the download slots",
}
# What a rollout calls devices that do badly (`DeviceState`), and what that is here.
_JUDGED = {
    "failed": Condition.FAILED,
    "mislabelled": Condition.FAILED,
    "silent": Condition.SILENT,
}


class Told(NamedTuple):
    """What a device is told if it asks now, whatever became of its last download.

    Attributes:
        running: the release that it runs.
        release: that it should run; None: none.
        is_offered: it is told another version than its own, or would be without the hold.
        condition: by rules 5 to 7.
    """

    running: str
    release: str | None
    cause: Cause
    is_offered: bool
    condition: Condition


def condition_of(
    mac: str, device: Device, situation: Situation, image_of: ImageOf, judged: str = ""
) -> DeviceCondition:
    """Return how a device is.

    Args:
        situation, image_of: as in `told_now`.
        judged: what the rollout that concerns it counts it as, a `DeviceState`; "": none says.
    """
    report = Report(mac, device.firmware_version, device.updater)
    told = told_now(report, situation, image_of)
    return condition_when(told, device, situation.now_ms, judged)


def told_now(report: Report, situation: Situation, image_of: ImageOf) -> Told:
    """Return what a device is told if it asks now.

    Args:
        situation: of this device, without the image.
        image_of: returns what is known of the image of a release, by the meaning of its version.
    """
    policy = situation.policy
    chosen, is_held = _chosen(report, situation)
    decision = chosen
    if chosen.release is not None:
        situation = situation._replace(image=image_of(meaning(chosen.release)))
        decision = withhold(report, chosen, situation)
    if situation.put_off is not None:
        decision = put_off(report, decision, situation.put_off)
    is_offered = decision.version != report.firmware_version
    # As `why` says it: the hold comes before what else keeps the release from the device.
    is_kept = is_held and chosen.version != report.firmware_version
    cause = Cause(Reason.ON_HOLD) if is_kept else decision.cause
    condition = (
        (Condition.BEHIND if is_offered and not is_held else None)
        or (Condition.UP_TO_DATE if _is_in_order(report, cause, policy) else None)
        or Condition.HELD_BACK
    )
    running = policy.release_of(report.firmware_version)
    return Told(running, chosen.release, cause, is_offered, condition)


def condition_when(told: Told, device: Device, now_ms: int, judged: str = "") -> DeviceCondition:
    """Return how a device is that is told this; `judged` as in `condition_of`."""
    return DeviceCondition(
        _JUDGED.get(judged)
        or (None if judged else _by_download(device, told, now_ms))
        or (Condition.AWAY if now_ms - device.last_seen_ms >= DAY_MS else None)
        or (Condition.UNDECIDED if _is_unseen(device, told) else told.condition),
        told.cause,
    )


def evidence_in_words(condition: Condition, device: Device) -> str:
    """Return why a device counts as failed, silent or undecided; "" where it does not."""
    if condition not in (*_JUDGED.values(), Condition.UNDECIDED):
        return ""
    version, download = device.firmware_version, device.download
    had = "it had the image"
    if download is not None and download.attempts:
        had = f"it had the whole image of {download.version}"
    if condition is Condition.FAILED:
        return f"{had}, and reports {version}"
    if condition is Condition.UNDECIDED:
        return f"{had}, and says no version"
    if download is None or device.last_seen_ms > download.attempt_ms:
        had += f", reported {version}"
    return f"{had}, and nothing was heard since"


def _chosen(report: Report, situation: Situation) -> tuple[Decision, bool]:
    """Return which release a device should run, and whether the hold keeps that from it."""
    chosen = choose(report, situation)
    if chosen.reason is not Reason.ON_HOLD:
        return chosen, False
    # To most devices the hold makes no difference: they run what they should.
    return choose(report, situation._replace(policy=situation.policy._replace(is_held=False))), True


def _by_download(device: Device, told: Told, now_ms: int) -> Condition | None:
    """Return what the last image that a device had in whole says of it; None: nothing bad."""
    download = device.download
    if download is None or not download.attempts or same_version(told.running, download.version):
        return None
    heard_ms = max(device.last_seen_ms, download.request_ms)
    if heard_ms <= download.attempt_ms:
        return Condition.SILENT if now_ms - download.attempt_ms >= QUIET_MS else None
    if told.release is None or not same_version(download.version, told.release):
        return None
    if told.running == UNKNOWN_VERSION:
        return None
    is_late = device.last_seen_ms - download.attempt_ms > GRACE_MS
    return Condition.FAILED if is_late or download.attempts > 1 else None


def _is_unseen(device: Device, told: Told) -> bool:
    """Return whether nothing shows if a device runs the release whose whole image it had."""
    download = device.download
    if download is None or not download.attempts or told.running != UNKNOWN_VERSION:
        return False
    is_heard = device.last_seen_ms > download.attempt_ms
    return is_heard and told.release is not None and same_version(download.version, told.release)


def _is_in_order(report: Report, cause: Cause, policy: Policy) -> bool:
    """Return whether a device that is told its own version runs what it should."""
    if cause.reason is not Reason.HELD_BACK:
        return cause.reason in _IN_ORDER
    behind = cause.behind
    if behind is None or behind.reason not in _IN_ORDER:
        return False
    # A revert moves only devices that run what it takes back; for others there is nothing to come.
    running = policy.release_of(report.firmware_version)
    rollouts = (policy.rollouts.get(group) for group in (*policy.groups.get(report.key, ()), ""))
    return not any(
        each is not None and (each.reverts is None or same_version(running, each.reverts))
        for each in rollouts
    )
