"""Devices that the server itself does not give the release of a rollout. Pure.

`policy.fit` has the rule: they have no room for the image, or another chip. Nothing is to be waited
for there, so a wave needs the others alone. A device says what it has with each request, also long
before the rollout; only from its home, since anybody could say it. One that has begun to fetch the
image all the same is needed like any other.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ota_server.model.device import Report
from ota_server.model.updater import Updater, updater_in
from ota_server.model.version import same_version
from ota_server.policy.fit import why_unfit
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Cause, Reason

_WORDS = {
    Reason.NO_ROOM: "no room: the image has {text}",
    Reason.WRONG_CHIP: "other chip: the image {text}",
}
_MOST_KINDS = 4096
_Kind = tuple[str, Updater | None]  # the version that a device reports, and its updater


class UnfitDevices:
    """The devices that cannot take a release, by their rows."""

    def __init__(self, release: str, fit: Policy) -> None:
        self._kinds: dict[int, _Kind] = {}
        self.judge_by(release, fit)

    def judge_by(self, release: str, fit: Policy) -> None:
        """Take what is on record of the images; devices that can take it now are left out."""
        self._why = lru_cache(_MOST_KINDS)(lambda kind: _why(kind, release, fit))
        self._has_images = bool(fit.manifests)
        self._kinds = {row: kind for row, kind in self._kinds.items() if self._why(kind)}

    def hear(self, row: int, record: Mapping[str, Any]) -> None:
        """Take what a device says of itself."""
        if not self._has_images:
            return
        kind = record["firmware_version"][:64], updater_in(record)
        if self._why(kind) is not None:
            self._kinds[row] = kind
        else:
            self._kinds.pop(row, None)

    def forget(self, row: int) -> None:
        """Leave a device out until it is heard from again."""
        self._kinds.pop(row, None)

    def causes(self) -> dict[int, Cause]:
        """Return why each of them cannot take it."""
        return {row: why for row, kind in self._kinds.items() if (why := self._why(kind))}

    def state(self) -> dict[int, Any]:
        """Return all of it, for `restore`."""
        return {
            row: (version, updater and tuple(updater))
            for row, (version, updater) in self._kinds.items()
        }

    def restore(self, state: Mapping[int, Any]) -> None:
        """Go on where `state` was called."""
        self._kinds = {
            row: (version, updater and Updater(*updater))
            for row, (version, updater) in state.items()
        }


def _why(kind: _Kind, release: str, fit: Policy) -> Cause | None:
    reported, updater = kind
    if same_version(fit.release_of(reported), release):
        return None
    if updater is None and not fit.has_several_chips:
        return None  # as `decision.withhold` does
    return why_unfit(Report("", reported, updater), release, None, fit)


def cause_in_words(cause: Cause) -> str:
    """Return why one device cannot take it."""
    return _WORDS[cause.reason].format(text=cause.text)


def unfit_in_words(devices: int, no_room: int) -> str:
    """Return how many cannot take it, and why: so many of them have no room."""
    reasons = {"no room": no_room, "other chip": devices - no_room}
    said = ", ".join(f"{why} ({count})" for why, count in reasons.items() if count)
    return f"{devices} cannot take it: {said}"
