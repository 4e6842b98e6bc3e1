"""Child processes: how they ended, and those that nobody else collects."""

import os
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from subprocess import Popen

# Held while one is started: it may end at once.
_lock = Lock()
_waited_for: "WeakSet[Popen[bytes]]" = WeakSet()
# No exit code has this value.
UNKNOWN = 1000


def exit_code(child: "Popen[bytes]") -> int | None:
    """Return how a child ended: its exit code, minus its signal, UNKNOWN, or None while it runs.

    Where somebody else took the status, or SIGCHLD is ignored, `Popen.poll` answers 0.
    """
    if child.returncode is None:
        try:
            ended, status = os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:
            child.returncode = UNKNOWN
        else:
            if ended:
                child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode


def started(start: "Callable[[], Popen[bytes]]") -> "Popen[bytes]":
    """Start a child for whose end somebody waits: `reap_orphans` leaves it alone."""
    with _lock:
        child = start()
        _waited_for.add(child)
        return child


def reap_orphans() -> None:
    """Collect ended processes that the system gave to us: as process 1 of a container we get all.

    A child that was not `started` here loses its exit code.
    """
    if not hasattr(os, "waitid"):
        return  # macOS, where this is not process 1
    with _lock, suppress(ChildProcessError):
        ours = {child.pid for child in _waited_for if child.returncode is None}
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in ours:
                return
            os.waitpid(ended.si_pid, 0)
