"""Tally: what a look at the devices of a rollout counted. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Of as many devices or fewer in the waves that are open two bad ones halt it.
SMALL_WAVE = 20
# Of fewer all bad ones do, and none is confirmed by what was said of it elsewhere.
TINY_WAVE = 4
# Of as many or fewer a person is asked about those that do not do well.
ASKING_WAVE = 49
# So many are named.
MOST_NAMED = 20
# The name of slow pollers among `Tally.parts`; all others are versions.
SLOW = ""


class Evidence(NamedTuple):
    """What decides whether a release is bad, of all devices or of a part of them.

    Numbers of devices, of each home as many as count.

    Attributes:
        base: those heard from since the wave opened, or waited for.
        failed: those that failed in a way that they told.
        silent: those not heard from since they downloaded it, where that is not everybody's
            silence.
        mislabelled: those that report a third version, which is no release.
        excused: of `silent`, as many as would have been silent without the release, and by far.
        expected: as many as would have been silent without it.
    """

    base: int = 0
    failed: int = 0
    silent: int = 0
    mislabelled: int = 0
    excused: int = 0
    expected: int = 0


class Tally(NamedTuple):
    """What became of the devices in the wave that is open, and in those before it.

    The counts of devices, up to `contradicted`, are for people; what `waves.advance` decides by are
    `active`, `undecided`, `displaced`, and what follows `contradicted`.

    Attributes:
        active: devices heard from since the wave opened, or waited for; those that count for
            nothing are not among them.
        offered: of these, told to run the release, and nothing more.
        downloading: a transfer of it is under way.
        cut: every transfer ended before the last byte; the network's fault.
        undecided: all of it was acknowledged, and it is not yet known what came of it.
        updated: they report the release, and are not silent.
        failed: they told that it failed; `silent` and `mislabelled` are not among them.
        mislabelled: they report a third version, which is no release.
        silent: not heard from since they downloaded it, whoever's fault that is.
        too_new: not known for a day before the rollout began; they count for nothing.
        surplus: more of one home than its share of the wave; they count for nothing.
        displaced: heard from only where few are believed; they count for nothing.
        contradicted: another address said of them what their home did not confirm.
        reach: devices on record in this wave and those before it that count, heard from or not.
        heard: of these, those that were heard from since the release reached them.
        overall: the evidence of all that count.
        whole: the same, if one home could give all of it.
        parts: the evidence of a part: of those that ran a version before, where some are bad; under
            `SLOW` that of slow pollers.
        fresh: active devices that this wave added.
        to_come: devices on record that this wave added, heard from or not.
        members: of these, those that were heard from within a week before it opened, or since.
        size: as `members`, of the waves before it too.
        slow_share: the share of slow pollers among those; 0 to 1.
        soaked: of `fresh`, on the release, and heard from when they had run it for the soak; in a
            tiny wave from their homes.
        slow_soaked: of `soaked`, slow pollers.
        silence_rate: the share of devices that would have been silent without it; 0 to 1.
        age_ms: how long the wave has been open, counting time in which the server answered alone.
        bad: devices that failed, fell silent or are mislabelled: what became of each, by its MAC
            (by its row, where they are counted); not all where they are many.
        bad_elsewhere: how many of all bad ones are so by what was said, or fetched, elsewhere.
        bad_at: where most of those were heard from, and how many.
        displaced_at: the same of the displaced ones.
        contradicted_at: the same of who spoke for those that are contradicted.
        stuck: the same of devices that the wave waits for and that a person has to look at; empty
            as long as others are on their way.
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
    bad_elsewhere: int = 0
    bad_at: tuple[str, int] = ("", 0)
    displaced_at: tuple[str, int] = ("", 0)
    contradicted_at: tuple[str, int] = ("", 0)
    stuck: Mapping[Any, str] = {}
