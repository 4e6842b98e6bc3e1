"""Whom a rollout reaches, and with which wave; which versions are releases. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ota_server.evaluation.poll_history import NO_WAVE
from ota_server.journal.record_fields import time_in
from ota_server.model.device import DAY_MS
from ota_server.policy.decision import cohort_percent
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import RolloutPlan

_MOST_SPELLINGS = 1000


class RolloutScope(NamedTuple):
    """What the fold has to know besides the journal; devices by their keys.

    Attributes:
        product: whose devices these are, "" for the default one.
        members: of the group that the rollout is for; None: it is for the whole fleet.
        first_group: members of the group that makes the first wave.
        left_out: devices that the rollout does not reach, such as those that are pinned.
        releases: the meanings of the versions that are releases, stepping stones among them.
        aliases: the version of a release by what its devices report (`Policy.aliases`).
        completion_unknown: devices are behind something that buffers whole images.
        stepping_stones: the meanings of the releases that devices run on the way to the rollout's.
        fit: what `policy.fit` goes by; without manifests, nobody is refused the release.
    """

    members: frozenset[str] | None = None
    first_group: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    completion_unknown: bool = False
    stepping_stones: frozenset[str] = frozenset()
    product: str = ""
    fit: Policy = Policy()

    def reaches(self, key: str) -> bool:
        """Return whether the rollout is for a device."""
        return key not in self.left_out and (self.members is None or key in self.members)

    def has_same_devices(self, other: "RolloutScope") -> bool:
        """Return whether a device is in the same wave by another scope."""
        mine, theirs = (
            (scope.members, scope.first_group, scope.left_out) for scope in (self, other)
        )
        return mine == theirs

    def wave_of(self, plan: RolloutPlan, key: str) -> int:
        """Return the first wave that holds a device."""
        if not self.reaches(key):
            return NO_WAVE
        if key in self.first_group:
            return 0
        wave = next(plan.waves_at((cohort_percent(plan.version, key),)))
        return wave if wave < plan.wave_count else NO_WAVE


def is_old(record: Mapping[str, Any], time_ms: int, start_ms: int) -> bool:
    """Return whether a device was known a day before a rollout began, by its first record.

    Args:
        time_ms: of the record.
    """
    old_ms = start_ms - DAY_MS
    first_seen_ms = time_in(record.get("first_seen_time"))
    if first_seen_ms is not None:
        return first_seen_ms <= old_ms
    names = ("last_seen_time", "update_time", "download_request_time")
    times = (time_ms, *(time_in(record.get(name)) for name in names))
    return any(each is not None and each <= old_ms for each in times)


def keep_spelling(spelled: dict[str, str], running: str, record: Mapping[str, Any]) -> None:
    """Keep how a device spells what it runs, for people."""
    if len(spelled) < _MOST_SPELLINGS:
        spelled.setdefault(running, record["firmware_version"][:64])
