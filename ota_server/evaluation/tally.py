"""What was counted: how many devices of a rollout are in which state, and what decides. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Where the open waves have so many devices or fewer, two bad ones halt the rollout.
SMALL_WAVE = 20
# Where they have fewer than these, all of them have to be bad, and what another address says of a
# device confirms nothing.
TINY_WAVE = 4
# Where they have so many or fewer, a person is asked about devices that do not do well.
ASKING_WAVE = 49
# So many devices are named.
MOST_NAMED = 20
# The name of slow pollers among `Tally.parts`; all others are versions.
SLOW = ""


class Evidence(NamedTuple):
    """What decides whether a release is bad, of all devices or of a part of them.

    Numbers of devices, with as many of each home as count.

    Attributes:
        base: those heard from since the wave opened, or waited for.
        failed: those that failed, as their own requests show.
        silent: those not heard from since they downloaded it, where others at their address are.
        mislabelled: those that report a third version, which is not a release.
        excused: of `silent`, as many as could be silent by chance without the release.
        expected: of `silent`, as many as would be silent on average without it.
        unseen: of `base`, those of which nothing shows what they run (`Case.is_unseen`): they are
            alive, and can neither fail nor be mislabelled.
    """

    base: int = 0
    failed: int = 0
    silent: int = 0
    mislabelled: int = 0
    excused: int = 0
    expected: int = 0
    unseen: int = 0

    @property
    def seen(self) -> int:
        """How many show what they run."""
        return self.base - self.unseen


class Tally(NamedTuple):
    """What became of the devices in the wave that is open, and in those before it.

    The counts of devices, up to `contradicted`, are for people; what `waves.advance` decides by are
    `active`, `undecided`, `displaced`, and what follows `contradicted`.

    Attributes:
        active: devices heard from since the wave opened, or waited for, without those that count
            for nothing.
        offered to displaced: devices in that `DeviceState`.
        contradicted: another address said of them what their home did not confirm.
        unseen: of the undecided ones, those of which nothing shows what they run.
        unseen_fresh: of these, those that this wave added.
        cannot_take_it: devices in these waves that the server does not give it (`unfit`): they
            count for nothing, and are not among those that follow.
        no_room: of these, those without room for the image; the others have another chip.
        reach: devices on record in this wave and those before it that count, heard from or not.
        heard: of these, those that were heard from since the release reached them.
        overall: the evidence of all that count.
        whole: the same, as if one home could give all of it.
        parts: the evidence of the devices that ran each old version, where some of them are bad;
            under `SLOW`, that of slow pollers.
        fresh: active devices that this wave added.
        to_come: devices on record that this wave added, heard from or not.
        members: of these, those that were heard from within a week before it opened, or since.
        size: as `members`, with the waves before it.
        slow_share: the share of slow pollers among `members`; 0 to 1.
        soaked: of `fresh`, on the release, and heard from when they had run it for the soak; in a
            tiny wave from their homes.
        slow_soaked: of `soaked`, slow pollers.
        silence_rate: the share of devices that would have been silent without it; 0 to 1. Nothing
            is decided by it.
        age_ms: how long the wave has been open while the server answered.
        bad: what became of devices that failed, fell silent or are mislabelled, by MAC (by row,
            while they are counted); some of them where they are many.
        label: what most of the mislabelled ones report; "": there are none.
        bad_elsewhere: how many of all bad ones are so by what another address said or downloaded.
        bad_at: where most of those were heard from, and how many.
        displaced_at: the same of the displaced ones.
        contradicted_at: the same of who spoke for those that are contradicted.
        stuck: as `bad`, the devices that keep a small wave from going on, for a person to look at;
            empty as long as others are on their way.
    """

    active: int = 0
    offered: int = 0
    downloading: int = 0
    cut: int = 0
    undecided: int = 0
    updated: int = 0
    failed: int = 0
    mislabelled: int = 0
    silent: int = 0
    too_new: int = 0
    surplus: int = 0
    displaced: int = 0
    contradicted: int = 0
    unseen: int = 0
    unseen_fresh: int = 0
    cannot_take_it: int = 0
    no_room: int = 0
    reach: int = 0
    heard: int = 0
    overall: Evidence = Evidence()
    whole: Evidence = Evidence()
    parts: Mapping[str, Evidence] = {}
    fresh: int = 0
    to_come: int = 0
    members: int = 0
    size: int = 0
    slow_share: float = 0.0
    soaked: int = 0
    slow_soaked: int = 0
    silence_rate: float = 0.0
    age_ms: int = 0
    bad: Mapping[Any, str] = {}
    label: str = ""
    bad_elsewhere: int = 0
    bad_at: tuple[str, int] = ("", 0)
    displaced_at: tuple[str, int] = ("", 0)
    contradicted_at: tuple[str, int] = ("", 0)
    stuck: Mapping[Any, str] = {}

    @property
    def silent_anyway(self) -> int:
        """How many active devices would be silent without the release, on average: for people."""
        return round(self.silence_rate * self.active)
