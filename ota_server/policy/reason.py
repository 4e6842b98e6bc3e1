"""Why a device is told a version: the name of each reason. Pure.

`decision` gives the reasons, by its rules; `explain` has the words for them.
"""

from enum import Enum
from typing import NamedTuple, Optional

# What is said of such an image, after its name, by whoever finds it.
IS_ALTERED = "is not the image that was published: publish the same build again"


class Reason(Enum):
    """A rule of `decision` that decided, in the order of the rules."""

    UNUSABLE_FILE = "a file of the policy cannot be used"
    ON_HOLD = "everything is on hold"
    PIN = "the device is pinned"
    GROUP_PIN = "its group is pinned"
    NO_GROUP = "it is in no group, and such devices are told nothing"
    RUNS_ROLLOUT = "it runs what a rollout brings"
    ROLLOUT = "a rollout offers it a release"
    HELD_BACK = "a rollout has not come to it"
    PAUSED = "a rollout would, but it is paused"
    CONTROLLER_AWAY = "a rollout would, but the controller does not look after it"
    JOURNAL_FAILING = "a rollout would, but the journal cannot be written"
    TABLE_FULL = "a rollout would, but there is no room to put the device on record"
    STOPPED = "it runs a release that was stopped"
    UNKNOWN_RELEASE = "it is held back on a version that is not a known release"
    GROUP_TARGET = "the target of its group"
    TARGET = "the target of the fleet"
    LEFT_ALONE = "the rollout of the fleet leaves its group alone"
    NO_TARGET = "there is no target"
    STEPPING_STONE = "a stepping stone on the way to a release"
    WITHDRAWN = "the release was withdrawn"
    BAD_MANIFEST = "the manifest of the release cannot be used"
    NO_IMAGE = "the image of the release is missing or cannot be read"
    ALTERED = "the image is not the one that was published"
    UNSERVED = "the image is altered or cannot be read, as the running server found"
    SAMPLE = "the shipped sample is for the machine of the server"
    NO_ROOM = "the device has no room for the image"
    WRONG_CHIP = "the image is for another chip than that of the device"
    REPEATED = "the device fetched the image too often, and waits"
    STUCK = "the device fetched the image so often that an operator has to look"
    UPDATE_FAILED = "the device has said that it failed with the image, and waits"
    CANCELING = "the device has not answered yet that it cancels another update"
    WINDOW_CLOSED = "no maintenance window is open"
    NO_SLOT = "all download slots are taken"


class Cause(NamedTuple):
    """A reason with what it is about.

    Attributes:
        version: of the release that it is about.
        group: that it is about; "" is the whole fleet.
        text: what a file, a window or an image says of itself; of a rollout what it reverts.
        times: how many downloads, or download slots.
        until_ms: when it ends; None: that is not known.
        behind: the cause that would have decided without this one.
    """

    reason: Reason
    version: str = ""
    group: str = ""
    text: str = ""
    times: int = 0
    until_ms: int | None = None
    behind: Optional["Cause"] = None
