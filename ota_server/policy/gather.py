"""The situation of a device, read from files by a process that is not the server. I/O."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ota_server.model.address import is_loopback
from ota_server.model.device import Device, Report
from ota_server.model.image_header import HEAD_BYTES, read_header
from ota_server.model.version import (
    Target,
    image_name,
    may_be_sample,
    meaning,
)
from ota_server.policy.decision import choose, why_not_served
from ota_server.policy.explain import Explanation, explain
from ota_server.policy.files import PolicyFiles
from ota_server.policy.loop_breaker import why_wait, why_wait_after
from ota_server.policy.policy import Policy
from ota_server.policy.reason import IS_ALTERED, Reason
from ota_server.policy.situation import ImageOnDisk, ServerState, Situation
from ota_server.policy.targets import find_image, read_version_file
from ota_server.policy.wanted import wanted_releases
from ota_server.system.data_dir import access_problem
from ota_server.system.files import Found, open_found, sha256_of, unreadable_text
from ota_server.system.own_addresses import is_own_address

NO_SERVER = ServerState()


def explain_device(
    data_dir: Path,
    report: Report,
    device: Device | None,
    now_ms: int,
    server: ServerState = NO_SERVER,
) -> Explanation:
    """Return what a device that sends this report gets, and why.

    Args:
        device: what is on record of it.
        server: what the running server says of itself.
    """
    fleet = gather_fleet(data_dir, now_ms, server)
    situation = fleet.situation(report.key, device)
    release = choose(report, situation).release
    image = None if release is None else _image(data_dir, release, report.key, situation)
    situation = situation._replace(image=image)
    target = fleet.version_in_file if fleet.target is None else fleet.target.version
    return explain(report, situation, image, target, fleet.target_problem, server)


class FleetSituation(NamedTuple):
    """What decisions on all devices have in common.

    Attributes:
        target: that is in force.
        version_in_file: what version.txt says; None: nothing that can be used.
        target_problem: what is wrong with version.txt or the image of its release; "": nothing.
        may_offer_sample: it matters which devices ask from this machine.
    """

    policy: Policy
    target: Target | None
    version_in_file: str | None
    target_problem: str
    server: ServerState
    now_ms: int
    may_offer_sample: bool = False

    def situation(self, mac: str, device: Device | None) -> Situation:
        """Return the situation of a device, without the image."""
        server = self.server
        return Situation(
            self.policy,
            self.target,
            self.now_ms,
            is_local=device is not None and self.is_local(device.address),
            attended=server.attended,
            is_journal_failing=server.is_journal_failing,
            is_turned_away=server.is_table_full and device is None,
            download=None if device is None or self.server.is_development else device.download,
            put_off=server.put_off(mac),
            action=None if device is None else device.action,
        )

    def is_local(self, address: str) -> bool:
        """Return whether an address is of this machine, where that matters."""
        return is_loopback(address) or (self.may_offer_sample and is_own_address(address))


def gather_fleet(
    data_dir: Path,
    now_ms: int,
    server: ServerState = NO_SERVER,
    policy: Policy | None = None,
) -> FleetSituation:
    """Return what decisions on all devices depend on now, as far as files say it.

    Args:
        server: what the running server says of itself.
        policy: what the files of the policy hold, if that is known; None: they are read.
    """
    target, version, problem = _read_target(data_dir)
    if policy is None:
        policy = PolicyFiles(data_dir, server.keeps_ungrouped, server.unserved).current()
    if target is not None and not problem:
        problem = server.unserved.get(meaning(target.version), "")
        if not server.runs:
            problem = _unserved(data_dir, target.version, policy)
    if problem and server.last_good is not None:
        target = server.last_good
    wanted = wanted_releases(policy, None if target is None else target.version, now_ms)
    may_offer_sample = any(may_be_sample(_size(data_dir, each)) for each, _ in wanted.values())
    return FleetSituation(policy, target, version, problem, server, now_ms, may_offer_sample)


def _unserved(data_dir: Path, version: str, policy: Policy) -> str:
    """Return why a server could not serve the target, in its words; "": it could."""
    image = image_on_disk(data_dir / "firmware", version, meaning(version) in policy.manifests)
    cause = why_not_served(version, image, policy, is_local=True)
    if cause is not None and cause.reason is Reason.ALTERED:
        return f"{image.name} {IS_ALTERED}"
    return access_problem(data_dir, data_dir / "firmware" / image.name)


def _size(data_dir: Path, version: str) -> int:
    with suppress(OSError):
        if (image := find_image(data_dir / "firmware", version)) is not None:
            return image[1].stamp.size
    return 0


def _read_target(data_dir: Path) -> tuple[Target | None, str | None, str]:
    """Return the target, what version.txt says, and what is wrong with them."""
    try:
        version, end, problem, _ = read_version_file(data_dir)
    except OSError as trouble:
        return None, None, f"version.txt cannot be read: {trouble.strerror}"
    if version is None:
        return None, None, f"version.txt {problem}"
    try:
        image = find_image(data_dir / "firmware", version)
    except OSError as trouble:
        return None, version, f"firmware/ cannot be read: {trouble.strerror}"
    if image is None:
        problem = (
            f"version.txt names {version}, and there is no image of {version}: "
            f"{image_name(version)} is missing or empty"
        )
        return Target(version, end, None, 0), version, problem
    name, found = image
    if problem := _problem_with(found):
        return Target(version, end, None, 0), version, problem
    return Target(version, end, name, found.stamp.size), version, ""


def _problem_with(image: Found) -> str:
    try:
        os.close(open_found(image))
    except OSError as problem:
        return f"{Path(image.path).name} {unreadable_text(problem)}"
    return ""


def _image(data_dir: Path, release: str, mac: str, situation: Situation) -> ImageOnDisk:
    """Return the image of a release, hashed only if the decision depends on that."""
    policy, download = situation.policy, situation.download
    is_published = meaning(release) in policy.manifests
    about = release, policy, situation.now_ms
    is_waiting = why_wait(mac, download, *about) or why_wait_after(mac, situation.action, *about)
    return image_on_disk(data_dir / "firmware", release, is_published or bool(is_waiting))


def image_on_disk(firmware_dir: Path, release: str, is_hashed: bool = False) -> ImageOnDisk:
    """Return what is known of the image of a release, hashed where that is asked for.

    What may be a sample is always hashed.
    """
    try:
        image = find_image(firmware_dir, release)
    except OSError as trouble:
        text = f"{image_name(release)} cannot be read: {trouble.strerror}"
        return ImageOnDisk("", 0, problem=text)
    if image is None:
        return ImageOnDisk("", 0, problem=f"{image_name(release)} is missing or empty")
    name, found = image
    size = found.stamp.size
    try:
        with open(open_found(found), "rb") as file:
            header = read_header(file.read(HEAD_BYTES))
        sha256 = sha256_of(found) if is_hashed or may_be_sample(size) else None
    except OSError as trouble:
        return ImageOnDisk(name, size, problem=f"{name} {unreadable_text(trouble)}")
    return ImageOnDisk(name, size, sha256, chip=None if header is None else header.chip)
