"""The words for a decision, and what else matters for a device. Pure.

`_WORDS` has a sentence for each rule of `decision`, by the numbers and in the order of these:

 1. a file that cannot be used       7. the target of its group, or of the fleet
 2. the hold                            by way of a stepping stone
 3. a pin, or no group               9. withdrawn, manifest, image
 4. a rollout                       10. the shipped sample
 5. a release that was stopped      11. no room, or another chip
 6. an unknown release              12. the loop breaker
                                    13. the window, the download slots
"""

from collections.abc import Iterator
from typing import NamedTuple

from ota_server.model.device import Report
from ota_server.model.timestamp import format_time
from ota_server.model.version import image_name, meaning
from ota_server.policy.decision import (
    Decision,
    cohort_percent,
    decide,
    is_left_alone,
    put_off,
    unserved,
    why_not_served,
)
from ota_server.policy.policy import Pin, Policy
from ota_server.policy.reason import IS_ALTERED, Cause, Reason
from ota_server.policy.situation import ImageOnDisk, ServerState, Situation

# Not "has fetched {version}": the same bytes may have had another name.
_FETCHED = "it has fetched the image of {version} {times} times and does not stay on it"
_HELD_BACK = "held back by a rollout"
_PAUSED = f"{_HELD_BACK}, which offers nothing new"

# {whose} names a rollout. {behind} has the words for the cause behind this one; {and_behind} and
# {of_behind} have them with what joins them, or nothing.
_WORDS = {
    # 1, 2, 3
    Reason.UNUSABLE_FILE: "nothing is offered while {text}",
    Reason.ON_HOLD: "it is on hold",
    Reason.PIN: "it is pinned to {version}",
    Reason.GROUP_PIN: "its group {group} is pinned to {version}",
    Reason.NO_GROUP: "it is in no group, and the server runs with --unknown-devices keep",
    # 4
    Reason.RUNS_ROLLOUT: "it runs what {whose} brings",
    Reason.ROLLOUT: "{whose}",
    Reason.HELD_BACK: _HELD_BACK + "{of_behind}",
    Reason.PAUSED: f"{_PAUSED} while it is paused{{of_behind}}",
    Reason.CONTROLLER_AWAY: f"{_PAUSED} while the controller does not look after it{{of_behind}}",
    Reason.JOURNAL_FAILING: f"{_PAUSED} while the journal cannot be written{{of_behind}}",
    Reason.TABLE_FULL: f"{_PAUSED} to a device that is beyond --max-devices{{of_behind}}",
    Reason.LEFT_ALONE: "{behind}, which {whose} leaves alone",
    # 5, 6, 7
    Reason.STOPPED: "it stays on {version}, which was {text}, until it has another target",
    Reason.UNKNOWN_RELEASE: "{version} is not a known release",
    Reason.GROUP_TARGET: "the target of its group {group}",
    Reason.TARGET: "the target of the fleet",
    Reason.NO_TARGET: "there is no target",
    # 8, 9
    Reason.STEPPING_STONE: "the stepping stone to {version}: {behind}",
    Reason.WITHDRAWN: "{version} was withdrawn{and_behind}",
    Reason.BAD_MANIFEST: "the manifest of {version} {text}{and_behind}",
    Reason.NO_IMAGE: "{text}{and_behind}",
    Reason.ALTERED: f"{{image_name}} {IS_ALTERED}",
    Reason.UNSERVED: "{text}{and_behind}",
    # 10, 11
    Reason.SAMPLE: "the shipped sample is offered to clients on the server's machine only",
    Reason.NO_ROOM: "the image of {version} has {text}{and_behind}",
    Reason.WRONG_CHIP: "the image of {version} {text}; `release publish FILE --version {version} "
    "--force` offers it all the same{and_behind}",
    # 12, 13
    Reason.REPEATED: _FETCHED + "; it waits until {until}",
    Reason.STUCK: f"stuck: {_FETCHED}; until the image changes or an operator runs `retry MAC`",
    Reason.UPDATE_FAILED: "it has failed {times} times to install the image of {version}; it waits "
    "until {until}",
    Reason.CANCELING: "it was told to cancel the update to {version}, and has not answered yet",
    Reason.WINDOW_CLOSED: "outside the maintenance window {text}{and_behind}",
    Reason.NO_SLOT: "all {times} download slots are taken or kept for others; it asks again later"
    "{and_behind}",
}


class Turn(NamedTuple):
    """A rollout that concerns a device, and the percentage at which the device's turn comes.

    Attributes:
        first_group: the group of the device that makes the first wave; None: it is in none.
        reverts: the release that it takes devices back from; None: it is not a revert.
    """

    group: str
    version: str
    state: str
    percent: float
    device_percent: float
    first_group: str | None = None
    reverts: str | None = None

    @property
    def name(self) -> str:
        """What the rollout is called."""
        return _name(self.version, self.group, self.reverts)


