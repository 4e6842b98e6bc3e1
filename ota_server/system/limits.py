"""The limits of a process: raised as far as it may, and said where they will hurt a server."""

import logging
import resource
from contextlib import suppress

from ota_server.system.wished import do_without

log = logging.getLogger(__name__)

_FALLBACK_FILES = 10240  # macOS says "unlimited" and refuses more than this
_USUAL_FILES = 1024
_UNLIMITED = resource.RLIM_INFINITY


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it."""
    soft, hard = _limits(resource.RLIMIT_NOFILE, _USUAL_FILES)
    if soft == _UNLIMITED:
        return _FALLBACK_FILES
    for wanted in (hard, _FALLBACK_FILES):
        if wanted == _UNLIMITED or wanted <= soft:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (OSError, ValueError):
            continue
    return soft


def say_limits(file_bytes: int) -> None:
    """Raise the limits that end a server or its journal; log what is left of them.

    Args:
        file_bytes: so large a file has to become.
    """
    seconds = _raise(resource.RLIMIT_CPU)
    if seconds != _UNLIMITED:
        log.warning(
            "the system ends this server after %d s of processor time: raise that limit "
            "(ulimit -t, LimitCPU=)",
            seconds,
        )
    most = _raise(resource.RLIMIT_FSIZE)
    if most != _UNLIMITED and most < file_bytes:
        log.warning(
            "a file may have %d bytes at most, then the journal cannot be written: raise that "
            "limit (ulimit -f, LimitFSIZE=), or give a smaller --journal-rotate",
            most,
        )


def _raise(kind: int) -> int:
    """Raise a soft limit to the hard one, and return what is in force."""
    _, hard = _limits(kind)
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (hard, hard))
    return _limits(kind)[0]


def _limits(kind: int, otherwise: int = _UNLIMITED) -> tuple[int, int]:
    """Return the soft and the hard limit; `otherwise` where a sandbox keeps them secret."""
    try:
        return resource.getrlimit(kind)
    except OSError as problem:
        do_without("getrlimit", problem)
        return otherwise, otherwise
