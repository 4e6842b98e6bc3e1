"""The policy of one data directory, read again whenever its files change.

A turn of the event loop looks only at the time stamp of their folder, which every command moves. A
chore looks at the files themselves a few times a second, for people who edit them in place, and
reads the long ones, so no turn waits for those. What a turn does, by the time stamp of the folder:

    STEADY    the same as at the last look                    the policy stays as it was
    RACY      the same, but that look was within 2 s of a     as CHANGED every 50 ms, as STEADY
              change: another one may have the same time      in between
    CHANGED   another one                                     the files are looked at
    AWAY      it cannot be read                               the policy stays as it was

If another thread is looking at the files, a turn waits for it for 50 ms, or not at all if that
thread reads long files. Then the policy stays as it was, except for the hold, which never waits.
`watched` says what is done about each file.
"""

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

from ota_server.model.manifest import (
    BadManifest,
    Manifest,
    parse_manifest,
    version_of_manifest_name,
)
from ota_server.model.refusal import BadPolicy
from ota_server.model.version import meaning, version_of_image_name
from ota_server.policy.parse import (
    by_key,
    groups_by_key,
    parse_group,
    parse_pins,
    parse_retries,
    parse_stopped,
    parse_targets,
)
from ota_server.policy.policy import (
    HOLD_NAME,
    PINS_NAME,
    RETRIES_NAME,
    STOPPED_NAME,
    TARGETS_NAME,
    Policy,
    Rollout,
    is_group_name,
    make_policy,
)
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    group_of_plan_name,
    in_force,
    is_over,
    parse_plan,
    parse_progress,
    progress_name,
)
from ota_server.system.data_dir import product_at
from ota_server.system.files import Stamp, is_of, stamp_of
from ota_server.system.server_log import RateLimit
from ota_server.system.watched import RACY_SECONDS, Watched

log = logging.getLogger(__name__)

GROUPS_FOLDER = "groups"
GROUP_SUFFIX = ".txt"
# Groups with more members than this, some 10 ms of work, are made by the next chore, not in a turn.
_MOST_MEMBERS_IN_A_TURN = 15_000
# How long a turn waits for another thread that reads short files: a command counts at once.
_SHORT_SECONDS = 0.05
# Files that were read so soon after a change that another one may have the same time stamp are read
# again, but not at every turn, of which there are thousands a second.
_READ_AGAIN_SECONDS = 0.05
_SAY_EVERY_SECONDS = 60.0


class _Seen(NamedTuple):
    """The folder as it was at the last look, and until when that look may have missed a change.

    Times are in seconds of the monotonic clock.
    """

    folder: Stamp | None
    at: float
    racy_until: float


