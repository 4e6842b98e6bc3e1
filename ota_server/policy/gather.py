"""The situation of a device, read from files by a process that is not the server. I/O."""

import os
from pathlib import Path

from ota_server.model.device import Device, Report
from ota_server.model.version import (
    Target,
    image_name,
    may_be_sample,
    meaning,
)
from ota_server.policy.decision import choose
from ota_server.policy.explain import Explanation, explain
from ota_server.policy.files import PolicyFiles
from ota_server.policy.loop_breaker import why_wait
from ota_server.policy.situation import ImageOnDisk, ServerState, Situation
from ota_server.policy.targets import find_image, read_version_file
from ota_server.system.files import Found, open_found, sha256_of

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
    target, fleet_target, problem = _read_target(data_dir)
    if problem and server.last_good is not None:
        target = server.last_good
    situation = Situation(
        policy=PolicyFiles(data_dir).current(),
        target=target,
        now_ms=now_ms,
        is_local=_is_local(device),
        attended=server.attended,
        is_journal_failing=server.is_journal_failing,
        is_turned_away=server.is_table_full and device is None,
        download=None if device is None else device.download,
        put_off=server.put_off(report.mac),
    )
    release = choose(report, situation).release
    image = None if release is None else _image(data_dir, release, report.mac, situation)
    situation = situation._replace(image=image)
    return explain(report, situation, image, fleet_target, problem, server)


def _is_local(device: Device | None) -> bool:
    return device is not None and (device.address == "::1" or device.address.startswith("127."))


def _read_target(data_dir: Path) -> tuple[Target | None, str | None, str]:
    """Return the target, what version.txt says, and what is wrong with them."""
    try:
        version, end, problem, _ = read_version_file(data_dir)
    except OSError as trouble:
        return None, None, f"version.txt cannot be read: {trouble.strerror}"
    if version is None:
        return None, None, f"version.txt {problem}"
    image = find_image(data_dir / "firmware", version)
    if image is None:
        return Target(version, end, None, 0), version, f"there is no image of {version}"
    name, found = image
    if problem := _problem_with(found):
        return Target(version, end, None, 0), version, problem
    return Target(version, end, name, found.signature.size), version, ""


def _problem_with(image: Found) -> str:
    try:
        os.close(open_found(image))
    except OSError as problem:
        return f"{Path(image.path).name} cannot be read: {problem.strerror}"
    return ""


def _image(data_dir: Path, release: str, mac: str, situation: Situation) -> ImageOnDisk:
    """Return the image of a release, hashed only if the decision depends on that."""
    image = find_image(data_dir / "firmware", release)
    if image is None:
        return ImageOnDisk("", 0, problem=f"{image_name(release)} is missing or empty")
    name, found = image
    size = found.signature.size
    if problem := _problem_with(found):
        return ImageOnDisk(name, size, problem=problem)
    policy, download = situation.policy, situation.download
    is_published = meaning(release) in policy.manifests
    is_waiting = why_wait(mac, download, release, policy, situation.now_ms) is not None
    if not is_published and not is_waiting and not may_be_sample(size):
        return ImageOnDisk(name, size)
    try:
        return ImageOnDisk(name, size, sha256_of(found))
    except OSError as trouble:
        return ImageOnDisk(name, size, problem=f"{name} cannot be read: {trouble.strerror}")
