"""The releases on the disk and what uses them, as commands see them."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ota_server.model.image_header import HEAD_BYTES, ImageHeader, read_header
from ota_server.model.manifest import (
    MAX_MANIFEST_BYTES,
    BadManifest,
    Manifest,
    manifest_name,
    parse_manifest,
    version_of_manifest_name,
)
from ota_server.model.parts import Part, part_name
from ota_server.model.refusal import Refused
from ota_server.model.version import (
    image_name,
    same_version,
    signature_name,
    spellings,
    version_of_image_name,
)
from ota_server.policy import audit
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import Policy
from ota_server.policy.targets import read_version_file
from ota_server.releases.image import Digests, digest
from ota_server.system.data_dir import existing_folder, log_dir
from ota_server.system.files import Found, find, named, open_found, sha256_of
from ota_server.system.new_files import renew_time

ReportProgress = Callable[[int, int], None]


class Release(NamedTuple):
    """A release in `firmware/`.

    Attributes:
        image: None: it is missing, empty or not a regular file.
        manifest: None: it is missing or cannot be used.
        problem: why the manifest cannot be used; "": it can, or it is missing.
        signature: None: it is missing.
        parts: those that are there.
    """

    version: str
    image: Found | None
    manifest: Manifest | None
    problem: str
    signature: Found | None
    parts: Mapping[Part, Found]


class DataDirState(NamedTuple):
    """A data directory as a command finds it.

    Attributes:
        target: what version.txt says; None: it is missing or cannot be used.
        target_problem: what is wrong with version.txt; "": nothing, or it is missing.
        previous: the target before this one, by the audit log.
    """

    data_dir: Path
    policy: Policy
    target: str | None
    target_problem: str
    previous: str | None

    @property
    def firmware_dir(self) -> Path:
        """The folder of images."""
        return self.data_dir / "firmware"


def look_at(data_dir: Path) -> DataDirState:
    """Read what operators have decided.

    Raises:
        Refused: a file of the policy cannot be used.
        OSError: the audit log or version.txt cannot be read.
    """
    policy = PolicyFiles(data_dir).current()
    if policy.problem:
        raise Refused(f"{policy.problem}; fix it, or delete it if nothing in it matters")
    version_file = read_version_file(data_dir)
    problem = version_file.problem if version_file.is_there else ""
    target = version_file.version
    previous = audit.previous_target(audit.entries(log_dir(data_dir)), target)
    return DataDirState(data_dir, policy, target, problem, previous)


def look_at_releases(data_dir: Path) -> DataDirState:
    """Do as `look_at`; refuse a data directory without `firmware/`.

    Raises:
        Refused, OSError: as `look_at`.
    """
    existing_folder(data_dir, "firmware")
    return look_at(data_dir)


def releases(data_dir: Path) -> list[Release]:
    """Return all releases, including those without an image or a manifest."""
    folder = data_dir / "firmware"
    versions = {
        version
        for name in os.listdir(folder)
        if (version := version_of_image_name(name) or version_of_manifest_name(name))
    }
    return [release_at(folder, version) for version in sorted(versions)]


def release_at(folder: Path, version: str) -> Release:
    """Return the files of a version, by its exact name."""
    image = find(folder, image_name(version))
    if image is not None and not image.stamp.size:
        image = None
    manifest, problem = _read_manifest(folder, version)
    signature = find(folder, signature_name(version))
    parts = {part: there for part in Part if (there := find(folder, part_name(part, version)))}
    return Release(version, image, manifest, problem, signature, parts)


def names_beside_image(version: str) -> list[str]:
    """Return the names of the files that a release can have beside its image, its manifest last."""
    parts = [part_name(part, version) for part in Part]
    return [*parts, signature_name(version), manifest_name(version)]


def find_release(folder: Path, version: str) -> Release | None:
    """Return the release of that name, else the one equal in meaning; None: there is none."""
    found = [release_at(folder, spelling) for spelling in spellings(version)]
    for each in found:
        if each.image is not None:
            return each
    return next((each for each in found if each.manifest or each.problem), None)


def get_release(data_dir: Path, version: str) -> Release:
    """Return the release of that name, else the one equal in meaning.

    Raises:
        Refused: there is no such release.
    """
    release = find_release(data_dir / "firmware", version)
    if release is None:
        raise Refused(f"there is no release {version}; `release list` shows what there is")
    return release


def _read_manifest(folder: Path, version: str) -> tuple[Manifest | None, str]:
    name = manifest_name(version)
    try:
        found = find(folder, name)
        if found is None:
            is_there = os.path.lexists(folder / name)
            return None, "is not a regular file in its folder" if is_there else ""
        with open(open_found(found), "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            return None, f"is over {MAX_MANIFEST_BYTES} bytes"
        return parse_manifest(content, version), ""
    except BadManifest as problem:
        return None, str(problem)
    except OSError as problem:
        return None, f"cannot be read: {problem.strerror}"


class Use(NamedTuple):
    """What uses a release, and how to end that; both in words."""

    text: str
    remedy: str


_ANOTHER_TARGET = "`release activate VERSION` sets another target"


def used_by(version: str, state: DataDirState, now_ms: int) -> Iterator[str]:
    """Yield what uses a release, in words: the target, pins, rollouts, stepping stones."""
    return (use.text for use in uses_of(version, state, now_ms))


def uses_of(version: str, state: DataDirState, now_ms: int) -> Iterator[Use]:
    """Yield what uses a release, and what to do if it was withdrawn."""
    policy = state.policy
    if state.target is not None and same_version(state.target, version):
        yield Use("the target", _ANOTHER_TARGET)
    if state.previous is not None and same_version(state.previous, version):
        yield Use("the previous target, to which `release rollback` goes", "")
    for group, target in policy.group_targets.items():
        if same_version(target, version):
            another = f"`rollout start VERSION --group {group}` brings it another"
            yield Use(f"the target of the group {group}", another)
    for kind, pins in (("device", policy.pins), ("group", policy.group_pins)):
        for name, pin in pins.items():
            is_over = pin.until_ms is not None and pin.until_ms <= now_ms
            if same_version(pin.version, version) and not is_over:
                text = f"what the {kind} {name} is pinned to"
                yield Use(text, "`unpin WHO` ends a pin")
    for group, rollout in policy.rollouts.items():
        if same_version(rollout.version, version):
            text = f"what a rollout to {group or 'the fleet'} brings"
            yield Use(text, "the rollout will be halted")
    for manifest in policy.manifests.values():
        is_own = same_version(manifest.version, version)
        if manifest.via is not None and same_version(manifest.via, version) and not is_own:
            again = f"`release publish FILE --version {manifest.version} --via VERSION`"
            remedy = f"publish it again: {again}"
            yield Use(f"the stepping stone to {manifest.version}", remedy)


def header_of(found: Found) -> ImageHeader | None:
    """Return what an image says of itself; None: nothing.

    Raises:
        OSError: it cannot be read.
    """
    with named(Path(found.path)), open(open_found(found), "rb") as file:
        return read_header(file.read(HEAD_BYTES))


def same_bytes(data_dir: Path, manifest: Manifest) -> list[str]:
    """Return the other releases that have the same bytes, as far as they can be read."""
    found = []
    for each in releases(data_dir):
        if each.image is None or each.image.stamp.size != manifest.size:
            continue
        if same_version(each.version, manifest.version):
            continue
        with suppress(OSError):
            sha256 = each.manifest.sha256 if each.manifest else sha256_of(each.image)
            if sha256 == manifest.sha256:
                found.append(each.version)
    return found


def digests_of(found: Found, progress: ReportProgress) -> Digests:
    """Hash a file.

    Args:
        progress: is told how many bytes of how many are hashed.

    Raises:
        OSError: it cannot be read.
    """
    with named(Path(found.path)), open(open_found(found), "rb", buffering=0) as file:
        return digest_of_open(file, found.stamp.size, progress)


def digest_of_open(
    file: BinaryIO,
    size: int,
    progress: ReportProgress,
    write: Callable[[bytes], object] = lambda chunk: None,
) -> Digests:
    """Hash an open file, and pass each piece of it to `write`."""
    done = 0

    def take(chunk: bytes) -> None:
        nonlocal done
        write(chunk)
        done += len(chunk)
        progress(done, size)

    return digest(file.fileno(), take)


def problem_with(release: Release, progress: ReportProgress) -> str:
    """Read a whole release; return what is wrong with it, "": it is as it was published.

    Raises:
        OSError: the image cannot be read.
    """
    if release.image is None:
        return "its image is missing, empty or not a regular file"
    if release.problem:
        return f"its manifest {release.problem}"
    manifest = release.manifest
    if manifest is None:
        return "it has no manifest, so it cannot be checked"
    if release.image.stamp.size != manifest.size:
        size = release.image.stamp.size
        return f"its image was altered: it has {size} bytes, not {manifest.size}"
    sha256 = digests_of(release.image, progress).sha256
    if sha256 != manifest.sha256:
        return f"its image was altered: its SHA-256 is {sha256}, not {manifest.sha256}"
    return _signature_problem(release, manifest) or _part_problem(release, manifest)


def _part_problem(release: Release, manifest: Manifest) -> str:
    """Return what is wrong with the parts beside an image; "": they are as they were published."""
    for part in Part:
        record, found = manifest.part(part), release.parts.get(part)
        if record is None:
            continue
        name = part_name(part, release.version)
        if found is None:
            return f"{name} is missing"
        if (sha256 := sha256_of(found)) != record.sha256:
            return f"{name} was altered: its SHA-256 is {sha256}, not {record.sha256}"
    return ""


def _signature_problem(release: Release, manifest: Manifest) -> str:
    """Return what is wrong with the signature beside an image; "": it is as it was published."""
    if manifest.signature is None:
        return ""
    remedy = "publish the same build with its --signature"
    if release.signature is None:
        return f"its signature is missing: {manifest.signature} ({remedy})"
    sha256 = sha256_of(release.signature)
    if manifest.signature_sha256 not in (None, sha256):
        return (
            f"its signature was altered: its SHA-256 is {sha256}, not {manifest.signature_sha256} "
            f"({remedy})"
        )
    return ""


def announce(data_dir: Path) -> None:
    """Tell a running server of a change in `firmware/`: it watches the time of `version/`."""
    renew_time(data_dir / "version")
