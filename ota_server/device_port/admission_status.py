"""What a running server says about itself to other processes: `log/admission.json`. I/O.

Which devices it lets in, and what keeps it from offering rollouts: everything that decides about
offers and is in no other file.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ota_server.device_port.window import Standing
from ota_server.model.json_object import parse_object
from ota_server.model.version import Target
from ota_server.policy.situation import ServerState, Serving
from ota_server.system.files import open_regular, replace
from ota_server.system.locks import is_served

log = logging.getLogger(__name__)

FILE_NAME = "admission.json"
NOT_SAID = Serving()
_EVERY_SECONDS = 1.0
# How often its time is renewed. The lock says nothing of a server that hangs: it is still held.
_SIGN_SECONDS = 10.0
_MAX_BYTES = 256 * 1024
# A block of most disks: on a full disk there is still room to overwrite the file, and just then
# others have to learn that the journal cannot be written.
_PADDED_BYTES = 4096


class AdmissionFile:
    """Keeps the file up to date while a server runs."""

    def __init__(
        self,
        log_dir: Path,
        ask: Callable[[], tuple[Standing, ServerState]],
        serving: Serving = NOT_SAID,
    ) -> None:
        self._path = log_dir / FILE_NAME
        self._ask = ask
        self._serving = serving
        self._written: tuple[Standing, ServerState] | None = None
        self._look_at = self._sign_at = 0.0
        self._said = False

    def look_after(self) -> None:
        """Write the file if something has changed, once a second at most; show signs of life."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _EVERY_SECONDS
            self.write()
        if now >= self._sign_at:
            self._sign_at = now + _SIGN_SECONDS
            with suppress(OSError):
                os.utime(self._path)

    def write(self) -> None:
        """Write the file if something has changed."""
        said = self._ask()
        if said == self._written:
            return
        fields = {**_fields(*said), "serving": self._serving._asdict()}
        content = json.dumps(fields).encode("ascii").ljust(_PADDED_BYTES)
        try:
            try:
                replace(self._path, content)
            except OSError:
                _write_over(self._path, content)
            self._written = said
            self._said = False
        except OSError as problem:
            if not self._said:
                self._said = True
                log.warning("%s cannot be written: %s", self._path, problem.strerror)

    def remove(self) -> None:
        """Delete the file, since nothing in it is true without a server."""
        with suppress(OSError):
            self._path.unlink()


def _write_over(path: Path, content: bytes) -> None:
    """Overwrite a file with one call, so that readers see all of the new content or none."""
    with open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb", 0) as file:
        # The old content may have been longer; blanks at the end mean nothing.
        size = os.fstat(file.fileno()).st_size
        file.write(content.ljust(size))


def _fields(standing: Standing, state: ServerState) -> dict[str, Any]:
    fields = {**standing._asdict(), **state._asdict()}
    del fields["runs"]
    fields["attended"] = None if state.attended is None else sorted(state.attended)
    fields["let_in"] = sorted(state.let_in)
    return fields


def _read(log_dir: Path) -> dict[str, Any]:
    with open(open_regular(log_dir / FILE_NAME), "rb") as file:
        return parse_object(file.read(_MAX_BYTES))


def read_standing(log_dir: Path) -> Standing:
    """Return which devices the server of a folder lets in; all, if the file does not say."""
    try:
        fields = _read(log_dir)
        return Standing(**{name: fields[name] for name in Standing._fields})
    except (OSError, ValueError, TypeError, KeyError):
        return Standing()


def read_serving(log_dir: Path) -> Serving:
    """Return where and since when the server of a folder runs, as far as the file says it."""
    try:
        serving = Serving(**_read(log_dir)["serving"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return NOT_SAID
    is_right = all(type(one) is type(other) for one, other in zip(serving, NOT_SAID, strict=True))
    return serving if is_right else NOT_SAID


def quiet_ms(log_dir: Path, now_ms: int) -> int:
    """Return for how long the server of a folder has shown no sign of life, by its file."""
    try:
        return max(now_ms - os.lstat(log_dir / FILE_NAME).st_mtime_ns // 1_000_000, 0)
    except OSError:
        return 0


def read_server_state(log_dir: Path) -> ServerState:
    """Return what the server of a folder says about itself, or that none runs."""
    if not is_served(log_dir):
        return ServerState()
    try:
        fields = _read(log_dir)
        state = ServerState(
            **{name: fields[name] for name in ServerState._fields if name != "runs"}, runs=True
        )
        attended, last_good = state.attended, state.last_good
        return state._replace(
            attended=None if attended is None else frozenset(attended),
            let_in=frozenset(state.let_in),
            unserved=dict(state.unserved),
            last_good=None if last_good is None else Target(*last_good),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ServerState(runs=True)
