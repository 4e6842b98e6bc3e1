"""The files of the policy on disk, read anew whenever they change.

Looked at once a turn by the time stamp of their folder, which each command of ours moves, and a few
times a second one by one, for those who edit them in place.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ota_server.files import Found, Signature, find, is_of, is_passing, open_found, signature_of
from ota_server.manifest import (
    BadManifest,
    Manifest,
    parse_manifest,
    version_of_manifest_name,
)
from ota_server.plan import (
    Progress,
    group_of_plan_name,
    in_force,
    parse_plan,
    parse_progress,
    progress_name,
)
from ota_server.policy import (
    HOLD_NAME,
    PINS_NAME,
    RETRIES_NAME,
    STOPPED_NAME,
    TARGETS_NAME,
    BadPolicy,
    Policy,
    Rollout,
    groups_by_mac,
    is_group_name,
    make_policy,
    parse_group,
    parse_pins,
    parse_retries,
    parse_stopped,
    parse_targets,
)
from ota_server.release import meaning, version_of_image_name

log = logging.getLogger(__name__)

GROUPS_FOLDER = "groups"
GROUP_SUFFIX = ".txt"
# The lists of a million devices take so much; and more is no list that somebody keeps.
_MAX_BYTES = 64 * 1024 * 1024
# A longer list is not read in a turn of the loop, but by a chore, a tenth of a second later.
_MOST_IN_A_TURN = 256 * 1024
# Two changes within this may leave one time stamp, so what was read so soon is read again ...
_RACY_SECONDS = 2.0
# ... but not at every turn, of which there are thousands a second.
_READ_AGAIN_SECONDS = 0.05
_NONE = Signature(0, 0, 0, 0, 0)


class _Read(NamedTuple):
    """A file as it was read: what it holds, or what it held while it was good.

    `is_bad`: nothing good was ever read from it.
    """

    signature: Signature
    read_at: float
    content: bytes
    value: Any
    is_bad: bool


class PolicyFiles:
    """Reads the policy of one data directory. Safe for use by many threads."""

    def __init__(self, data_dir: Path) -> None:
        self._version_dir = data_dir / "version"
        self._groups_dir = self._version_dir / GROUPS_FOLDER
        self._firmware_dir = data_dir / "firmware"
        self._lock = Lock()
        self._files: dict[str, _Read] = {}
        self._there: set[str] = set()
        self._has_changed = True
        self._have_groups_changed = True
        self._groups: dict[str, tuple[str, ...]] = {}
        self._facts: tuple[bool, frozenset[str]] = (False, frozenset())
        self._folder: Signature | None = None
        self._again_until = 0.0
        self._looked_at = 0.0
        self._most_bytes = _MAX_BYTES
        self._has_turns = False
        self._turn_policy: Policy | None = None
        self._listed: dict[Path, list[str]] = {}
        self._said: dict[str, str] = {}
        self._policy = Policy()
        self.look_after()

    def begin_turn(self) -> None:
        """Have `current` look at the folder once until the next turn, not for each request."""
        self._turn_policy = None
        self._has_turns = True

    def current(self) -> Policy:
        """Return the policy as its files have it now, by one look at their folder."""
        policy = self._turn_policy
        if policy is None:
            policy = self._look_for_changes()
            if self._has_turns:
                self._turn_policy = policy
        return policy

    def _look_for_changes(self) -> Policy:
        try:
            status = os.lstat(self._version_dir)
        except OSError:
            return self._policy  # the folder is away: what was decided stays
        is_racy = self._again_until and time.monotonic() > self._looked_at + _READ_AGAIN_SECONDS
        if is_racy or self._folder is None or not is_of(status, self._folder):
            self._look(signature_of(status), _MOST_IN_A_TURN)
        return self._policy

    def look_after(self) -> None:
        """Notice what was edited in place."""
        with suppress(OSError):
            self._look(signature_of(os.lstat(self._version_dir)), _MAX_BYTES)

    def _look(self, folder: Signature, most_bytes: int) -> None:
        with self._lock:
            now = time.monotonic()
            if folder != self._folder:
                self._folder = folder
                self._again_until = now + _RACY_SECONDS
            elif now >= self._again_until:
                self._again_until = 0.0
            self._looked_at = now
            self._most_bytes = most_bytes
            self._read_all()

    def _read_all(self) -> None:
        self._there = set()
        pins = self._read(self._version_dir, PINS_NAME, parse_pins, ({}, {}))
        targets = self._read(self._version_dir, TARGETS_NAME, parse_targets, {})
        stopped = self._read(self._version_dir, STOPPED_NAME, parse_stopped, {})
        retries = self._read(self._version_dir, RETRIES_NAME, parse_retries, {})
        members = self._read_groups()
        manifests, unusable, images = self._read_firmware()
        rollouts = self._read_rollouts()
        gone = [path for path in self._files if path not in self._there]
        for path in gone:
            del self._files[path]
            self._note_change(path)
        facts = (os.path.lexists(self._version_dir / HOLD_NAME), images)
        if not self._has_changed and facts == self._facts:
            return
        if self._have_groups_changed:
            self._groups = groups_by_mac(members)
        self._policy = make_policy(
            problem=next(
                (f"{path} cannot be used" for path, read in self._files.items() if read.is_bad), ""
            ),
            is_held=facts[0],
            pins=pins,
            group_targets=targets,
            stopped=stopped,
            groups=self._groups,
            rollouts=rollouts,
            manifests=manifests,
            unusable=unusable,
            images=images,
            retries=retries,
        )
        self._facts = facts
        self._has_changed = self._have_groups_changed = False

    def _read_groups(self) -> dict[str, list[str]]:
        names = {name.removesuffix(GROUP_SUFFIX): name for name in self._names(self._groups_dir)}
        return {
            group: self._read(self._groups_dir, name, parse_group, [])
            for group, name in names.items()
            if is_group_name(group) and name != group
        }

    def _read_rollouts(self) -> dict[str, Rollout]:
        found = {}
        for name in self._names(self._version_dir):
            group = group_of_plan_name(name)
            if group is None:
                continue
            plan = self._read(self._version_dir, name, parse_plan, None)
            progress = self._read(self._version_dir, progress_name(group), _progress, None)
            rollout = None if plan is None else in_force(plan, progress)
            if rollout is not None:
                found[group] = rollout
        return found

    def _read_firmware(self) -> tuple[dict[str, Manifest], dict[str, str], frozenset[str]]:
        """Return the manifests, those that cannot be used, and for which versions images are."""
        manifests: dict[str, Manifest] = {}
        unusable: dict[str, str] = {}
        images = set()
        for name in self._names(self._firmware_dir):
            if image := version_of_image_name(name):
                images.add(meaning(image))
            elif version := version_of_manifest_name(name):
                read = self._read(self._firmware_dir, name, partial(_manifest, version), None)
                if isinstance(read, Manifest):
                    manifests[meaning(version)] = read
                elif read is not None:
                    unusable[meaning(version)] = read
        return manifests, unusable, frozenset(images)

    def _read(self, folder: Path, name: str, parse: Callable[[bytes], Any], default: Any) -> Any:
        """Return what a file holds, read anew only if it has changed."""
        path = os.path.join(folder, name)
        known = self._files.get(path)
        try:
            found = find(folder, name)
            if found is None and not os.path.lexists(path):
                return default
            self._there.add(path)
            if found is None:
                raise BadPolicy("is no regular file in its folder")
            is_known = known is not None and _is_settled(known, found.signature)
            if is_known or found.signature.size > self._most_bytes:
                return default if known is None else known.value
            read_at = time.time()
            content = _content(found)
            if known is not None and content == known.content:
                self._files[path] = known._replace(signature=found.signature, read_at=read_at)
                return known.value
            self._files[path] = _Read(found.signature, read_at, content, default, True)
            value, is_bad = parse(content), False
        except (OSError, BadPolicy) as problem:
            self._there.add(path)
            if isinstance(problem, OSError) and is_passing(problem) and known is not None:
                return known.value
            value, is_bad = self._bad(path, known, default, problem)
        read = self._files.get(path) or _Read(_NONE, 0.0, b"", default, True)
        self._files[path] = read._replace(value=value, is_bad=is_bad)
        self._note_change(path)
        return value

    def _bad(
        self, path: str, known: _Read | None, default: Any, problem: Exception
    ) -> tuple[Any, bool]:
        """Return what a file that cannot be used stands for: what it held while it was good."""
        is_bad = known is None or known.is_bad
        said = f"{path} {problem.strerror if isinstance(problem, OSError) else problem}"
        if self._said.get(path) != said:
            self._said[path] = said
            consequence = "nobody is offered anything" if is_bad else "what it held before holds"
            log.error("%s; %s until it is mended", said, consequence)
        return (default if known is None else known.value), is_bad

    def _names(self, folder: Path) -> list[str]:
        try:
            self._listed[folder] = sorted(os.listdir(folder))
        except OSError as problem:
            if not is_passing(problem):
                self._listed[folder] = []
        return self._listed.get(folder, [])

    def _note_change(self, path: str) -> None:
        self._has_changed = True
        if os.path.dirname(path) == str(self._groups_dir):
            self._have_groups_changed = True


def _is_settled(known: _Read, signature: Signature) -> bool:
    return (
        known.signature == signature and known.read_at > signature.changed_ns / 1e9 + _RACY_SECONDS
    )


def _content(found: Found) -> bytes:
    if found.signature.size > _MAX_BYTES:
        raise BadPolicy(f"is over {_MAX_BYTES} bytes")
    descriptor = open_found(found)
    with open(descriptor, "rb") as file:
        return file.read(_MAX_BYTES)


def _progress(content: bytes) -> Progress | None:
    """Return how far a rollout is; None where that cannot be read: it is written anew."""
    try:
        return parse_progress(content)
    except BadPolicy:
        return None


def _manifest(version: str, content: bytes) -> Manifest | str:
    """Return a manifest, or what is wrong with it: that concerns this release alone."""
    try:
        return parse_manifest(content, version)
    except BadManifest as problem:
        return str(problem)