class PolicyFiles:
    """Reads the policy of one data directory. Safe for use by many threads.

    Attributes:
        has_open_rollout: a rollout is on, or the controller has not recorded its end yet.
        unserved: as in a `Policy`, from the next `look_after` on; the running server knows it.
    """

    def __init__(
        self,
        data_dir: Path,
        keeps_ungrouped: bool = False,
        unserved: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Read it.

        Args:
            keeps_ungrouped, unserved: as in a `Policy`; they are in no file.
        """
        self.has_open_rollout = False
        self.unserved = unserved
        self._keeps_ungrouped = keeps_ungrouped
        self._product = product_at(data_dir)
        self._version_dir = data_dir / "version"
        self._firmware_dir = data_dir / "firmware"
        self._lock = Lock()
        self._watched = Watched(True, "a server that has not read it before offers nothing")
        self._manifests = Watched(False, "no device is offered its release")
        self._groups: dict[str, tuple[str, ...]] = {}
        self._facts: tuple[bool, frozenset[str], str, Mapping[str, str]] | None = None
        self._seen = _Seen(None, 0.0, 0.0)
        self._has_turns = False
        self._turn_policy: Policy | None = None
        self._policy = make_policy(keeps_ungrouped=keeps_ungrouped, product=self._product)
        self._limit = RateLimit(_SAY_EVERY_SECONDS)
        self.look_after()

    def begin_turn(self) -> None:
        """Make `current` look at the folder once until the next turn, not for each request."""
        self._turn_policy = None
        self._has_turns = True

    def current(self) -> Policy:
        """Return the policy that the files hold now; look only at their folder."""
        policy = self._turn_policy
        if policy is None:
            policy = self._look_for_changes()
            if self._has_turns:
                self._turn_policy = policy
        return policy

    def look_after(self) -> None:
        """Notice files that were edited in place, and read long ones."""
        try:
            folder = stamp_of(os.lstat(self._version_dir))
            with self._lock:
                try:
                    self._read(folder, is_turn=False)
                finally:
                    self._watched.reads_long_file = False
        except OSError as problem:
            # Before the first look there may be no such folder, and nothing that was decided.
            if self._seen.folder and self._limit.allows(str(problem), time.monotonic()):
                log.error("%s; what operators decided before applies until it is fixed", problem)

    @property
    def latest(self) -> Policy:
        """The policy as it was last read."""
        return self._policy

    def _look_for_changes(self) -> Policy:
        seen = self._seen
        try:
            status = os.lstat(self._version_dir)
        except OSError:
            return self._policy  # AWAY
        if seen.folder is not None and is_of(status, seen.folder):
            if not seen.racy_until:
                return self._policy  # STEADY
            if time.monotonic() <= seen.at + _READ_AGAIN_SECONDS:
                return self._policy  # RACY
        if not self._lock.acquire(timeout=0 if self._watched.reads_long_file else _SHORT_SECONDS):
            # The emergency hold never waits.
            return self._policy._replace(is_held=self._is_held(), is_plain=False)
        try:
            self._read(stamp_of(status), is_turn=True)
        finally:
            self._lock.release()
        return self._policy

    def _read(self, folder: Stamp, is_turn: bool) -> None:
        """Read what has changed. The caller holds the lock."""
        now, seen = time.monotonic(), self._seen
        racy_until = seen.racy_until if now < seen.racy_until else 0.0
        if folder != seen.folder:
            racy_until = now + RACY_SECONDS
        self._watched.begin(is_turn)
        self._manifests.begin(is_turn)
        self._read_all(is_turn)
        # Only now: until then a turn has to see that there is something to wait for.
        self._seen = _Seen(folder, now, racy_until)

    def _read_all(self, is_turn: bool) -> None:
        watched, folder = self._watched, self._version_dir
        pins = watched.read(folder, PINS_NAME, parse_pins, ({}, {}))
        targets = watched.read(folder, TARGETS_NAME, parse_targets, {})
        stopped = watched.read(folder, STOPPED_NAME, parse_stopped, {})
        retries = watched.read(folder, RETRIES_NAME, parse_retries, {})
        members = self._read_groups()
        manifests, unusable, images = self._read_firmware()
        rollouts = self._read_rollouts()
        is_held = self._is_held()
        if not folder.is_dir():
            return  # the folder was moved away meanwhile; that removes nothing from the policy
        watched.end()
        self._manifests.end()
        unserved = self.unserved
        facts = (is_held, images, watched.problem, unserved)
        if not watched.changed and not self._manifests.changed and facts == self._facts:
            return
        are_groups_left = not self._make_groups(members, is_turn)
        self._policy = make_policy(
            problem=watched.problem,
            is_held=is_held,
            pins=(by_key(self._product, pins[0]), pins[1]),
            group_targets=targets,
            stopped=stopped,
            groups=self._groups,
            rollouts=rollouts,
            manifests=manifests,
            unusable=unusable,
            images=images,
            unserved=unserved,
            retries=by_key(self._product, retries),
            keeps_ungrouped=self._keeps_ungrouped,
            product=self._product,
        )
        self._facts = facts
        self._manifests.changed.clear()
        if not are_groups_left:
            watched.changed.clear()

    def _is_held(self) -> bool:
        try:
            os.lstat(self._version_dir / HOLD_NAME)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return self._policy.is_held  # a hold that cannot be read is not lifted
        return True

    def _make_groups(self, members: dict[str, list[str]], is_turn: bool) -> bool:
        """Bring the groups up to date, if there is time for it; return whether they are."""
        groups_dir = str(self._version_dir / GROUPS_FOLDER)
        if not any(os.path.dirname(path) == groups_dir for path in self._watched.changed):
            return True
        if sum(map(len, members.values())) > _MOST_MEMBERS_IN_A_TURN:
            if is_turn:
                return False
            self._watched.reads_long_file = True
        self._groups = groups_by_key(self._product, members)
        return True

    def _read_groups(self) -> dict[str, list[str]]:
        folder = self._version_dir / GROUPS_FOLDER
        names = {name.removesuffix(GROUP_SUFFIX): name for name in self._watched.names(folder)}
        return {
            group: self._watched.read(folder, name, parse_group, [])
            for group, name in names.items()
            if is_group_name(group) and name != group
        }

    def _read_rollouts(self) -> dict[str, Rollout]:
        found = {}
        watched, folder = self._watched, self._version_dir
        has_open_rollout = False
        for name in watched.names(folder):
            group = group_of_plan_name(name)
            if group is None:
                continue
            plan = watched.read(folder, name, partial(_plan, group), None)
            progress = watched.read(folder, progress_name(group), _progress, None)
            rollout = None if plan is None else in_force(plan, progress)
            if rollout is not None:
                found[group] = rollout
            if plan is not None and not is_over(plan, progress):
                has_open_rollout = True
        self.has_open_rollout = has_open_rollout
        return found

    def _read_firmware(self) -> tuple[dict[str, Manifest], dict[str, str], frozenset[str]]:
        """Return the manifests, why others cannot be used, and the versions that have an image."""
        manifests: dict[str, Manifest] = {}
        unusable: dict[str, str] = {}
        images = set()
        folder = self._firmware_dir
        for name in self._manifests.names(folder):
            if image := version_of_image_name(name):
                images.add(meaning(image))
            elif version := version_of_manifest_name(name):
                read = self._manifests.read(folder, name, partial(_manifest, version), None)
                if isinstance(read, Manifest):
                    manifests[meaning(version)] = read
                elif read is not None:
                    unusable[meaning(version)] = read
        return manifests, unusable, frozenset(images)


def _plan(group: str, content: bytes) -> RolloutPlan:
    plan = parse_plan(content)
    if plan.group != group:
        raise BadPolicy(f"is for {plan.group or 'the whole fleet'} by its content, not by its name")
    return plan


def _progress(content: bytes) -> RolloutProgress | None:
    """Return the progress of a rollout, or None if it cannot be read: then it is written again."""
    try:
        return parse_progress(content)
    except BadPolicy:
        return None


def _manifest(version: str, content: bytes) -> Manifest:
    try:
        return parse_manifest(content, version)
    except BadManifest as problem:
        raise BadPolicy(str(problem)) from problem
