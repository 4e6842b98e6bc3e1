"""`version/` and `firmware/` on disk: the target, and images with their digests.

Nothing here waits. Who needs an image that is not hashed yet gets `NotHashed`, with an event to
wait for.
"""

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from weakref import WeakSet

from ota_server.httpd import app
from ota_server.model.device import Download
from ota_server.model.version import (
    Target,
    image_name,
    version_of_image_name,
)
from ota_server.policy.targets import (
    VERSION_NAME,
    VersionFile,
    find_image,
    no_version_file,
    read_found_version,
)
from ota_server.releases.hashing import SETTLE_SECONDS, Hasher, Hashing, Unreadable
from ota_server.releases.image import Copies, Image
from ota_server.system.files import (
    Found,
    Signature,
    find,
    is_as_it_was,
    is_passing,
    open_found,
    signature_of,
)
from ota_server.system.rate_limit import RateLimit

log = logging.getLogger(__name__)

# Images that stay open between requests, with their copies; a fleet is on two or three at a time.
_OPEN_IMAGES = 8
# A file that was written twice within this may carry one time stamp for both contents.
_RACY_SECONDS = 2.0
_LOG_EVERY_SECONDS = 60.0


class NoTarget(Exception):
    """There is no target version and never was one: answer 503."""


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
    """The files of one product, read anew whenever they change. Safe for use by many threads.

    Attributes:
        is_closed: what was not hashed before will never be.
    """

    def __init__(self, data_dir: Path, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._data_dir = data_dir
        self.version_path = data_dir / "version" / VERSION_NAME
        self.firmware_dir = data_dir / "firmware"
        self.is_closed = False
        self._hasher = Hasher(Copies(data_dir / "log"), settle_seconds)
        self._lock = Lock()
        self._look_lock = Lock()
        self._images: OrderedDict[str, Image] = OrderedDict()
        # Also those that are let go of, for as long as somebody downloads them.
        self._in_use: WeakSet[Image] = WeakSet()
        self._version_file: tuple[Signature, float, VersionFile] | None = None
        self._last_good: Target | None = None
        self._last_read: Target | None = None
        self._unreadable: Signature | None = None
        self._steady: tuple[Target, tuple[Found, Found]] | None = None
        self._has_turns = False
        self._turn_target: Target | None = None
        self._said: str | None = None
        self._limit = RateLimit(_LOG_EVERY_SECONDS)

    def close(self) -> None:
        """End the hashing thread and close the images that nobody downloads."""
        self.is_closed = True
        self._hasher.close()
        with self._lock:
            self._images.clear()

    def begin_turn(self) -> None:
        """Have `target` look at the files once until the next turn, not for each request."""
        self._turn_target = None
        self._has_turns = True

    def target(self) -> Target:
        """Return the target in force: that of version.txt, or the last good one.

        Raises:
            NoTarget: version.txt names none and there was none since the start.
        """
        target = self._turn_target or self._look_for_target()
        if self._has_turns:
            self._turn_target = target
        return target

    @property
    def last_good(self) -> Target | None:
        """The target that stays in force where version.txt cannot be used; None: there is none."""
        return self._last_good

    def look_after(self) -> None:
        """Have a wrong version.txt said at once, and a new image hashed, before a device asks."""
        with suppress(NoTarget):
            self._look_for_target()
        self._close_old_images()

    def _look_for_target(self) -> Target:
        steady = self._steady
        if steady is not None and all(map(is_as_it_was, steady[1])):
            return steady[0]
        # One at a time: what one thread read must not be taken for what another one saw.
        with self._look_lock:
            return self._look_closer()

    def _look_closer(self) -> Target:
        self._steady = None
        version, end, problem, _ = self._read_version_file()
        if version is not None:
            found = self._find_image(version)
            if found is None:
                problem = f"names {version}, but {self._missing(version)}"
            elif unreadable := self._problem_with(found[1]):
                problem = f"names {version}, but {unreadable}"
                self._unreadable = found[1].signature
                if self._last_good is not None and self._last_good.version == version:
                    self._last_good = self._last_read  # it was taken for good before that
            else:
                return self._good(Target(version, end, found[0], found[1].signature.size), found[1])
            if self._last_good is None:
                self._say(problem, f"devices are told {version}, and get 404 for its image")
                return Target(version, end, None, 0)
        kept = self._last_good
        self._say(problem, f"{kept.version} stays the target" if kept else "devices get 503")
        if kept is None:
            raise NoTarget(f"{self.version_path} {problem}")
        return kept

    def size(self, version: str) -> int:
        """Return the size of the image of a version in bytes, 0 where there is none."""
        found = self._find_image(version)
        return 0 if found is None else found[1].signature.size

    def image(self, version: str) -> Image:
        """Return the image of a version, by its exact name or the one name equal in meaning.

        Raises:
            NoImage: it is missing, empty, no regular file or not readable.
            NotHashed: it has to be hashed first.
        """
        found = self._find_image(version)
        if found is None:
            raise NoImage(self._missing(version))
        return self._open(*found)

    def images_in_use(self) -> list[Image]:
        """Return all images that are open, those of running downloads among them."""
        with self._lock:
            return list(self._in_use)

    def pinned_image(self, download: Download) -> Image:
        """Return the image that holds the bytes of `download`, under whatever name.

        Raises:
            NoImage: no file holds them any more.
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

    def _good(self, target: Target, file: Found) -> Target:
        is_read = self._is_read(file)
        if not is_read:
            # Hashed now, so that the first device need not wait for it.
            self._hasher.request(file)
            if file.signature == self._unreadable and self._last_good is not None:
                return self._last_good  # tried again: good once it was read
        is_other = self._last_good is not None and (
            (target.version, target.image_name)
            != (self._last_good.version, self._last_good.image_name)
        )
        if is_other or self._said is not None:
            log.info("the target is %s (%s)", target.version, target.image_name)
        self._last_good = target
        if is_read:
            self._last_read = target
            self._note_steady(target, file)
        self._said = None
        return target

    def _note_steady(self, target: Target, image: Found) -> None:
        """Keep what need not be looked up again for as long as two files are as they are.

        Not for links, and not while a file might change under one time stamp.
        """
        if self._version_file is None or target.image_name != image_name(target.version):
            return
        signature, read_at, _ = self._version_file
        version_file = Found(str(self.version_path), signature)
        image_path = os.path.join(self.firmware_dir, target.image_name)
        is_settled = read_at > signature.changed_ns / 1e9 + _RACY_SECONDS
        if is_settled and image.path == image_path and is_as_it_was(version_file):
            self._steady = target, (version_file, image)

    def _say(self, problem: str, consequence: str) -> None:
        if problem != self._said:
            self._said = problem
            log.error("%s %s; %s", self.version_path, problem, consequence)

    def _missing(self, version: str) -> str:
        path = self.firmware_dir / image_name(version)
        return f"{path} is missing, empty, or no regular file in its folder"

    def _read_version_file(self) -> VersionFile:
        try:
            found = find(self.version_path.parent, self.version_path.name)
            if found is None:
                return no_version_file(self._data_dir)
            known = self._version_file
            settled_at = found.signature.changed_ns / 1e9 + _RACY_SECONDS
            if known is not None and known[0] == found.signature and known[1] > settled_at:
                return known[2]
            read_at = time.time()
            content, is_same = read_found_version(found)
            if not is_same:
                read_at = 0.0  # put there between two looks: do not trust it to be this one
        except OSError as problem:
            return VersionFile(None, problem=f"cannot be read: {problem.strerror}")
        self._version_file = (found.signature, read_at, content)
        return content

    def _find_image(self, version: str) -> tuple[str, Found] | None:
        target, steady = self._turn_target, self._steady
        if steady is not None and target is steady[0] and version == target.version:
            return image_name(version), steady[1][1]  # looked at in this turn
        return find_image(self.firmware_dir, version, self._find)

    def _find(self, folder: Path, name: str) -> Found | None:
        try:
            return find(folder, name)
        except OSError as problem:
            if self._limit.allows(name, time.monotonic()):
                log.error("%s: %s", folder / name, problem.strerror)
            return None

    def _files_of_size(self, download: Download) -> Iterator[tuple[str, Found]]:
        """Yield the files that may hold the bytes of `download`, the likeliest first."""
        likely = self._find_image(download.version)
        if likely is not None and likely[1].signature.size == download.size:
            yield likely
        try:
            names = sorted(os.listdir(self.firmware_dir))
        except OSError as problem:
            if is_passing(problem):
                raise NotNow(f"{self.firmware_dir}: {problem.strerror}") from problem
            return
        for name in names:
            if version_of_image_name(name) is None or (likely and name == likely[0]):
                continue
            found = self._find(self.firmware_dir, name)
            if found is not None and found.signature.size == download.size:
                yield name, found

    def _open(self, name: str, file: Found) -> Image:
        with self._lock:
            image = self._images.get(name)
            if image is not None and image.signature == file.signature:
                if image.copy is None:
                    image.copy = self._hasher.take_copy(file.signature)
                self._images.move_to_end(name)
                return image
        try:
            digests = self._hasher.known(file.signature)
            if digests is None:
                raise NotHashed(self._hasher.request(file))
            descriptor = open_found(file)
        except Unreadable as problem:
            raise NoImage(str(problem)) from problem
        except OSError as problem:
            if is_passing(problem):
                raise NotNow(f"{file.path}: {problem.strerror}") from problem
            raise NoImage(f"{file.path}: {problem.strerror}") from problem
        signature = signature_of(os.fstat(descriptor))
        if signature != file.signature:
            os.close(descriptor)
            raise NotHashed(self._hasher.request(Found(file.path, signature)))
        version = version_of_image_name(name) or name
        copy = self._hasher.take_copy(signature)
        if copy is None:
            self._hasher.want_copy(file)
        image = Image(version, descriptor, signature, digests, copy)
        with self._lock:
            other = self._images.get(name)
            if other is not None and other.signature == signature and other.copy is not None:
                return other  # opened by another thread meanwhile, and it took the copy
            self._images[name] = image
            self._in_use.add(image)
            self._images.move_to_end(name)
            if len(self._images) > _OPEN_IMAGES:
                # Whoever asks for all the others by name does not slow down the fleet.
                kept = self._last_good.image_name if self._last_good else None
                del self._images[next(other for other in self._images if other != kept)]
        return image

    def _close_old_images(self) -> None:
        """Let go of images whose file was deleted or replaced: they hold room on the disk."""
        with self._lock:
            images = list(self._images.items())
        for name, image in images:
            path = os.path.join(self.firmware_dir, name)
            # Its own signature was taken before a link to it was made or undone.
            if not is_as_it_was(Found(os.path.realpath(path), image.signature)):
                with self._lock:
                    if self._images.get(name) is image:
                        del self._images[name]

    def _is_read(self, file: Found) -> bool:
        try:
            return self._hasher.known(file.signature) is not None
        except Unreadable:
            return False

    def _problem_with(self, file: Found) -> str | None:
        try:
            self._hasher.known(file.signature)
        except Unreadable as problem:
            return str(problem)
        return None
