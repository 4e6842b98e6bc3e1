"""The target of the fleet that the server uses: that of version.txt, or the last good one.

| state | version.txt and its image | `target()` | what leads out of it |
|---|---|---|---|
| none | version.txt unusable, no good target since the start | `NoTarget` | a usable file |
| without image | its image is unusable, no good target since the start | it, no image | an image |
| unread | its image is not hashed yet, and meanwhile taken as good | it | hashing ends |
| read | its image was hashed | it | a file changes |
| kept | version.txt or its image unusable | the last good target | a usable file |

Unread and read are good: the target is `_unread`, else `_read`. Hashing leads from unread to read;
if the image cannot be read, back to the target that was read before it (kept), or to without image.
Two short cuts save looks at the files and change no state: `_steady`, while version.txt and the
image of a target that was read are unchanged, and `_turn_target`, until the next turn.
"""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ota_server.model.version import Target, image_name, version_of_image_name
from ota_server.policy.targets import (
    VERSION_NAME,
    VersionFile,
    find_image,
    no_version_file,
    read_found_version,
)
from ota_server.releases.hashing import Hasher, Unreadable
from ota_server.system.data_dir import product_at
from ota_server.system.files import Found, Stamp, find, is_as_it_was
from ota_server.system.product_log import ProductLog
from ota_server.system.server_log import RateLimit
from ota_server.system.watched import has_writer, is_being_written

log = logging.getLogger(__name__)

# A file that was written twice within this time may have the same time stamp both times.
_RACY_SECONDS = 2.0
_LOG_EVERY_SECONDS = 60.0


class NoTarget(Exception):
    """There is no target version and never was: answer 503."""


