"""The releases that there are, and what is known of each, for commands, pages and the API. I/O."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.admission_status import read_server_state
from ota_server.model.image_header import describe
from ota_server.model.manifest import Manifest, version_of_manifest_name
from ota_server.model.parts import Part, version_of_part_name
from ota_server.model.timestamp import format_time
from ota_server.model.version import image_name, meaning, same_version, version_of_image_name
from ota_server.policy.files import PolicyFiles
from ota_server.policy.gather import gather_fleet
from ota_server.policy.policy import Pin, Policy, StoppedState
from ota_server.policy.targets import read_stopped, stopped_entry
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    get_release,
    header_of,
    look_at_releases,
    releases,
    used_by,
)
from ota_server.system import clock
from ota_server.system.data_dir import access_problem, log_dir


class ReleaseFacts(NamedTuple):
    """What is known of a release.

    Attributes:
        size: of its image, or that on record; 0: not known.
        image: what its image says of itself, in words; None: nothing.
        states: such as target, previous, rollout, withdrawn, altered, pinned.
        named_by: what uses it, in words: it cannot be removed while something does.
        problem: what is wrong with its manifest, or why it cannot be served; "": nothing.
        withdrawn_reason, withdrawn_time: None: not on record, or it was not withdrawn.
    """

    release: Release
    size: int
    image: str | None
    states: tuple[str, ...]
    named_by: tuple[str, ...]
    problem: str
    withdrawn_reason: str | None = None
    withdrawn_time: str | None = None

    @property
    def version(self) -> str:
        """Its version."""
        return self.release.version

    @property
    def signature_name(self) -> str | None:
        """The name of the file of its signature; None: it has none."""
        found = self.release.signature
        return None if found is None else Path(found.path).name

    @property
    def can(self) -> tuple[str, ...]:
        """What an operator may do with it: activate, withdraw, reinstate, remove."""
        is_withdrawn = StoppedState.WITHDRAWN in self.states
        may = {
            "activate": not is_withdrawn and self.release.image and "target" not in self.states,
            "withdraw": not is_withdrawn,
            "reinstate": is_withdrawn,
            "remove": not self.named_by,
        }
        return tuple(name for name, is_so in may.items() if is_so)


class ReleaseList(NamedTuple):
    """All releases of a data directory.

    Attributes:
        releases: the newest first.
        target: that is in force; None: there is none.
        target_problem: why that is not what version.txt says, or why it cannot be served.
        strays: files in `firmware/` that are not served, by their names.
    """

    releases: tuple[ReleaseFacts, ...]
    target: str | None
    target_problem: str
    strays: tuple[str, ...]


def list_releases(data_dir: Path) -> ReleaseList:
    """Return all releases.

    Raises:
        Refused: it is not a data directory, or a file of the policy cannot be used.
        OSError: a file cannot be read.
    """
    state = look_at_served(data_dir)
    found = sorted(releases(data_dir), key=_order, reverse=True)
    policy = state.policy
    pins, group_pins = (_by_release(each) for each in (policy.pins, policy.group_pins))
    facts = []
    for release in found:
        # There may be a hundred thousand pins: each release looks at its own alone.
        name = meaning(release.version)
        its = policy._replace(pins=pins.get(name, {}), group_pins=group_pins.get(name, {}))
        facts.append(release_facts(release, state._replace(policy=its)))
    return ReleaseList(
        tuple(facts),
        state.target,
        state.target_problem,
        tuple(strays(data_dir / "firmware")),
    )


def releases_to_give(data_dir: Path) -> list[Release]:
    """Return the releases that devices can be given: not those that were withdrawn."""
    if not (data_dir / "firmware").is_dir():
        return []
    policy = PolicyFiles(data_dir).current()
    return [
        each
        for each in releases(data_dir)
        if each.image is not None and not policy.is_withdrawn(each.version)
    ]


def _by_release(pins: Mapping[str, Pin]) -> dict[str, dict[str, Pin]]:
    """Return pins by the meaning of the version of each."""
    found: dict[str, dict[str, Pin]] = {}
    for name, pin in pins.items():
        found.setdefault(meaning(pin.version), {})[name] = pin
    return found


def find_release_facts(data_dir: Path, version: str) -> ReleaseFacts:
    """Return one release.

    Raises:
        Refused: there is none, or as `list_releases`.
        OSError: a file cannot be read.
    """
    state = look_at_served(data_dir)
    return release_facts(get_release(data_dir, version), state)


def release_facts(release: Release, state: DataDirState) -> ReleaseFacts:
    """Return what is known of a release.

    Args:
        state: by `look_at_served`.
    """
    manifest = release.manifest
    reason, time = _withdrawal(release, state)
    return ReleaseFacts(
        release,
        release.image.stamp.size if release.image else manifest.size if manifest else 0,
        _described(release),
        tuple(_states(release, state)),
        tuple(used_by(release.version, state, clock.now_ms())),
        release.problem or state.policy.unserved.get(meaning(release.version), ""),
        reason,
        time,
    )


def look_at_served(data_dir: Path) -> DataDirState:
    """Return the state of a data directory with what the running server knows of it.

    Its `target` is the one in force, and `target_problem` says why that is not what version.txt
    says, or why its image cannot be served.
    """
    state = look_at_releases(data_dir)
    fleet = gather_fleet(data_dir, clock.now_ms(), read_server_state(log_dir(data_dir)))
    is_asked = bool(state.target or state.target_problem)  # a missing version.txt asks for nothing
    return state._replace(
        policy=fleet.policy,
        target=None if fleet.target is None else fleet.target.version,
        target_problem=fleet.target_problem if is_asked else "",
    )


def strays(folder: Path) -> list[str]:
    """Return the names of files in `firmware/` that belong to no release, such as v1.3.0.bin."""
    return sorted(
        each.name
        for each in os.scandir(folder)
        if not each.name.startswith(".")
        and each.is_file()
        and version_of_manifest_name(each.name) is None
        and not _is_part(folder, each.name)
        and not any(version_of_image_name(each.name.removesuffix(end)) for end in ("", ".sig"))
    )


def _is_part(folder: Path, name: str) -> bool:
    """Return whether this is a part of a release that is there."""
    version = version_of_part_name(name)
    return version is not None and os.path.lexists(folder / image_name(version))


def _order(release: Release) -> tuple[str, list[tuple[int, str]]]:
    """Return the sort key of a release: its time, then the numbers in its version."""
    time_text = "" if release.manifest is None else release.manifest.time
    if release.manifest is None and release.image is not None:  # copied in by hand
        time_text = format_time(release.image.stamp.modified_ns // 1_000_000)
    parts = re.findall(r"(\d*)(\D*)", release.version)
    return time_text, [(int(digits or 0), text) for digits, text in parts]


def _states(release: Release, state: DataDirState) -> list[str]:
    """Return the states of a release, as the table shows them."""
    version, policy, manifest = release.version, state.policy, release.manifest
    stopped = policy.stopped.get(meaning(version))
    rollouts = policy.rollouts.values()
    is_target = state.target is not None and same_version(state.target, version)
    is_altered = (
        manifest is not None
        and release.image is not None
        and release.image.stamp.size != manifest.size
    )
    said = {
        "target": is_target,
        "previous": not is_target
        and state.previous is not None
        and same_version(state.previous, version),
        "rollout": any(same_version(rollout.version, version) for rollout in rollouts),
        StoppedState.WITHDRAWN: stopped is not None and stopped.is_withdrawn,
        StoppedState.ABORTED: stopped is not None and not stopped.is_withdrawn,
        "no image": release.image is None,
        "bad manifest": bool(release.problem),
        "altered": is_altered,
        "unreadable": release.image is not None
        and bool(access_problem(state.data_dir, release.image.path)),
        "not served": meaning(version) in policy.unserved,
        "target of group": any(
            same_version(each, version) for each in policy.group_targets.values()
        ),
        "pinned": _is_pinned(version, policy),
    }
    return [state for state, is_so in said.items() if is_so]


def _is_pinned(version: str, policy: Policy) -> bool:
    now_ms = clock.now_ms()
    return any(
        same_version(pin.version, version) and (pin.until_ms is None or pin.until_ms > now_ms)
        for pin in (*policy.pins.values(), *policy.group_pins.values())
    )


def _described(release: Release) -> str | None:
    if release.manifest is not None:
        described = release.manifest.image
    else:
        header = header_of(release.image) if release.image is not None else None
        described = None if header is None else describe(header)
    if Part.FILESYSTEM in release.parts:
        return f"{described or 'image'} + file system"
    return described


def contents(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what a release holds besides its image, or in it, in words."""
    for part in Part:
        record = manifest.part(part)
        if record is not None:
            yield part.value, f"{record.size} bytes, SHA-256 {record.sha256}"
    if manifest.files:
        yield "files", ", ".join(each.path for each in manifest.files)


def release_fields(facts: ReleaseFacts) -> dict[str, object]:
    """Return all that is known of a release, for programs."""
    release, manifest = facts.release, facts.release.manifest
    fields: dict[str, object] = (
        {} if manifest is None else {**manifest._asdict(), **manifest.as_fields()}
    )
    return {
        **fields,
        "version": release.version,
        "size": release.image.stamp.size if release.image else None,
        "time": None if manifest is None else manifest.time,
        "image": facts.image,
        "signature": facts.signature_name,
        "states": list(facts.states),
        "named_by": list(facts.named_by),
        "problem": facts.problem or None,
        "withdrawn_reason": facts.withdrawn_reason,
        "withdrawn_time": facts.withdrawn_time,
    }


def _withdrawal(release: Release, state: DataDirState) -> tuple[str | None, str | None]:
    """Return why and when a release was withdrawn."""
    entry = stopped_entry(read_stopped(state.data_dir), release.version)
    if entry is None or entry["state"] != StoppedState.WITHDRAWN:
        return None, None
    return entry.get("reason") or None, entry.get("time")
