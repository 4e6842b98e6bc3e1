"""Images in `firmware/`, opened with their digests, and the target of the fleet.

Nothing here waits. For an image that is not hashed yet `NotHashed` is raised, with an event to wait
for.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from weakref import WeakSet

from ota_server.httpd import app
from ota_server.model.device import Download
from ota_server.model.image_header import HEAD_BYTES, read_header
from ota_server.model.parts import Part, part_name, version_of_part_name
from ota_server.model.version import Target, meaning, spellings, version_of_image_name
from ota_server.policy.policy import Policy
from ota_server.policy.reason import IS_ALTERED
from ota_server.policy.wanted import wanted_releases
from ota_server.releases.fleet_target import FleetTarget, NoTarget
from ota_server.releases.hashing import SETTLE_SECONDS, Hasher, Hashing, Unreadable
from ota_server.releases.image import Copies, Image
from ota_server.system.files import (
    Found,
    Stamp,
    is_as_it_was,
    is_temporary,
    open_found,
    stamp_of,
)

# Images that stay open between requests, with their copies; a fleet uses two or three at a time.
_OPEN_IMAGES = 8
# Of how many images without a record the chip is kept, once it was read.
_MOST_CHIPS = 1000


class NoImage(Exception):
    """The image that was asked for is not there: answer 404."""


class Altered(NoImage):
    """Its bytes are not those that were published."""


class NotNow(Exception):
    """The server is out of descriptors or memory: answer 503."""


class NotHashed(app.NotReady):
    """The image is being hashed: wait for `hashing.done`, then ask again."""

    def __init__(self, hashing: Hashing) -> None:
        super().__init__(f"{hashing.path} is being hashed", hashing.done)
        self.hashing = hashing


class Store:
    """The files of one product, read again whenever they change. Safe for use by many threads.

    Attributes:
        is_closed: no further image will be hashed.
    """

    def __init__(
        self,
        data_dir: Path,
        settle_seconds: float = SETTLE_SECONDS,
        hasher: Hasher | None = None,
    ) -> None:
        """Begin with no open image.

        Args:
            hasher: that of all products of a server, which somebody else closes; None: its own.
        """
        self.firmware_dir = data_dir / "firmware"
        self.is_closed = False
        self._has_own_hasher = hasher is None
        self._hasher = hasher or Hasher(Copies(data_dir / "log"), settle_seconds)
        self._lock = Lock()
        self._images: OrderedDict[str, Image] = OrderedDict()
        # Also those that were dropped, while somebody still downloads them.
        self._in_use: WeakSet[Image] = WeakSet()
        self._fleet_target = FleetTarget(data_dir, self._hasher)
        self._chips: dict[Stamp, str] = {}
        self._wanted: tuple[Policy, str | None, Target | None, dict[str, str]] | None = None

    def close(self) -> None:
        """Close the images that are not being downloaded; the others close when that has ended."""
        self.is_closed = True
        if self._has_own_hasher:
            self._hasher.close()
        with self._lock:
            self._images.clear()

    def begin_turn(self) -> None:
        """Make `target` look at the files once until the next turn, not for each request."""
        self._fleet_target.begin_turn()

    def target(self) -> Target:
        """Return the target of the fleet in force: that of version.txt, or the last good one.

        Raises:
            NoTarget: version.txt has no target, and there was none since the start.
        """
        return self._fleet_target.target()

    @property
    def last_good(self) -> Target | None:
        """The target that stays in force if version.txt cannot be used; None: there is none."""
        return self._fleet_target.last_good

    def look_after(self) -> None:
        """Log a wrong version.txt and hash a new image before a device asks."""
        with suppress(NoTarget):
            self._fleet_target.look()
        self._close_old_images()

    def size(self, version: str) -> int:
        """Return the size of the image of a version in bytes, 0 if it has none."""
        found = self._fleet_target.find_image(version)
        return 0 if found is None else found[1].stamp.size

    def image(self, version: str) -> Image:
        """Return the image of a version, by its exact name or the one name equal in meaning.

        Raises:
            NoImage: it is missing, empty, not a regular file or not readable.
            NotHashed: it has to be hashed first.
        """
        found = self._fleet_target.find_image(version)
        if found is None:
            raise NoImage(self._fleet_target.missing(version))
        return self._open(*found)

    def part(self, version: str, part: Part) -> Image:
        """Return a part of a release, found as its image is.

        Raises:
            NoImage, NotHashed: as `image`.
        """
        for spelling in spellings(version):
            name = part_name(part, spelling)
            found = self._fleet_target.find(self.firmware_dir, name)
            if found is not None and found.stamp.size:
                return self._open(name, found)
        raise NoImage(f"{version} has no {part_name(part, version)}")

    def version_of_hash(self, hashes: Iterable[str]) -> str | None:
        """Return the version of the image that one of these is a hash of, among the open ones."""
        with self._lock:
            for image in self._images.values():
                if not image.hashes.isdisjoint(hashes):
                    return image.version
        return None

    def chip(self, version: str) -> str | None:
        """Return the chip that the image of a version is for, as it says itself, or None."""
        found = self._fleet_target.find_image(version)
        if found is None:
            return None
        file = found[1]
        known = self._chips.get(file.stamp)
        if known is None:
            try:
                with open(open_found(file), "rb") as image:
                    header = read_header(image.read(HEAD_BYTES))
            except OSError:
                return None
            if len(self._chips) >= _MOST_CHIPS:
                self._chips.clear()
            known = self._chips[file.stamp] = "" if header is None else header.chip or ""
        return known or None

    def unserved_images(self, policy: Policy) -> dict[str, str]:
        """Return why images cannot be served that devices are told to fetch, by their versions.

        What is not known yet is hashed, off the path of requests; meanwhile it counts as before.
        """
        found = {}
        for key, version in self._wanted_versions(policy).items():
            image = self._fleet_target.find_image(version)
            if image is None:
                continue  # decisions know what is missing
            name, file = image
            try:
                digests = self._hasher.known(file.stamp)
            except Unreadable as problem:
                found[key] = f"{name} cannot be read by the server: {problem}"
                continue
            manifest = policy.manifests.get(key)
            if digests is None:
                self._hasher.request(file)
                if key in policy.unserved:
                    found[key] = policy.unserved[key]
            elif manifest is not None and manifest.sha256 != digests.sha256:
                found[key] = f"{name} {IS_ALTERED}"
        return found

    def _wanted_versions(self, policy: Policy) -> dict[str, str]:
        """Return the releases that devices are told to run, by the meanings of their versions."""
        named, kept = self._fleet_target.named, self.last_good
        known = self._wanted
        if known is None or known[0] is not policy or known[1:3] != (named, kept):
            wanted = wanted_releases(policy, named, time.time_ns() // 1_000_000)
            versions = {key: version for key, (version, _) in wanted.items()}
            if kept is not None:
                versions.setdefault(meaning(kept.version), kept.version)
            known = self._wanted = policy, named, kept, versions
        return known[3]

    def images_in_use(self) -> list[Image]:
        """Return all images that are open, including those of running downloads."""
        with self._lock:
            return list(self._in_use)

    def pinned_image(self, download: Download) -> Image:
        """Return the image that holds the bytes of `download`, under whatever name.

        Raises:
            NoImage: no file holds them any longer.
            NotHashed: a file that may hold them has to be hashed first.
        """
        waiting: NotHashed | None = None
        for name, file in self._files_of_size(download):
            try:
                image = self._open(name, file)
            except NoImage:
                continue
            except NotHashed as not_ready:
                waiting = waiting or not_ready
                continue
            if image.sha256 == download.sha256:
                return image
        if waiting is not None:
            raise waiting
        raise NoImage(f"the bytes of {download.version} that it began are gone")

    def _files_of_size(self, download: Download) -> Iterator[tuple[str, Found]]:
        """Yield the files that may hold the bytes of `download`, the likeliest first."""
        likely = self._fleet_target.find_image(download.version)
        if likely is not None and likely[1].stamp.size == download.size:
            yield likely
        try:
            names = sorted(os.listdir(self.firmware_dir))
        except OSError as problem:
            if is_temporary(problem):
                raise NotNow(f"{self.firmware_dir}: {problem.strerror}") from problem
            return
        for name in names:
            if version_of_image_name(name) is None or (likely and name == likely[0]):
                continue
            found = self._fleet_target.find(self.firmware_dir, name)
            if found is not None and found.stamp.size == download.size:
                yield name, found

    def _open(self, name: str, file: Found) -> Image:
        with self._lock:
            image = self._images.get(name)
            if image is not None and image.stamp == file.stamp:
                if image.copy is None:
                    image.copy = self._hasher.take_copy(file.stamp)
                self._images.move_to_end(name)
                return image
        try:
            digests = self._hasher.known(file.stamp)
            if digests is None:
                raise NotHashed(self._hasher.request(file))
            descriptor = open_found(file)
        except Unreadable as problem:
            raise NoImage(str(problem)) from problem
        except OSError as problem:
            if is_temporary(problem):
                raise NotNow(f"{file.path}: {problem.strerror}") from problem
            raise NoImage(f"{file.path}: {problem.strerror}") from problem
        stamp = stamp_of(os.fstat(descriptor))
        if stamp != file.stamp:
            os.close(descriptor)
            raise NotHashed(self._hasher.request(Found(file.path, stamp)))
        version = version_of_image_name(name) or version_of_part_name(name) or name
        copy = self._hasher.take_copy(stamp)
        if copy is None:
            self._hasher.want_copy(file)
        image = Image(version, descriptor, stamp, digests, copy)
        with self._lock:
            other = self._images.get(name)
            if other is not None and other.stamp == stamp and other.copy is not None:
                return other  # another thread opened it meanwhile and took the copy
            self._images[name] = image
            self._in_use.add(image)
            self._images.move_to_end(name)
            if len(self._images) > _OPEN_IMAGES:
                # Requests for all the others by name must not slow down the fleet.
                kept = self.last_good.image_name if self.last_good else None
                del self._images[next(other for other in self._images if other != kept)]
        return image

    def _close_old_images(self) -> None:
        """Drop images whose file was deleted or replaced: they take room on the disk."""
        with self._lock:
            images = list(self._images.items())
        for name, image in images:
            path = os.path.join(self.firmware_dir, name)
            # Its own stamp is from before a link to it was made or removed.
            if not is_as_it_was(Found(os.path.realpath(path), image.stamp)):
                with self._lock:
                    if self._images.get(name) is image:
                        del self._images[name]
