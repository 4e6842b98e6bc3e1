"""Which image a device gets since it has its digest: in memory, for a minute."""

from collections import OrderedDict
from threading import Lock

from ota_server.model.device import Download
from ota_server.model.version import same_version

# How long the image stays that of the digest, and of how many devices that is kept.
_PROMISE_MS, _MOST_PROMISES = 60_000, 10_000


class Promises:
    """The images of which devices have the digest. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._images: OrderedDict[str, tuple[Download, str, int]] = OrderedDict()

    def make(self, key: str, running: str, download: Download, now_ms: int) -> None:
        """Note of which image a device was given the digest, and which release it ran then."""
        with self._lock:
            self._images[key] = download, running, now_ms
            self._images.move_to_end(key)
            if len(self._images) > _MOST_PROMISES:
                self._images.popitem(last=False)

    def of(self, key: str, running: str, now_ms: int) -> Download | None:
        """Return the image of which a device has the digest since less than a minute.

        Args:
            running: the release that it runs now. If it has installed that image since, None.
        """
        if key not in self._images:
            return None
        with self._lock:
            download, ran, at_ms = self._images.get(key, (None, "", 0))
        if download is None or not 0 <= now_ms - at_ms < _PROMISE_MS:
            return None
        has_it = same_version(running, download.version) and not same_version(running, ran)
        return None if has_it else download
