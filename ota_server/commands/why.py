"""The command `why`: which version a device gets, and the reason, as the server would decide."""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.commands.common import Commands, add_command, mac_argument, reported_argument
from ota_server.commands.terminal import printable
from ota_server.device_port.admission_status import read_standing
from ota_server.device_port.window import Standing
from ota_server.journal.replay import newest
from ota_server.model.device import Device, Download, Report
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago, format_time
from ota_server.model.version import (
    NoVersion,
    Target,
    image_name,
    is_sample,
    may_be_sample,
    meaning,
    parse_version_file,
    spellings,
)
from ota_server.policy import edits
from ota_server.policy.decision import (
    NO_TARGET,
    ON_HOLD,
    Decision,
    cohort_percent,
    decide,
    is_left_alone,
)
from ota_server.policy.files import PolicyFiles
from ota_server.policy.labels import read_labels
from ota_server.policy.loop_breaker import why_wait
from ota_server.policy.policy import Pin, Policy
from ota_server.policy.text import time_text
from ota_server.rollouts.device_outcome import case_of
from ota_server.system.data_dir import log_dir
from ota_server.system.files import Found, find, open_found
from ota_server.system.locks import is_served

_EXAMPLES = """\
  %(prog)s 00:11:22:33:44:55
  %(prog)s 00:11:22:33:44:55 --version v1.0.0   if it reported that, on record or not
  %(prog)s 00:11:22:33:44:55 --json             for programs

It reads the files in the data directory, so the server may run or not.
"""
_SAMPLE = "the shipped sample is offered to clients on the server's machine only"


class Turn(NamedTuple):
    """A rollout that concerns a device, and at which percentage its turn comes."""

    group: str
    version: str
    state: str
    percent: float
    device_percent: float


class Explanation(NamedTuple):
    """What a device gets, and why.

    Attributes:
        decision: None where it is answered 503, for there is no target.
        pin: in force or not.
        fleet_target: what version.txt says; None where that is nothing, for `target_problem`.
        image: that it may have now.
        image_problem: why /firmware.bin is answered 404, where it is.
    """

    report: Report
    decision: Decision | None
    groups: tuple[str, ...]
    pin: Pin | None
    fleet_target: str | None
    target_problem: str
    turns: tuple[Turn, ...]
    image: Found | None
    image_problem: str = ""


class Besides(NamedTuple):
    """What `why` says besides an explanation.

    Attributes:
        label: what the device is called; None: nothing.
        hold: why everything is on hold; "": it is not, or nobody said why.
        standing: whom the server that runs lets in.
        case: what the device counts as under the first rollout that concerns it, in one word and
            in several; None: as nothing.
    """

    label: str | None
    hold: str
    standing: Standing
    case: tuple[str, str] | None


def explain(
    data_dir: Path, report: Report, is_local: bool, now_ms: int, download: Download | None = None
) -> Explanation:
    """Return what a server says that reads the files as they are now.

    Args:
        is_local: the device is on the server's machine.
        download: what the device began last.
    """
    policy = PolicyFiles(data_dir).current()
    target, problem = _read_target(data_dir)
    found: Decision | None = decide(report, target, policy, now_ms)
    assert found is not None
    image, image_problem = _find_offered(data_dir, found.release, policy)
    if target is None and (policy.is_plain or found.reason == NO_TARGET):
        found, image, image_problem = None, None, ""
    elif not is_local and image is not None and _is_sample(image):
        found = found._replace(version=report.firmware_version, reason=_SAMPLE)
    if found is not None and found.release is not None:
        waits = why_wait(report.mac, download, found.release, policy, now_ms)
        if waits and image is not None and meaning(found.release) not in policy.manifests:
            sha256 = _sha256(image)
            waits = why_wait(report.mac, download, found.release, policy, now_ms, sha256)
        if waits and found.version != report.firmware_version:
            found, image = Decision(report.firmware_version, waits, None), None
    groups = policy.groups.get(report.mac, ())
    return Explanation(
        report,
        found,
        groups,
        policy.pins.get(report.mac),
        None if target is None else target.version,
        problem,
        tuple(_turns(report.mac, groups, policy)),
        image,
        image_problem,
    )


