"""What a channel does with its socket, and a poller for systems without epoll."""

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from contextlib import suppress

from ota_server.httpd.reply import Copy, ImageSpan, Peer
from ota_server.model.address import is_loopback

# A new socket is in blocking mode, and stays so if it is closed after one quick reply.
NOW = socket.MSG_DONTWAIT
# For a reply before a close: the kernel sends it and the FIN in one segment, which saves a quarter
# of the processor time of a check (benchmarks/).
LAST = NOW | getattr(socket, "MSG_MORE", 0)
# Enough for a whole head; each read allocates so much first.
RECEIVE_BYTES = 16 * 1024
# A device gives up after 5 to 8 s; a 503 is better than no answer.
HASHING_WAIT_SECONDS = 5.0
# RFC 9112 section 9.6: closing at once could reset the connection before our reply is read.
LINGER_SECONDS = 1.0
# No event reports acknowledgements, so the kernel is asked for them, less and less often.
ACK_POLL_SECONDS = (0.002, 0.5)
# Before the last bytes of an image are sent, its file is checked again.
TAIL_BYTES = 64 * 1024
# The kernel is asked once for each address whether it belongs to this machine.
_KEPT_PEERS = 10_000
_peers: dict[str, Peer] = {}
_INT = bytes(4)
_NO_LINGER = struct.pack("ii", 1, 0)
_SO_NWRITE = 0x1024  # macOS: the unacknowledged bytes in the send buffer


# What sendfile raises if a sandbox, a file system or a disk refuses it; not about the connection.
_REFUSALS = frozenset(
    (
        errno.EINVAL,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EACCES,
        errno.EIO,
        errno.ENOMEM,
    )
)


class SendfileRefused(Exception):
    """The system does not send this file with sendfile: read its bytes and send them."""


class ImageChanged(Exception):
    """The file was cut or changed during the download: end it, never mix two images."""


class ImageWithdrawn(ImageChanged):
    """No more of the image may be sent, not even what the kernel still holds."""


def unacknowledged_bytes(sock: socket.SocketType) -> int:
    """Return how many sent bytes the other side has not acknowledged; a FIN counts as one.

    `send` returns when the kernel has the bytes: in a test a socket took a whole image of 73 KB
    before its client had read any. Linux: SIOCOUTQ (tcp(7)); macOS: SO_NWRITE.
    """
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _INT)
    return int.from_bytes(answer, sys.byteorder)


def why_acknowledgements_are_unknown(family: int) -> str | None:
    """Return why the system does not tell `unacknowledged_bytes` of a socket; None: it does."""
    try:
        with socket.socket(family) as unconnected:
            unacknowledged_bytes(unconnected)
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def peer_of(sock: socket.SocketType, address: str) -> Peer:
    """Return the other end; an IPv4 address is written plain, also on a dual-stack socket."""
    peer = _peers.get(address)
    if peer is None:
        if len(_peers) >= _KEPT_PEERS:
            _peers.clear()
        peer = _peers[address] = _look_at_peer(sock, address)
    return peer


def _look_at_peer(sock: socket.SocketType, address: str) -> Peer:
    plain = address.removeprefix("::ffff:") if "." in address else address
    if is_loopback(plain):
        return Peer(plain, True)
    try:
        here = str(sock.getsockname()[0])
    except OSError:
        here = ""
    return Peer(plain, address == here)


def send_copy(sock: socket.SocketType, span: ImageSpan, copy: Copy, offset: int, most: int) -> int:
    """Let the kernel send up to `most` bytes of a span from `offset`; return how many it sent.

    Raises:
        BlockingIOError: the socket takes none now.
        SendfileRefused: the system cannot send it in this way.
        ImageChanged: these are the last bytes of the span, and the file of the image has changed: a
            download of a replaced image must not complete.
        OSError: the connection is gone.
    """
    refuse_withdrawn(span)
    out, source, at = sock.fileno(), copy.descriptor, offset
    tail = max(offset, span.stop - TAIL_BYTES)
    stop = min(offset + most, span.stop)
    try:
        while at < min(tail, stop):
            at += _sent(os.sendfile(out, source, at, min(tail, stop) - at))
        if at == tail and not span.image.is_unchanged():
            raise ImageChanged(f"the image of {span.image.version} was written to")
        while at < stop:
            at += _sent(os.sendfile(out, source, at, stop - at))
    except (OSError, ImageChanged) as problem:
        # The bytes before the error were sent and count; the next call meets the error again.
        if at > offset:
            return at - offset
        if isinstance(problem, OSError) and problem.errno in _REFUSALS:
            raise SendfileRefused(problem.strerror) from problem
        raise
    return at - offset


def refuse_withdrawn(span: ImageSpan) -> None:
    """Raise ImageWithdrawn if the image was withdrawn meanwhile."""
    if span.image.is_withdrawn:
        raise ImageWithdrawn(f"{span.image.version} was withdrawn")


def discard_unsent(sock: socket.SocketType) -> None:
    """Make the close of a socket reset it and drop everything unacknowledged."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _sent(length: int) -> int:
    if length == 0:
        raise ImageChanged("the private copy of an image is too short")
    return length


def read_unchanged(span: ImageSpan, offset: int, length: int) -> bytes:
    """Return `length` bytes of an image from `offset`.

    Raises:
        ImageChanged: the file was cut or cannot be read; or these are among the last bytes of the
            span, and the file has changed since it was hashed.
    """
    refuse_withdrawn(span)
    image = span.image
    try:
        chunk = image.read(offset, length)
    except OSError as problem:
        raise ImageChanged(f"the image of {image.version}: {problem.strerror}") from problem
    if len(chunk) < length:
        raise ImageChanged(f"the image of {image.version} was cut")
    # Checked after the read: so these bytes were read from an unchanged file.
    if offset + length > span.stop - TAIL_BYTES and not image.is_unchanged():
        raise ImageChanged(f"the image of {image.version} was written to")
    return chunk


class PollPoller:
    """`select.poll` with the methods of `select.epoll`."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Return descriptors and their events after up to `timeout` seconds."""
        return self._poll.poll(timeout * 1000)

    def close(self) -> None:
        """Do nothing: there is no descriptor behind it."""