class FleetTarget:
    """The target of the fleet, looked up again when a file has changed. Safe for many threads."""

    def __init__(self, data_dir: Path, hasher: Hasher) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "version" / VERSION_NAME
        self._firmware_dir = data_dir / "firmware"
        self._hasher = hasher
        self._look_lock = Lock()
        self._version_file: tuple[Stamp, float, VersionFile] | None = None
        self._unread: Target | None = None
        self._read: Target | None = None
        self._unreadable: Stamp | None = None
        self._steady: tuple[Target, tuple[Found, Found]] | None = None
        self._has_turns = False
        self._turn_target: Target | None = None
        self._said: str | None = None
        self._log = ProductLog(log, data_dir)
        self._limit = RateLimit(_LOG_EVERY_SECONDS)

    def begin_turn(self) -> None:
        """Make `target` look at the files once until the next turn, not for each request."""
        self._turn_target = None
        self._has_turns = True

    def target(self) -> Target:
        """Return the target in force.

        Raises:
            NoTarget: version.txt has no target, and there was none since the start.
        """
        target = self._turn_target or self.look()
        if self._has_turns:
            self._turn_target = target
        return target

    @property
    def last_good(self) -> Target | None:
        """The target that stays in force if version.txt cannot be used; None: there is none."""
        return self._unread or self._read

    @property
    def named(self) -> str | None:
        """The version that version.txt named at the last look; None: none that can be used."""
        return None if self._version_file is None else self._version_file[2].version

    def look(self) -> Target:
        """Do as `target`, but look at the files even in the middle of a turn.

        Raises:
            NoTarget: as `target`.
        """
        steady = self._steady
        if steady is not None and all(map(is_as_it_was, steady[1])):
            return steady[0]
        # One thread at a time, so that none takes another's file for the one that it saw.
        with self._look_lock:
            return self._look_closer()

    def find_image(self, version: str) -> tuple[str, Found] | None:
        """Return the name and the file of the image of a version, or None if it has no image."""
        target, steady = self._turn_target, self._steady
        if steady is not None and target is steady[0] and version == target.version:
            return image_name(version), steady[1][1]  # looked at in this turn
        return find_image(self._firmware_dir, version, self.find)

    def find(self, folder: Path, name: str) -> Found | None:
        """Find a file as `files.find` does; log an error if the folder cannot be searched."""
        try:
            return find(folder, name)
        except OSError as problem:
            if self._limit.allows(name, time.monotonic()):
                self._log.error("%s: %s", folder / name, problem.strerror)
            return None

    def missing(self, version: str) -> str:
        """Return what to say if the image of a version is not found."""
        path = self._firmware_dir / image_name(version)
        return f"{path} is missing, empty, or not a regular file in its folder"

    def _look_closer(self) -> Target:
        self._steady = None
        version, end, problem, _ = self._read_version_file()
        if version is not None:
            found = self.find_image(version)
            try:
                if found is not None:
                    name, file = found
                    return self._good(Target(version, end, name, file.stamp.size), file)
                problem = f"names {version}, but {self.missing(version)}"
            except Unreadable as unreadable:
                assert found is not None
                problem = f"names {version}, but {unreadable}"
                self._unreadable = found[1].stamp
                if self._unread is not None and self._unread.version == version:
                    self._unread = None
            if self.last_good is None:
                told = f"devices are told {version}, and get 404 for its image"
                self._say(problem, told if found is None else "no device is offered it")
                return Target(version, end, None, 0)
        kept = self.last_good
        self._say(problem, f"{kept.version} stays the target" if kept else "devices get 503")
        if kept is None:
            raise NoTarget(f"{self._path} {problem}")
        return kept

    def _good(self, target: Target, file: Found) -> Target:
        """Put a target with an image in force.

        Raises:
            Unreadable: the image cannot be read.
        """
        before = self.last_good
        is_read = self._hasher.known(file.stamp) is not None
        if not is_read:
            # Hashed now, so that the first device need not wait for it.
            self._hasher.request(file)
            if file.stamp == self._unreadable and before is not None:
                return before  # being tried again: good when it has been read
        is_other = before is not None and (
            (target.version, target.image_name) != (before.version, before.image_name)
        )
        if is_other or self._said is not None:
            self._log.info("the target is %s (%s)", target.version, target.image_name)
        self._said = None
        if is_read:
            self._read, self._unread = target, None
            self._note_steady(target, file)
        else:
            self._unread = target
        return target

    def _note_steady(self, target: Target, image: Found) -> None:
        """Remember the target for as long as its two files are unchanged.

        Not for links, nor while a file might change under the same time stamp.
        """
        if self._version_file is None or target.image_name != image_name(target.version):
            return
        stamp, read_at, _ = self._version_file
        version_file = Found(str(self._path), stamp)
        image_path = os.path.join(self._firmware_dir, target.image_name)
        is_settled = read_at > stamp.changed_ns / 1e9 + _RACY_SECONDS
        if is_settled and image.path == image_path and is_as_it_was(version_file):
            self._steady = target, (version_file, image)

    def _say(self, problem: str, consequence: str) -> None:
        if problem == self._said:
            return
        self._said = problem
        if self._is_new():
            self._log.info("no target yet; devices get 503 until `release activate VERSION`")
        else:
            self._log.error("%s %s; %s", self._path, problem, consequence)

    def _is_new(self) -> bool:
        """Return whether this is a product that was added, and has nothing so far."""
        with suppress(OSError):
            is_there = self._version_file is not None or os.path.lexists(self._path)
            images = map(version_of_image_name, os.listdir(self._firmware_dir))
            return bool(product_at(self._data_dir)) and not is_there and not any(images)
        return False

    def _read_version_file(self) -> VersionFile:
        try:
            found = find(self._path.parent, self._path.name)
            if found is None:
                return no_version_file(self._data_dir)
            known = self._version_file
            settled_at = found.stamp.changed_ns / 1e9 + _RACY_SECONDS
            if known is not None and known[0] == found.stamp and known[1] > settled_at:
                return known[2]
            if (
                known is not None
                and is_being_written(known[0], found.stamp)
                and has_writer(found) is not False
            ):
                return known[2]  # "v1" may be on the way to "v1.0.1"
            read_at = time.time()
            content, is_same = read_found_version(found)
            if not is_same:
                read_at = 0.0  # replaced between two looks: read it again next time
        except OSError as problem:
            return VersionFile(None, problem=f"cannot be read: {problem.strerror}")
        self._version_file = (found.stamp, read_at, content)
        return content
