"""What a running server says of whom it lets in, for commands: `log/admission.json`. I/O."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ota_server.device_port.window import Standing
from ota_server.system.files import open_regular, replace

log = logging.getLogger(__name__)

FILE_NAME = "admission.json"
_EVERY_SECONDS = 1.0
_MAX_BYTES = 64 * 1024


class AdmissionFile:
    """Keeps the file up to date while a server runs."""

    def __init__(self, log_dir: Path, ask: Callable[[], Standing]) -> None:
        self._path = log_dir / FILE_NAME
        self._ask = ask
        self._written: Standing | None = None
        self._look_at = 0.0
        self._said = False

    def look_after(self) -> None:
        """Write what has changed, once a second at most."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _EVERY_SECONDS
        standing = self._ask()
        if standing == self._written:
            return
        try:
            replace(self._path, (json.dumps(standing._asdict()) + "\n").encode("ascii"))
            self._written = standing
        except OSError as problem:
            if not self._said:
                self._said = True
                log.warning("%s cannot be written: %s", self._path, problem.strerror)

    def remove(self) -> None:
        """Leave nothing behind that is not so any more."""
        with suppress(OSError):
            self._path.unlink()


def read_standing(log_dir: Path) -> Standing:
    """Return whom the server lets in that runs on a folder; everybody, where nothing says so."""
    try:
        with open(open_regular(log_dir / FILE_NAME), "rb") as file:
            fields = json.loads(file.read(_MAX_BYTES))
        return Standing(**{name: fields[name] for name in Standing._fields})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Standing()
