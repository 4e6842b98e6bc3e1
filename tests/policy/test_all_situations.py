"""All combinations of what decides, against the rules as an operator would say them."""

import unittest
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from ota_server.model.device import Download, Report
from ota_server.model.manifest import Manifest
from ota_server.model.updater import Updater
from ota_server.model.version import SAMPLES, Target, meaning
from ota_server.policy.decision import decide
from ota_server.policy.explain import in_words
from ota_server.policy.policy import Pin, Policy, Rollout, RolloutState, Stopped, make_policy
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.situation import ImageOnDisk, Situation, no_slot, window_closed

MAC = "00:11:22:33:44:55"
OWN, FLEET, GROUP, NEW, PINNED, STONE = "v1.0", "v1.1", "v1.2", "v1.3", "v1.4", "v1.05"
OTHERS = (FLEET, GROUP, NEW, PINNED, STONE)
(SAMPLE_SIZE, SAMPLE_SHA256), *_ = SAMPLES
SHA256 = "ab" * 32
NOW_MS = 1_800_000_000_000
REPORTS = (OWN, "factory 7", FLEET, NEW)
ATTEMPTS = {0: None, 3: Reason.REPEATED, 10: Reason.STUCK}
PINS = ("", "device", "group")
ROLLOUTS = ("", "open", "paused", "not yet")
# For the first the image is too large, for the second it is for another chip.
UNFIT = {Updater("esp8266", 999): Reason.NO_ROOM, Updater("esp8266"): Reason.WRONG_CHIP}
PUT_OFF = {
    None: None,
    Reason.WINDOW_CLOSED: window_closed("01:00-05:00"),
    Reason.NO_SLOT: no_slot(4),
}


class Files(NamedTuple):
    """What the files of operators say.

    `is_withdrawn`, `is_missing` and `is_manifest_bad` are so of all releases but OWN; where a
    stepping stone stands before the others, which their manifests say, that of the stone is bad.
    """

    is_unusable: bool
    is_held: bool
    pin: str
    rollout: str
    has_group_target: bool
    has_target: bool
    has_stone: bool
    is_withdrawn: bool
    is_manifest_bad: bool
    is_missing: bool
    is_sample: bool


class Moment(NamedTuple):
    """What the server alone knows, and what is known of the device."""

    reported: str
    is_away: bool
    is_failing: bool
    is_full: bool
    attempts: int
    is_elsewhere: bool
    put_off: Reason | None
    updater: Updater | None = None


def all_files() -> Iterator[Files]:
    """Yield all combinations but the impossible ones."""
    both = (False, True)
    for files in product(both, both, PINS, ROLLOUTS, both, both, both, both, both, both, both):
        found = Files(*files)
        if not (found.is_missing and found.is_sample):  # no image is the sample
            yield found


def all_moments(files: Files) -> Iterator[Moment]:
    """Yield all combinations but the impossible ones."""
    both = (False, True)
    for moment in product(REPORTS, both, both, both, ATTEMPTS, both, PUT_OFF):
        found = Moment(*moment)
        if found.is_full and found.attempts:
            continue  # who is not on record has fetched nothing
        if found.attempts and files.is_sample:
            continue  # the sample may be fetched as often as somebody likes
        if found.is_elsewhere and not files.is_sample:
            continue  # it is asked where the sample is concerned, and nowhere else
        yield found
        if not (found.is_away or found.is_failing or found.is_full or found.put_off):
            # The rules of what pauses a rollout, and the last one, have nothing to do with them.
            yield from (found._replace(updater=each) for each in UNFIT)


@cache
def policy_of(files: Files) -> Policy:
    """Return the policy that is made of files."""
    pin = {"device": ({MAC: Pin(PINNED, None)}, {}), "group": ({}, {"beta": Pin(PINNED, None)})}
    stone_first = OTHERS[:-1] if files.has_stone else ()
    size, sha256 = (SAMPLE_SIZE, SAMPLE_SHA256) if files.is_sample else (1000, SHA256)
    bad = [each for each in OTHERS if each not in stone_first] if files.is_manifest_bad else []
    percent = 0.0 if files.rollout == "not yet" else 100.0
    state = RolloutState.PAUSED if files.rollout == "paused" else RolloutState.RUNNING
    return make_policy(
        problem="pins.json cannot be used" if files.is_unusable else "",
        is_held=files.is_held,
        pins=pin.get(files.pin, ({}, {})),
        group_targets={"beta": GROUP} if files.has_group_target else {},
        groups={MAC: ("beta",)},
        rollouts={"": Rollout(NEW, state, percent)} if files.rollout else {},
        stopped={meaning(each): Stopped(each, True, None) for each in OTHERS}
        if files.is_withdrawn
        else {},
        manifests={
            meaning(each): Manifest(each, sha256, "0" * 32, size, "", via=STONE)
            for each in stone_first
        },
        unusable={meaning(each): "is no JSON" for each in bad},
        images=frozenset(map(meaning, (OWN,) if files.is_missing else (OWN, *OTHERS))),
    )


