"""The devices of a rollout that are not updated, each with its reason, the worst first. I/O."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from ota_server.evaluation.device_case import BAD, DeviceState
from ota_server.evaluation.outcomes import UNSEEN_WORDS, WORDS, WORST_FIRST, DeviceOutcome
from ota_server.journal.follow import end_of
from ota_server.journal.replay import replay
from ota_server.model.device import Device
from ota_server.model.identity import key_of_name, name_of, number_of
from ota_server.model.quantity import first_of
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.device_state import GRACE_MS
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.rollout_text import name_of as name_of_rollout
from ota_server.rollouts.files import read_checkpoint
from ota_server.rollouts.find_rollout import RolloutOnFile
from ota_server.rollouts.journal_fold import JournalFold, ServerFacts
from ota_server.rollouts.rollout_memory import CountedRollout
from ota_server.system.data_dir import journal_dir, log_dir, product_at

log = logging.getLogger(__name__)

_MOST_LOGGED = 10
_THEN_UNDECIDED = "it had the image, and had not reported the release when the rollout ended"
# Those of which nothing was heard after they had the image, or may have it since.
QUIET = (DeviceState.SILENT, DeviceState.UNDECIDED, DeviceState.DOWNLOADING)
_PLACES: dict[str, int] = {state: place for place, state in enumerate(WORST_FIRST)}


class ListedDevice(NamedTuple):
    """A device of a rollout, as it is listed and kept.

    Attributes:
        state: what it counts as: the value of a `DeviceState`.
        firmware_version: what it reports; "": it is no longer on record.
        last_seen_time: "" where it is no longer on record.
        quiet_seconds: for so long it may say nothing, once it has the image.
    """

    mac: str  # its name (`model.identity`); for most devices that is a MAC
    state: str
    reason: str
    firmware_version: str
    last_seen_time: str
    address: str
    quiet_seconds: float = GRACE_MS / 1000

    def state_now(self, device: Device, now_ms: int) -> str:
        """Return what it counts as by now; "": it is not as it was then.

        One that had the image, and has said nothing since, is silent after a time.
        """
        if device.firmware_version != self.firmware_version:
            return ""
        if self.state not in QUIET:
            return self.state
        download = device.download
        had_ms, asked_ms = (download.attempt_ms, download.request_ms) if download else (0, 0)
        is_heard = device.last_seen_ms > parse_time(self.last_seen_time) or 0 < had_ms < asked_ms
        if is_heard or (self.state == DeviceState.DOWNLOADING and had_ms < device.last_seen_ms):
            return ""  # it asked again, or never had all of the image
        quiet_ms = now_ms - max(device.last_seen_ms, had_ms)
        is_silent = self.state == DeviceState.SILENT or quiet_ms > self.quiet_seconds * 1000
        return DeviceState.SILENT if is_silent else self.state


_Named = TypeVar("_Named", ListedDevice, DeviceOutcome)


def list_devices(fold: JournalFold, logs: Path, now_ms: int) -> list[ListedDevice]:
    """Return the devices in the open waves that are not updated, the worst first.

    Raises:
        OSError: the journal cannot be read.
    """
    outcomes = fold.feedback.outcomes(now_ms)
    missing = [each for each in outcomes if each.state != DeviceState.UPDATED]
    missing.sort(key=lambda each: (_PLACES[each.state], each.key))
    return [
        ListedDevice(
            name_of(outcome.key),
            str(outcome.state),
            outcome.in_words(version),
            version,
            seen,
            outcome.address,
            fold.rules.quiet_seconds(outcome.gap_ms),
        )
        for outcome, (version, seen, _) in _reports(((each.key, each) for each in missing), logs)
        # It may have updated in an earlier wave, or before the rollout.
        if outcome.state != DeviceState.NOT_HEARD_FROM or not fold.rules.is_release(version)
    ]


def devices_at_end(
    fold: JournalFold, data_dir: Path, plan: RolloutPlan, now_ms: int
) -> list[ListedDevice] | None:
    """Return the devices as `list_devices` does; None where the journal cannot be read."""
    try:
        return list_devices(fold, journal_dir(data_dir), now_ms)
    except OSError as problem:
        log.warning("%s: its devices are not on record: %s", name_of_rollout(plan), problem)
        return None


def as_of_now(devices: Iterable[ListedDevice], data_dir: Path, now_ms: int) -> list[ListedDevice]:
    """Return the devices of a rollout that is over with what they report now, the worst first.

    Args:
        data_dir: of their product.

    Raises:
        OSError: the journal cannot be read.
    """
    found = []
    product = product_at(data_dir)
    keyed = ((key_of_name(product, each.mac), each) for each in devices)
    for each, (version, seen, device) in _reports(keyed, journal_dir(data_dir)):
        fell_silent = (
            device is not None
            and each.state == DeviceState.UNDECIDED
            and each.state_now(device, now_ms) == DeviceState.SILENT
        )
        if fell_silent:
            silent = DeviceState.SILENT
            each = each._replace(state=str(silent), reason=WORDS[silent])
        elif each.state == DeviceState.UNDECIDED and each.reason != UNSEEN_WORDS:
            each = each._replace(reason=_THEN_UNDECIDED)
        found.append(each._replace(firmware_version=version, last_seen_time=seen))
    return sorted(found, key=lambda each: _PLACES.get(each.state, 0))


def _reports(
    devices: Iterable[tuple[str, _Named]], logs: Path
) -> Iterator[tuple[_Named, tuple[str, str, Device | None]]]:
    """Yield each device with what it reports, and when it was seen last; "" and None: never."""
    found = replay(logs)
    try:
        for key, each in devices:
            location = found.locations.get(number_of(key))
            device = None if location is None else found.read(location)
            if device is None:
                yield each, ("", "", None)
            else:
                seen = format_time(device.last_seen_ms)
                yield each, (device.firmware_version, seen, device)
    finally:
        found.close()


def devices_by_checkpoint(
    data_dir: Path, rollout: RolloutOnFile, now_ms: int
) -> list[ListedDevice]:
    """Return the devices as the controller sees them now, or saw them when the rollout ended.

    Raises:
        BadPolicy, OSError: a file cannot be used or read.
    """
    with _fold_by_checkpoint(data_dir, rollout, now_ms) as (fold, as_of_ms):
        return list_devices(fold, journal_dir(data_dir), as_of_ms)


def counted_by_checkpoint(data_dir: Path, rollout: RolloutOnFile, now_ms: int) -> CountedRollout:
    """Return a rollout that is on as the controller counts it now, without the updated devices.

    Raises:
        BadPolicy, OSError: a file cannot be used or read.
    """
    with _fold_by_checkpoint(data_dir, rollout, now_ms) as (fold, as_of_ms):
        return fold.counted(fold.feedback.count(as_of_ms)[0], as_of_ms)


@contextmanager
def _fold_by_checkpoint(
    data_dir: Path, rollout: RolloutOnFile, now_ms: int
) -> Iterator[tuple[JournalFold, int]]:
    """Return the fold of a rollout up to now, or to its end, and when that is."""
    plan, progress = rollout
    checkpoint = read_checkpoint(log_dir(data_dir), plan)
    is_unknown = checkpoint is not None and checkpoint.completion_unknown
    facts = ServerFacts(0, completion_unknown=is_unknown)
    fold = JournalFold(data_dir, plan, PolicyFiles(data_dir), facts, progress, now_ms)
    try:
        if checkpoint is not None and not rollout.is_on:
            now_ms = checkpoint.alive_ms  # what devices did after that is another story
        else:
            fold.read_to(end_of(journal_dir(data_dir)))
        yield fold, now_ms
    finally:
        fold.close()


def all_bad(devices: Iterable[ListedDevice]) -> list[ListedDevice]:
    """Return the devices that did badly, in the same order."""
    return [device for device in devices if device.state in BAD]


def worst_named(bad: Sequence[ListedDevice]) -> str:
    """Return the first ten devices of those that did badly, for the log."""
    return first_of([f"{device.mac} ({device.state})" for device in bad], _MOST_LOGGED)


def in_numbers(devices: Iterable[ListedDevice]) -> str:
    """Return how many devices are in each state, such as `6 failed, 2 silent`."""
    counts = Counter(device.state for device in devices)
    names = (state for state in WORST_FIRST if counts[state])
    return ", ".join(f"{counts[name]:,} {state_in_words(name)}" for name in names)


def state_in_words(state: str) -> str:
    """Return the value of a `DeviceState` as people read it."""
    return state.replace("_", " ")
