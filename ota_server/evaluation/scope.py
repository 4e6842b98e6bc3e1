"""Whom a rollout reaches, and with which wave; which versions are releases. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ota_server.evaluation.poll_history import NO_WAVE
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan


class RolloutScope(NamedTuple):
    """What the fold has to know besides the journal; MACs in lower-case pairs with colons.

    Attributes:
        members: of the group that the rollout is for; None: it is for the whole fleet.
        first_group: members of the group that makes the first wave.
        left_out: devices that the rollout does not reach, such as those that are pinned.
        releases: the meanings of the versions that are releases, stepping stones among them.
        aliases: the version of a release by what its devices report (`Policy.aliases`).
        completion_unknown: devices are behind something that buffers whole images.
        stepping_stones: the meanings of the releases that devices run on the way to the rollout's.
    """

    members: frozenset[str] | None = None
    first_group: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    completion_unknown: bool = False
    stepping_stones: frozenset[str] = frozenset()

    def reaches(self, mac: str) -> bool:
        """Return whether the rollout is for a device."""
        return mac not in self.left_out and (self.members is None or mac in self.members)

    def has_same_devices(self, other: "RolloutScope") -> bool:
        """Return whether a device is in the same wave by another scope."""
        mine, theirs = (
            (scope.members, scope.first_group, scope.left_out) for scope in (self, other)
        )
        return mine == theirs

    def wave_of(self, plan: RolloutPlan, mac: str) -> int:
        """Return the first wave that holds a device."""
        if not self.reaches(mac):
            return NO_WAVE
        if mac in self.first_group:
            return 0
        wave = next(plan.waves_at((cohort_percent(plan.version, mac),)))
        return wave if wave < plan.wave_count else NO_WAVE
