"""Live figures: a running server says how it is, over the Unix socket `log/figures.sock`. I/O.

Whoever connects gets one JSON object and the end of the connection; nothing is read from it. The
chores of the server answer, ten times a second, so that no request ever waits for this.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ota_server.device_port.live_figures import MOST_BYTES, LiveFigures, as_bytes, parse_figures
from ota_server.system.new_files import if_allowed
from ota_server.system.wished import do_without

FILE_NAME = "figures.sock"
SOCKET_MODE = 0o600
# How long readers wait: chores are done ten times a second, and a long one takes a second.
READ_SECONDS = 2.0
# The least that systems have room for in a path is 104 bytes, with a zero at its end.
_MOST_PATH_BYTES = 100
_ANSWERED_AT_ONCE = 8
_LOOK_SECONDS = 1.0


class FiguresSocket:
    """Answers with figures whoever connects. Used by one thread.

    It never waits: who does not take the answer gets a part of it.
    """

    def __init__(self, log_dir: Path, figures: Callable[[], Mapping[str, Any]]) -> None:
        """Make the socket at the first look.

        Args:
            figures: makes what is sent, at most once a look.
        """
        self._dir = log_dir
        self._figures = figures
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._look_at = 0.0

    def look_after(self) -> None:
        """Answer those who have connected; make the socket again if it was deleted."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            if self._listener is None or _identity_of(self._dir) != self._identity:
                self._open()
        content = None
        for _ in range(_ANSWERED_AT_ONCE):
            client = self._accepted()
            if client is None:
                return
            with client:
                if content is None:
                    content = as_bytes(self._figures())
                _send(client, content)

    def remove(self) -> None:
        """Close and delete the socket."""
        self._close()
        if self._identity is not None and _identity_of(self._dir) == self._identity:
            with suppress(OSError):
                os.unlink(self._dir / FILE_NAME)

    def _accepted(self) -> socket.socket | None:
        if self._listener is None:
            return None
        try:
            return self._listener.accept()[0]
        except OSError:
            return None  # nobody is there, or no descriptor is left for it

    def _open(self) -> None:
        self._close()
        try:
            self._listener = _listen(self._dir)
        except OSError as problem:
            do_without("a socket for figures", problem)
            return
        self._identity = _identity_of(self._dir)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def read_figures(log_dir: Path, timeout: float = READ_SECONDS) -> LiveFigures | None:
    """Return what the server of a folder says of itself; None: none answers.

    Args:
        log_dir: the folder of the journal, which all products share.
        timeout: in seconds, for all of it.
    """
    give_up_at = time.monotonic() + timeout
    content = b""
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours,
            _short_path(log_dir, FILE_NAME) as path,
        ):
            ours.settimeout(timeout)
            ours.connect(path)
            while len(content) <= MOST_BYTES:
                ours.settimeout(max(give_up_at - time.monotonic(), 0.001))
                part = ours.recv(MOST_BYTES)
                if not part:
                    return parse_figures(content)
                content += part
    except (OSError, ValueError):
        return None
    return None


def _listen(log_dir: Path) -> socket.socket:
    """Return a socket that listens; it replaces what a server that was killed has left there.

    Raises:
        OSError: it cannot be made.
    """
    name = f".{FILE_NAME}.new"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            os.unlink(log_dir / name)
        listener.setblocking(False)
        with _short_path(log_dir, name) as path:
            # Linux makes it with this mode; elsewhere nobody listens before it has that.
            with suppress(OSError):
                os.fchmod(listener.fileno(), SOCKET_MODE)
            listener.bind(path)
        _make_ours(log_dir, name)
        listener.listen(_ANSWERED_AT_ONCE)
        os.rename(log_dir / name, log_dir / FILE_NAME)
    except OSError:
        listener.close()
        raise
    return listener


def _make_ours(log_dir: Path, name: str) -> None:
    """Let only the server's user connect. Links are not followed: it may be one by now."""
    folder = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if os.geteuid() == 0 and status.st_uid:
            with if_allowed("chown", log_dir / name):
                os.chown(name, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
        if os.chmod in os.supports_follow_symlinks:
            with if_allowed("chmod", log_dir / name):
                os.chmod(name, SOCKET_MODE, dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(folder)


@contextmanager
def _short_path(log_dir: Path, name: str) -> Iterator[str]:
    """Give a path to a socket that is short enough for the system.

    Raises:
        OSError: there is none.
    """
    path = str(log_dir / name)
    if len(os.fsencode(path)) <= _MOST_PATH_BYTES:
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(errno.ENAMETOOLONG, f"the path is over {_MOST_PATH_BYTES} bytes", path)
    folder = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def _identity_of(log_dir: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(log_dir / FILE_NAME)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _send(client: socket.socket, content: bytes) -> None:
    """Send what the kernel takes; less where it has no room for all of it."""
    with suppress(OSError):
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST_BYTES)
        client.send(content)
