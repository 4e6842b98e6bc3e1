"""What the system is asked for only because something is better with it.

It may refuse (an old kernel, a sandbox, a file system of another kind). That is said once, together
with what happens then, and is never a failure.
"""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

# What is wished, and what happens without it.
WITHOUT = {
    "SO_REUSEADDR": "after a restart the port may be taken for a minute",
    "IPV6_V6ONLY": "the system decides whether IPv4 is answered too",
    "TCP_NODELAY": "replies may wait for acknowledgements",
    "TCP_NOTSENT_LOWAT": "downloads take more memory of the kernel",
    "TCP_DEFER_ACCEPT": "connections take more processor time",
    "epoll": "--transport poll is used, which takes more processor time",
    "a low priority": "the controller takes as much processor time as the server",
    "a private copy of an image": "it is sent from its file, which takes more processor time",
    "getrlimit": "1,024 open files are taken for the limit",
    "statvfs": "a disk that has too little room is noticed when it is full",
    "chown": "a new file belongs to who made it; all can read it",
    "chmod": "the mount says who can read a new file",
    "a socket for figures": "requests and downloads that run are shown to nobody",
    "a time stamp": "a running server notices a change within a second",
    "fsync of a folder": "a power cut may undo a change of the last seconds",
}
_said: set[str] = set()


def wish(name: str, ask: Callable[[], object]) -> bool:
    """Ask the system for something in the table; return whether it did that."""
    try:
        ask()
    except OSError as problem:
        do_without(name, problem)
        return False
    return True


def do_without(name: str, problem: OSError) -> None:
    """Say, once in a process, that the system refuses something in the table."""
    if name not in _said:
        _said.add(name)
        log.warning("%s is refused (%s): %s", name, problem.strerror or problem, WITHOUT[name])
