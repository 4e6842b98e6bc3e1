"""What an operator does to a release, with its checks, and what came of it. I/O.

Each function raises Refused, Busy, BadPolicy or OSError where nothing was changed.
"""

from pathlib import Path
from typing import NamedTuple

from ota_server.operations.after_change import WRONG_FOLDER, hold_warning, no_server_warning
from ota_server.operations.release_facts import contents
from ota_server.policy.files import PolicyFiles
from ota_server.releases import activate, withdraw
from ota_server.releases.activate import Activated
from ota_server.releases.image_doubts import same_bytes_text
from ota_server.releases.inventory import (
    ReportProgress,
    look_at,
    look_at_releases,
    same_bytes,
    uses_of,
)
from ota_server.releases.publish import publish
from ota_server.releases.publish_request import PublishRequest
from ota_server.system import clock


class ReleaseChanged(NamedTuple):
    """What was done to a release.

    Attributes:
        lines: what was done, in sentences; commands in backticks.
        warnings: why devices may not notice it now, and what else is to be known.
    """

    version: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def no_progress(_done: int, _size: int) -> None:
    """Take how far it is where nobody watches: over HTTP."""


def publish_image(
    data_dir: Path, request: PublishRequest, progress: ReportProgress
) -> ReleaseChanged:
    """Copy an image in and put it on record (`inspect_image` says before what speaks against it).

    Args:
        progress: is told how many bytes of how many are copied.
    """
    published = publish(data_dir, request, clock.now_ms(), progress)
    manifest, version = published.manifest, request.version
    warnings = [*published.warnings]
    if others := same_bytes(data_dir, manifest):
        policy = PolicyFiles(data_dir).current()
        warnings.append(same_bytes_text(version, others, policy))
    lines = [
        f"{version}: {manifest.size} bytes, SHA-256 {manifest.sha256}",
        f"image: {manifest.image or 'of an unknown format'}",
        *(f"{name}: {text}" for name, text in contents(manifest)),
    ]
    if published.checked_by:
        lines.append(f"signature: valid, checked by {published.checked_by}")
    elif request.signature is not None:
        lines.append("signature: stored, not checked (give --verify-key)")
    lines.append(_outcome_text(published.outcome, version, ", ".join(published.updated)))
    return ReleaseChanged(version, tuple(lines), tuple(warnings))


def _outcome_text(outcome: str, version: str, updated: str) -> str:
    return {
        "published": f"published; `release activate {version}` gives it to the fleet",
        "recorded": "the image was already there, and is on record now",
        "restored": "the image had been altered, and is restored as it was published"
        + (f", with another {updated}" if updated else ""),
        "updated": f"the image is already there; updated: {updated}",
        "there": "it is already there; nothing was changed",
    }[outcome]


def activate_release(
    data_dir: Path, version: str, progress: ReportProgress, is_forced: bool = False
) -> ReleaseChanged:
    """Make a release the target of the whole fleet, at once.

    Args:
        progress: is told how many bytes of the image are hashed.
        is_forced: as `releases.activate.activate`.
    """
    look_at_releases(data_dir)
    return _target_changed(data_dir, activate.activate(data_dir, version, progress, is_forced))


def roll_back(data_dir: Path, progress: ReportProgress, is_forced: bool = False) -> ReleaseChanged:
    """Make the previous target the target again.

    Args:
        progress, is_forced: as `activate_release`.
    """
    look_at_releases(data_dir)
    return _target_changed(data_dir, activate.rollback(data_dir, progress, is_forced))


def _target_changed(data_dir: Path, done: Activated) -> ReleaseChanged:
    if done.previous == done.version:
        lines = [f"{done.version} is already the target"]
    else:
        lines = [f"the target is {done.version}; it was {done.previous or 'none'}"]
    for group, target in sorted(done.groups.items()):
        lines.append(f"group {group} had {target} and gets {done.version} too")
    for group, target in sorted(done.restored.items()):
        lines.append(f"group {group} has {target} again")
    no_server = no_server_warning(data_dir, WRONG_FOLDER)
    warnings = (done.warning, hold_warning(data_dir), no_server)
    return ReleaseChanged(done.version, tuple(lines), tuple(filter(None, warnings)))


def withdraw_release(data_dir: Path, version: str, reason: str) -> ReleaseChanged:
    """Stop offering a release; devices that run it stay on it."""
    look_at_releases(data_dir)
    version = withdraw.withdraw(data_dir, version, reason, clock.now_ms())
    lines = [f"{version} was withdrawn: no device is offered it any longer"]
    found = list(uses_of(version, look_at(data_dir), clock.now_ms()))
    if found:
        names = ", ".join(each.text for each in found)
        remedies = dict.fromkeys(each.remedy for each in found if each.remedy)
        lines.append("; ".join((f"it is still {names}", *remedies)))
    return ReleaseChanged(version, tuple(lines))


def reinstate_release(data_dir: Path, version: str) -> ReleaseChanged:
    """Offer a release again that was withdrawn."""
    look_at_releases(data_dir)
    version = withdraw.reinstate(data_dir, version)
    return ReleaseChanged(version, (f"{version} is no longer withdrawn",))


def remove_release(data_dir: Path, version: str, progress: ReportProgress) -> ReleaseChanged:
    """Delete a release that is not in use.

    Args:
        progress: is told how many bytes of the image are hashed.
    """
    look_at_releases(data_dir)
    version = withdraw.remove(data_dir, version, clock.now_ms(), progress)
    return ReleaseChanged(version, (f"{version} was removed",))