class Explanation(NamedTuple):
    """What a device gets, and why.

    Attributes:
        decision: None: there is no target, and it is answered 503.
        for_image: the decision if it asks for the image, even of the release that it runs.
        pin: in force or not.
        fleet_target: that is in force; None: there is none, because of `target_problem`.
        image: the one it may have now.
        image_problem: why /firmware.bin is answered 404, if it is.
        server: what the running server says of itself.
        reports_release: what it reports means a release that is here.
    """

    report: Report
    decision: Decision | None
    for_image: Decision
    groups: tuple[str, ...]
    pin: Pin | None
    fleet_target: str | None
    target_problem: str
    turns: tuple[Turn, ...]
    image: ImageOnDisk | None
    image_problem: str
    server: ServerState
    reports_release: bool = True


def in_words(cause: Cause) -> str:
    """Return a cause as an operator reads it."""
    behind, version = cause.behind, cause.version
    said = "" if behind is None else in_words(behind)
    is_unknown = behind is not None and behind.reason is Reason.UNKNOWN_RELEASE
    text = cause.text
    if cause.reason is Reason.HELD_BACK and text:
        return f"held back: {text}"
    if cause.reason is Reason.NO_IMAGE and not text:
        text = f"the image of {version} is missing"
    return _WORDS[cause.reason].format(
        version=version,
        group=cause.group,
        text=text,
        times=cause.times,
        until=format_time(cause.until_ms or 0),
        image_name=image_name(version),
        whose=f"the {_name(version, cause.group, text)}",
        behind=said,
        and_behind=f"; {said}" if said else "",
        of_behind=f"{', and' if is_unknown else ':'} {said}",
    )


def _name(version: str, group: str, reverts: str | None) -> str:
    if reverts:
        return f"revert to {version}{f' for {group}' * bool(group)}"
    return f"rollout of {version}{f' to {group}' * bool(group)}"


def with_turn(cause: Cause, mac: str, policy: Policy) -> Cause:
    """Return a cause with how far the rollout is that holds a device back, if one does."""
    if cause.reason is not Reason.HELD_BACK:
        return cause
    for turn in _turns(mac, policy.groups.get(mac, ()), policy):
        if policy.is_withdrawn(turn.version):
            continue
        if turn.first_group is not None or turn.device_percent < turn.percent:
            return cause  # a revert, which does not concern it
        whose = f"the {turn.name}"
        at = f"is at {turn.percent:g} %, its turn comes at {turn.device_percent:.2f} %"
        return cause._replace(text=f"{whose} {at}")
    return cause


def explain(
    report: Report,
    situation: Situation,
    image: ImageOnDisk | None,
    fleet_target: str | None,
    target_problem: str,
    server: ServerState,
) -> Explanation:
    """Return what a device gets, and why.

    Args:
        image: of the release that `choose` found; None: it found no release.
        fleet_target, target_problem: as in an `Explanation`.
    """
    found = decide(report, situation)
    found = found._replace(cause=with_turn(found.cause, report.key, situation.policy))
    decision = None if found.reason is Reason.NO_TARGET else found
    for_image = decide(report, situation._replace(wants_image=True, put_off=None))
    policy = situation.policy
    refused = None
    if image is not None and decision is not None and for_image.release is not None:
        refused = why_not_served(for_image.release, image, policy, situation.is_local)
        # Who runs this may read what the server's user cannot.
        refused = refused or unserved(for_image.release, policy)
    # A request for an image is put off last, when there is one to send.
    if refused is None and situation.put_off is not None:
        for_image = put_off(report, for_image, situation.put_off, wants_image=True)
    has_image = decision is not None and for_image.release is not None and refused is None
    groups = policy.groups.get(report.key, ())
    return Explanation(
        report,
        decision,
        for_image,
        groups,
        policy.pins.get(report.key),
        fleet_target,
        target_problem,
        tuple(_turns(report.key, groups, policy)),
        image if has_image else None,
        "" if refused is None else in_words(refused),
        server,
        meaning(policy.release_of(report.firmware_version)) in policy.images,
    )


def _turns(mac: str, groups: tuple[str, ...], policy: Policy) -> Iterator[Turn]:
    for group in (*groups, ""):
        found = policy.rollouts.get(group)
        if found is not None and (group or not is_left_alone(groups, policy)):
            first = found.first_group if found.first_group in groups else None
            turn = cohort_percent(found.version, mac) if first is None else 0.0
            yield Turn(group, found.version, found.state, found.percent, turn, first, found.reverts)