def add_commands(commands: Commands) -> None:
    """Add it to those of the command line."""
    parser = add_command(
        commands,
        "why",
        "say which version a device gets, and why",
        "Say which version a device gets, and the reason in words.",
        _EXAMPLES,
        _show,
    )
    parser.add_argument("--json", action="store_true", help="a JSON object")
    parser.add_argument(
        "--version",
        type=reported_argument,
        metavar="TEXT",
        dest="reported",
        help="what the device is taken to report (default: what it reported last)",
    )
    parser.add_argument("mac", metavar="MAC", type=mac_argument, help="the device")


def _show(arguments: argparse.Namespace) -> int:
    data_dir, mac = arguments.data_dir, arguments.mac
    if not (data_dir / "version").is_dir():
        raise Refused(f"no version/ in {data_dir}; is --data-dir right?")
    device = newest(log_dir(data_dir), mac)
    version = arguments.reported or (None if device is None else device.firmware_version)
    if version is None:
        raise Refused(
            f"{mac} is not on record; --version TEXT says what it would get if it reported that, "
            "`devices --rejected` who was answered 401"
        )
    now_ms = time.time_ns() // 1_000_000
    found = explain(
        data_dir,
        Report(mac, version),
        _is_local(device),
        now_ms,
        None if device is None else device.download,
    )
    logs = log_dir(data_dir)
    standing = read_standing(logs) if is_served(logs) else Standing()
    case = None
    if found.turns and device is not None:
        policy = PolicyFiles(data_dir).current()
        case = case_of(data_dir, mac, found.turns[0].group, policy, now_ms)
    label = read_labels(data_dir).get(mac)
    besides = Besides(label, edits.reason_of_hold(data_dir), standing, case)
    if arguments.json:
        print(json.dumps(_fields(found, device, besides)))
        return 0
    for name, text in _lines(found, device, besides, now_ms):
        print(f"{name:<13}{printable(text)}")
    return 0


def _is_local(device: Device | None) -> bool:
    return device is not None and (device.address == "::1" or device.address.startswith("127."))


def _read_target(data_dir: Path) -> tuple[Target | None, str]:
    """Return the target, and what is wrong with version.txt."""
    folder = data_dir / "version"
    try:
        found = find(folder, "version.txt")
        if found is None:
            return None, "version.txt is missing or no regular file in its folder"
        with open(open_found(found), "rb") as file:
            version, end = parse_version_file(file.read(1024))
    except OSError as problem:
        return None, f"version.txt cannot be read: {problem.strerror}"
    except NoVersion as problem:
        return None, f"version.txt {problem}"
    image = _find_image(data_dir, version)
    if image is None:
        return Target(version, end, None, 0), f"there is no image of {version}"
    return Target(version, end, Path(image.path).name, image.signature.size), ""


def _find_image(data_dir: Path, version: str) -> Found | None:
    for spelling in spellings(version):
        found = find(data_dir / "firmware", image_name(spelling))
        if found is not None:
            return found if found.signature.size else None
    return None


def _find_offered(data_dir: Path, release: str | None, policy: Policy) -> tuple[Found | None, str]:
    """Return the image that a device may have, or why there is none."""
    if release is None:
        return None, ""
    if policy.is_withdrawn(release):
        return None, f"{release} was withdrawn"
    if problem := policy.unusable.get(meaning(release)):
        return None, f"the manifest of {release} {problem}"
    image = _find_image(data_dir, release)
    if image is None:
        return None, f"{image_name(release)} is missing or empty"
    manifest = policy.manifests.get(meaning(release))
    if manifest is not None and manifest.size != image.signature.size:
        return None, f"{image_name(release)} is not the image that was published"
    return image, ""


def _is_sample(image: Found) -> bool:
    size = image.signature.size
    return may_be_sample(size) and is_sample(size, _sha256(image))


