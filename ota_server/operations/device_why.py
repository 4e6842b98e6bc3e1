"""Why a device gets what it gets, as the server would decide, in words and as data. I/O."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.admission_status import read_server_state, read_standing
from ota_server.device_port.window import Standing
from ota_server.model.device import Device, Report
from ota_server.model.identity import name_of, product_of
from ota_server.model.quantity import count_of
from ota_server.model.timestamp import ago_ms, format_time
from ota_server.model.updater import NO_UPDATE_STATUS, family_of
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.policy.decision import NO_TARGET
from ota_server.policy.device_state import evidence_in_words
from ota_server.policy.explain import Explanation, Turn, in_words
from ota_server.policy.files import PolicyFiles
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.gather import explain_device, gather_fleet
from ota_server.policy.hold import current_hold
from ota_server.policy.labels import read_labels
from ota_server.policy.policy import Pin, RolloutState
from ota_server.policy.reason import Reason
from ota_server.policy.situation import ServerState
from ota_server.policy.text import Hold, time_text
from ota_server.rollouts.device_outcome import outcome_of
from ota_server.rollouts.history import judged_by_rollouts
from ota_server.system.data_dir import log_dir

_PUT_OFF = (Reason.WINDOW_CLOSED, Reason.NO_SLOT)


class WhyBesides(NamedTuple):
    """What is shown besides an explanation.

    Attributes:
        hold: None: it is not on hold.
        standing: which devices the running server lets in.
        case: what the device counts as under the first rollout that concerns it, in one word and
            in a sentence; None: it does not count.
        state: how it is, in a word and, where its last update says so, in a sentence; None: it is
            not on record, or another report than its own is asked about.
    """

    label: str | None
    hold: Hold | None
    standing: Standing
    case: tuple[str, str] | None
    state: tuple[str, str] | None


class WhyFacts(NamedTuple):
    """What a device gets and why. `device`: None: it is not on record."""

    explanation: Explanation
    device: Device | None
    besides: WhyBesides

    @property
    def sentence(self) -> str:
        """What it is told, and why, in one sentence; commands in backticks."""
        decision = self.explanation.decision
        told = "nothing" if decision is None else decision.version
        return f"it is told {told}: {_reason(self.explanation, self.besides)}"


def explain_why(
    data_dir: Path,
    key: str,
    device: Device | None,
    version: str,
    now_ms: int,
    is_brief: bool = False,
) -> WhyFacts:
    """Return what a device gets and why, if it reports a version.

    Args:
        data_dir: of its product.
        key: of the device (`model.identity`).
        device: what is on record of it.
        is_brief: leave out how it is, and what it counts as under a rollout (`device_rollouts`):
            both may read all of the journal.

    Raises:
        BadPolicy, OSError: a file cannot be used or read.
    """
    updater = None if device is None else device.updater
    logs = log_dir(data_dir)
    server = read_server_state(logs)
    found = explain_device(data_dir, Report(key, version, updater), device, now_ms, server)
    case = None
    if found.turns and device is not None and not is_brief:
        policy = PolicyFiles(data_dir, server.keeps_ungrouped, server.unserved).current()
        case = outcome_of(data_dir, key, found.turns[0].group, policy, now_ms)
    state = None
    if not is_brief and device is not None and version == device.firmware_version:
        state = _state(data_dir, key, device, server, now_ms)
    besides = WhyBesides(
        read_labels(data_dir).get(name_of(key)),
        current_hold(data_dir),
        read_standing(logs) if server.runs else Standing(),
        case,
        state,
    )
    return WhyFacts(found, device, besides)


def _state(
    data_dir: Path, key: str, device: Device, server: ServerState, now_ms: int
) -> tuple[str, str]:
    fleet, judged = gather_fleet(data_dir, now_ms, server), judged_by_rollouts(data_dir, now_ms)
    condition = FleetConditions(data_dir, fleet, judged).of(key, device).condition
    return condition.value, evidence_in_words(condition, device)


def why_lines(facts: WhyFacts, now_ms: int) -> Iterator[tuple[str, str]]:
    """Yield all that is to be said of it, each line with its name; commands in backticks."""
    found, device, besides = facts
    yield "device", f"{name_of(found.report.key)}{f' ({besides.label})' if besides.label else ''}"
    if product := product_of(found.report.key):
        yield "product", product
    seen = "it is not on record"
    if device is not None:
        seen = f"last seen {ago_ms(device.last_seen_ms, now_ms)}, {device.address}"
    if device is not None and device.updater is not None:
        yield "family", device.updater.family
    yield "reports", f"{found.report.firmware_version} ({seen})"
    if besides.state is not None:
        yield "state", ": ".join(filter(None, besides.state))
    yield "groups", ", ".join(found.groups) or "-"
    yield "pin", "-" if found.pin is None else _pin_text(found.pin, now_ms)
    yield "fleet target", found.fleet_target or "-"
    for turn in found.turns:
        yield "rollout", _turn_text(turn)
        if turn is found.turns[0] and besides.case is not None:
            name, words = besides.case
            yield "counts as", f"{name.replace('_', ' ')}: {words}"
    yield from _decision_lines(found, besides)


def pin_text(why: WhyFacts, now_ms: int) -> str:
    """Return to what a device or its group is pinned, and until when; "": it is not."""
    pin = why.explanation.pin
    return "" if pin is None else _pin_text(pin, now_ms)


def _decision_lines(found: Explanation, besides: WhyBesides) -> Iterator[tuple[str, str]]:
    decision, reported = found.decision, found.report.firmware_version
    yield "is told", "nothing: it is answered 503" if decision is None else decision.version
    cause = NO_TARGET if decision is None else decision.cause
    yield "because", _reason(found, besides)
    if cause.reason is Reason.SAMPLE and decision is not None:
        yield "but", f"a client on the server's machine is told {decision.release}"
    if cause.reason in (Reason.REPEATED, Reason.STUCK, Reason.UPDATE_FAILED):
        yield "to end that", f"`retry {name_of(found.report.key)}` lets it try at once"
        if not found.reports_release and cause.reason is not Reason.UPDATE_FAILED:
            yield "perhaps", _mislabelled_text(cause.version, reported)
    is_offer = decision is not None and decision.release and decision.version != reported
    if is_offer or found.for_image.reason in _PUT_OFF:
        yield from _standing_lines(besides.standing)
    if found.image is not None:
        yield "image", f"{found.image.name}, {found.image.size} bytes"
    elif found.image_problem:
        yield "image", f"none: /firmware.bin is answered 404: {found.image_problem}"
    else:
        yield "image", f"none now: {_without_image(found)}"
    if found.target_problem and found.target_problem != cause.text:
        is_known = found.target_problem in found.server.unserved.values()
        stays = "" if is_known else "; a running server stays on its last good target"
        yield "but", f"{found.target_problem}{stays}"
    if not found.server.runs:
        yield "server", "not running: this is what the files in the data directory say"
    elif cause.reason is Reason.UNUSABLE_FILE and found.server.is_policy_usable:
        yield "but", "the running server still goes by what that file held before"


def _reason(found: Explanation, besides: WhyBesides) -> str:
    cause = NO_TARGET if found.decision is None else found.decision.cause
    held = besides.hold if cause.reason is Reason.ON_HOLD else None
    if held is None:
        return in_words(cause)
    return f"{held.what} is on hold{f': {held.reason}' if held.reason else ''}"


def _without_image(found: Explanation) -> str:
    """Return how the device learns that there is no image for it now."""
    family = family_of(found.report.updater)
    if family == "hawkbit":
        return "it is shown no update"
    status = 429 if found.for_image.reason in _PUT_OFF else 503
    return f"/firmware.bin is answered {NO_UPDATE_STATUS.get(family, status)}"


def _mislabelled_text(version: str, reported: str) -> str:
    """Return the usual cause if a device fetches a release again and again.

    Without the text that it reports: there is a command in this line.
    """
    if reported == UNKNOWN_VERSION:
        return (
            f"it runs {version} by now, but nothing shows that, since it says no version: "
            "put that into its URL, see docs/devices"
        )
    return (
        f"it runs {version} by now: what it reports is not a release here, and a build that does "
        "not set its version reports something else. Build it again with its version, or "
        f"`release publish FILE --version {version} --reports-as TEXT` says what it reports"
    )


def _standing_lines(standing: Standing) -> Iterator[tuple[str, str]]:
    """Yield why the running server may put a device off that is to get a release."""
    if standing.window:
        closed = "closed now: the device is told its own version until it opens"
        yield "window", f"{standing.window}, {'open now' if standing.is_open else closed}"
    if standing.max_downloads is not None:
        limit = standing.max_downloads
        most = f"{count_of(limit, 'download')} at once"
        yield "slots", f"{most}; while all slots are taken the device is told its own version"


def _pin_text(pin: Pin, now_ms: int) -> str:
    if pin.until_ms is None:
        return pin.version
    ended = ", which is past" if pin.until_ms <= now_ms else ""
    return f"{pin.version} until {time_text(pin.until_ms)}{ended}"


def _turn_text(turn: Turn) -> str:
    name = turn.name.removeprefix("rollout of ")
    # Rounded figures could mislead at the limit, so the comparison is put in words.
    is_in = turn.first_group is not None or turn.device_percent < turn.percent
    place = f" at {turn.percent:g} %: its turn {'has come' if is_in else 'comes'} at "
    place += f"{turn.device_percent:.2f} %"
    if turn.first_group is not None:
        place = f": it is in the first wave, that of the group {turn.first_group}"
    if is_in and turn.state == RolloutState.PAUSED:
        place += "; the rollout is paused and offers nothing new"
    return f"{name}, {turn.state}{place}"


def why_fields(facts: WhyFacts) -> dict[str, object]:
    """Return all of it for programs."""
    found, device, besides = facts
    decision, pin = found.decision, found.pin
    cause = NO_TARGET if decision is None else decision.cause
    until_ms = None if pin is None else pin.until_ms
    return {
        **({"product": product} if (product := product_of(found.report.key)) else {}),
        "mac": name_of(found.report.key),
        "label": besides.label,
        "family": None if device is None else family_of(device.updater),
        "firmware_version": found.report.firmware_version,
        "last_seen_time": None if device is None else format_time(device.last_seen_ms),
        "address": None if device is None else device.address,
        "state": None if besides.state is None else besides.state[0],
        "groups": list(found.groups),
        "pin": None if pin is None else pin.version,
        "pin_until": None if until_ms is None else format_time(until_ms),
        "fleet_target": found.fleet_target,
        "problem": found.target_problem or None,
        "rollouts": [turn._asdict() for turn in found.turns],
        "case": None if besides.case is None else besides.case[0],
        "target_version": None if decision is None else decision.version,
        "release": None if decision is None else decision.release,
        "reason": in_words(cause),
        "rule": cause.reason.name.lower(),
        "server_runs": found.server.runs,
        "image_problem": found.image_problem or None,
        "image": None if found.image is None else found.image.name,
        "image_size": None if found.image is None else found.image.size,
    }