def situation_of(files: Files, moment: Moment, release: str | None) -> Situation:
    """Return the situation, with the image and the download of a release."""
    size, sha256 = (SAMPLE_SIZE, SAMPLE_SHA256) if files.is_sample else (1000, SHA256)
    download = Download(release or OWN, SHA256, 1000, NOW_MS, moment.attempts, NOW_MS)
    return Situation(
        policy_of(files),
        Target(FLEET, "", f"firmware_{FLEET}.bin", size) if files.has_target else None,
        NOW_MS,
        not moment.is_elsewhere,
        False,
        frozenset() if moment.is_away else None,
        moment.is_failing,
        moment.is_full,
        download if moment.attempts else None,
        ImageOnDisk("name", size, sha256, chip="RP2040"),
        PUT_OFF[moment.put_off],
    )


def wanted(files: Files, moment: Moment) -> tuple[str | None, Reason]:
    """Say what the device should run, None for what it runs, and the rule."""
    if files.pin:
        return PINNED, Reason.PIN if files.pin == "device" else Reason.GROUP_PIN
    if files.is_withdrawn and moment.reported in OTHERS:
        return None, Reason.STOPPED
    target = FLEET if files.has_target else None
    is_on = bool(files.rollout) and not files.is_withdrawn
    if files.has_group_target:
        return GROUP, Reason.LEFT_ALONE if is_on else Reason.GROUP_TARGET
    if is_on and moment.reported == NEW:
        return None, Reason.RUNS_ROLLOUT
    if is_on:
        pauses = {
            Reason.JOURNAL_FAILING: moment.is_failing,
            Reason.TABLE_FULL: moment.is_full,
            Reason.CONTROLLER_AWAY: moment.is_away,
        }
        pause = next((reason for reason, is_so in pauses.items() if is_so), None)
        if files.rollout == "open" and pause is None:
            return NEW, Reason.ROLLOUT
        shut = {"not yet": Reason.HELD_BACK, "paused": Reason.PAUSED}
        held_back = shut.get(files.rollout, pause)
        assert held_back is not None
        has_image = moment.reported == OWN or (moment.reported == FLEET and not files.is_missing)
        return target if has_image else None, held_back
    return target, Reason.TARGET if target else Reason.NO_TARGET


def expected(files: Files, moment: Moment) -> tuple[str, Reason]:
    """Say which version the device is told, and the rule."""
    own = moment.reported
    if files.is_unusable:
        return own, Reason.UNUSABLE_FILE
    if files.is_held:
        return own, Reason.ON_HOLD
    version, reason = wanted(files, moment)
    if version is None or version == own:
        # It stays, and may have the image of what it runs, unless that is not here.
        is_bad = files.is_missing or (files.is_manifest_bad and not files.has_stone)
        is_here = own == OWN or (own in OTHERS and not is_bad)
        may_have = version == own or is_here
        return own, Reason.SAMPLE if moment.is_elsewhere and may_have else reason
    if files.has_stone:
        version, reason = STONE, Reason.STEPPING_STONE
    refusals = {
        Reason.WITHDRAWN: files.is_withdrawn,
        Reason.BAD_MANIFEST: files.is_manifest_bad,
        # That the image of the target is missing is said by 404: silence tells an operator less.
        Reason.NO_IMAGE: files.is_missing and version != FLEET,
        Reason.SAMPLE: moment.is_elsewhere,
        UNFIT.get(moment.updater): moment.updater is not None,
        ATTEMPTS[moment.attempts]: moment.attempts > 0,
    }
    for refusal, is_so in refusals.items():
        if is_so and refusal is not None:
            return own, refusal
    return (version, reason) if moment.put_off is None else (own, moment.put_off)


class AllTest(unittest.TestCase):
    def test_each_situation_is_decided_by_the_first_rule_that_concerns_it(self) -> None:
        count, reasons = 0, set()
        for files in all_files():
            for moment in all_moments(files):
                report = Report(MAC, moment.reported, moment.updater)
                version, reason = expected(files, moment)
                release = STONE if files.has_stone else wanted(files, moment)[0]
                found = decide(report, situation_of(files, moment, release))
                count += 1
                if (found.version, found.reason) != (version, reason):
                    self.fail(f"{files} {moment}: {found}, not {version}, {reason}")
                reasons.add(found.reason)
        self.assertEqual(count, 983_040)
        # The first stands behind others alone, the next two concern the bytes of an image, the next
        # an option of the server (test_unknown_devices), the last two hawkBit's API (test_ddi).
        others = {Reason.UNKNOWN_RELEASE, Reason.ALTERED, Reason.UNSERVED, Reason.NO_GROUP}
        others |= {Reason.UPDATE_FAILED, Reason.CANCELING}
        self.assertEqual(set(Reason) - reasons, others)

    def test_every_reason_has_words(self) -> None:
        for reason in Reason:
            with self.subTest(reason):
                words = in_words(Cause(reason, "v1", "beta", "text", 3, NOW_MS, Cause(Reason.PIN)))
                self.assertNotRegex(words, "^$|[{}]")