def _sha256(image: Found) -> str:
    with open(open_found(image), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _turns(mac: str, groups: tuple[str, ...], policy: Policy) -> Iterator[Turn]:
    for group in (*groups, ""):
        found = policy.rollouts.get(group)
        if found is not None and (group or not is_left_alone(groups, policy)):
            is_first = found.first_group is not None and found.first_group in groups
            turn = 0.0 if is_first else cohort_percent(found.version, mac)
            yield Turn(group, found.version, found.state, found.percent, turn)


def _lines(
    found: Explanation, device: Device | None, besides: Besides, now_ms: int
) -> Iterator[tuple[str, str]]:
    yield "device", f"{found.report.mac}{f' ({besides.label})' if besides.label else ''}"
    seen = "it is not on record"
    if device is not None:
        seen = f"last seen {ago(format_time(device.last_seen_ms), now_ms)}, {device.address}"
    yield "reports", f"{found.report.firmware_version} ({seen})"
    yield "groups", ", ".join(found.groups) or "-"
    yield "pin", "-" if found.pin is None else _pin_text(found.pin, now_ms)
    yield "fleet target", found.fleet_target or "-"
    for turn in found.turns:
        yield "rollout", _turn_text(turn)
        if turn is found.turns[0] and besides.case is not None:
            name, words = besides.case
            yield "counts as", f"{name.replace('_', ' ')}: {words}"
    decision = found.decision
    yield "is told", "nothing, it is answered 503" if decision is None else decision.version
    why = NO_TARGET if decision is None else decision.reason
    yield "because", f"{why}: {besides.hold}" if besides.hold and why == ON_HOLD else why
    reported = found.report.firmware_version
    if decision is not None and decision.release and decision.version != reported:
        yield from _standing_lines(besides.standing)
    if found.image is not None:
        yield "image", f"{Path(found.image.path).name}, {found.image.signature.size} bytes"
    elif found.image_problem:
        yield "image", f"none, /firmware.bin is answered 404: {found.image_problem}"
    else:
        yield "image", "none now, /firmware.bin is answered 503"
    if found.target_problem:
        yield "but", f"{found.target_problem}; a running server stays on its last good target"


def _standing_lines(standing: Standing) -> Iterator[tuple[str, str]]:
    """Yield what the server that runs may put off, though it would be told of a release."""
    if standing.window:
        closed = "closed now: it is told its own version until it opens"
        yield "window", f"{standing.window}, {'open now' if standing.is_open else closed}"
    if standing.max_downloads is not None:
        limit = standing.max_downloads
        most = f"{limit} download{'s' * (limit != 1)} at once"
        yield "slots", f"{most}; while all slots are taken it is told its own version"


def _pin_text(pin: Pin, now_ms: int) -> str:
    if pin.until_ms is None:
        return pin.version
    ended = "; that is past" if pin.until_ms <= now_ms else ""
    return f"{pin.version} until {time_text(pin.until_ms)}{ended}"


def _turn_text(turn: Turn) -> str:
    whose = f" to {turn.group}" if turn.group else ""
    # Two digits more than are shown would be needed to be right at the limit: say it in words.
    is_in = turn.device_percent < turn.percent
    place = f"its turn {'has come' if is_in else 'comes'} at {turn.device_percent:.2f} %"
    return f"{turn.version}{whose}, {turn.state} at {turn.percent:g} %: {place}"


def _fields(found: Explanation, device: Device | None, besides: Besides) -> dict[str, object]:
    decision, pin = found.decision, found.pin
    until_ms = None if pin is None else pin.until_ms
    return {
        "mac": found.report.mac,
        "label": besides.label,
        "firmware_version": found.report.firmware_version,
        "last_seen_time": None if device is None else format_time(device.last_seen_ms),
        "address": None if device is None else device.address,
        "groups": list(found.groups),
        "pin": None if pin is None else pin.version,
        "pin_until": None if until_ms is None else format_time(until_ms),
        "fleet_target": found.fleet_target,
        "problem": found.target_problem or None,
        "rollouts": [turn._asdict() for turn in found.turns],
        "case": None if besides.case is None else besides.case[0],
        "target_version": None if decision is None else decision.version,
        "release": None if decision is None else decision.release,
        "reason": NO_TARGET if decision is None else decision.reason,
        "image_problem": found.image_problem or None,
        "image": None if found.image is None else Path(found.image.path).name,
        "image_size": None if found.image is None else found.image.signature.size,
    }
