"""What became of one device under a rollout, as people and programs are told it. Pure."""

from typing import NamedTuple

from ota_server.evaluation.device_case import (
    BEGAN_AGAIN,
    NOT_FAILED,
    SAID_SO,
    WENT_BACK,
    DeviceState,
)

# The states that `rollout devices` can be asked for, by the names of its options.
ASKED_FOR = {
    "failed": DeviceState.FAILED,
    "silent": DeviceState.SILENT,
    "mislabelled": DeviceState.MISLABELLED,
    "undecided": DeviceState.UNDECIDED,
    "cut": DeviceState.CUT,
    "unheard": DeviceState.NOT_HEARD_FROM,
}
# In this order devices are listed: what a person has to look at comes first.
WORST_FIRST = (
    *(DeviceState.FAILED, DeviceState.MISLABELLED, DeviceState.SILENT, DeviceState.UNDECIDED),
    *(DeviceState.CUT, DeviceState.NOT_HEARD_FROM, DeviceState.CANNOT_TAKE_IT),
    *(DeviceState.DOWNLOADING, DeviceState.OFFERED, DeviceState.WAITING),
    *(DeviceState.DISPLACED, DeviceState.SURPLUS, DeviceState.TOO_NEW, DeviceState.UPDATED),
)
# {0}: the version that the device reports.
WORDS = {
    DeviceState.FAILED: "it had the whole image, and reports {0} still",
    DeviceState.MISLABELLED: "it has the image, and reports {0}, which is not a release "
    "(--reports-as)",
    DeviceState.SILENT: "it has the image, and has not been heard from since",
    DeviceState.UNDECIDED: "it has the image, and has not reported the release yet",
    DeviceState.CUT: "its download was cut, which is the network's fault",
    DeviceState.DOWNLOADING: "it is downloading the image",
    DeviceState.OFFERED: "it was told of the release, and has not asked for the image yet",
    DeviceState.DISPLACED: "it is heard only from an address that is not its home, and not "
    "believed",
    DeviceState.SURPLUS: "its address has more devices in the wave than count; it is not counted",
    DeviceState.TOO_NEW: "it was not known for a day before the start; it is not counted "
    "(--count-new)",
    DeviceState.CANNOT_TAKE_IT: "the server does not give it to this device",
    DeviceState.UPDATED: "it reports the release",
}
_HOW_IT_FAILED = {
    WENT_BACK: "it ran the release, and went back to {0}",
    SAID_SO: "it says itself that the update failed",
    BEGAN_AGAIN: "it had the whole image, reports {0}, and began to download it again",
}
UNSEEN = "says no version"
UNSEEN_WORDS = f"it had the whole image, and {UNSEEN}"
_WAITING = "it was heard from, and was not told of the release yet"
_UNHEARD = "it has not been heard from since the newest wave opened"
_EXCUSED = "it has not been heard from, and neither have others at its address"


class DeviceOutcome(NamedTuple):
    """A device of the waves that are open.

    Attributes:
        address: the one that answers for its state.
        failing: how it has failed, as `Case.failing`.
        is_excused: it is silent, and the release is not the cause.
        gap_ms: the longest time that it goes without a poll; 0.0: that is not known.
        is_unseen: nothing shows what it runs, as `Case.is_unseen`.
        why: the reason for its state, where that does not say it.
    """

    key: str
    state: DeviceState
    address: str
    failing: int = NOT_FAILED
    is_excused: bool = False
    gap_ms: float = 0.0
    is_unseen: bool = False
    why: str = ""

    def in_words(self, reported: str) -> str:
        """Return the reason for its state, given the version that it reports."""
        if self.why:
            return self.why
        words = WORDS.get(self.state, _WAITING)
        if self.state == DeviceState.NOT_HEARD_FROM:
            words = _UNHEARD
        elif self.state == DeviceState.FAILED:
            words = _HOW_IT_FAILED.get(self.failing, words)
        elif self.is_excused:
            words = _EXCUSED
        elif self.is_unseen:
            words = UNSEEN_WORDS
        return words.format(reported or "its old version")
