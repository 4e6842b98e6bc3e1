"""What a channel does with its socket, and what tells of events where there is no epoll."""

import fcntl
import os
import select
import socket
import struct
import sys
import termios
from contextlib import suppress

from ota_server.httpd.reply import Copy, ImageSpan, Peer

# A whole head; what is read at once has to be allocated first.
RECEIVE_BYTES = 16 * 1024
# A device gives up after 5 to 8 s; it had better hear 503 than nothing.
HASHING_WAIT_SECONDS = 5.0
# RFC 9112 section 9.6: closing at once could reset the connection before our reply is read.
LINGER_SECONDS = 1.0
# No event tells that the other side has acknowledged something; it is asked this often, ever less.
ACK_POLL_SECONDS = (0.002, 0.5)
# What is looked at once more before it leaves; with less than this a client has no whole image.
TAIL_BYTES = 64 * 1024
# Which addresses are this machine's own is asked from the kernel once for each.
_KEPT_PEERS = 10_000
_peers: dict[str, Peer] = {}
_INT = bytes(4)
_LINGER_NOT = struct.pack("ii", 1, 0)
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer, acknowledged ones not counted


class ImageChanged(Exception):
    """The file was cut or written to under the download: end it here, never mix."""


class ImageWithdrawn(ImageChanged):
    """Nobody may have any more of the image; what the kernel still holds of it goes too."""


def unacknowledged_bytes(sock: socket.SocketType) -> int:
    """Return how many bytes of those sent the other side has not acknowledged, FIN included.

    `send` returns when the kernel has taken the bytes: measured, a socket took a whole 73 KB image
    while its client had read none. Linux: SIOCOUTQ (tcp(7)); macOS: SO_NWRITE.
    """
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _INT)
    return int.from_bytes(answer, sys.byteorder)


def peer_of(sock: socket.SocketType, address: str) -> Peer:
    """Return who is at the other end; an IPv4 address is written plain, also on a dual socket."""
    peer = _peers.get(address)
    if peer is None:
        if len(_peers) >= _KEPT_PEERS:
            _peers.clear()
        peer = _peers[address] = _look_at_peer(sock, address)
    return peer


def _look_at_peer(sock: socket.SocketType, address: str) -> Peer:
    plain = address.removeprefix("::ffff:") if "." in address else address
    if plain == "::1" or plain.startswith("127."):
        return Peer(plain, True)
    try:
        here = str(sock.getsockname()[0])
    except OSError:
        here = ""
    return Peer(plain, address == here)


def send_copy(sock: socket.SocketType, span: ImageSpan, copy: Copy, offset: int, most: int) -> int:
    """Have the kernel send a span from `offset` until the socket is full; return how many bytes.

    It ends after `most` bytes.

    Raises:
        BlockingIOError: the socket takes none now.
        ImageChanged: these are the last bytes of the span, and the file of the image has changed:
            what an operator has replaced must not be completed.
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
    except (OSError, ImageChanged):
        # What went before it was sent, and counts; the next call meets the same again.
        if at == offset:
            raise
    return at - offset


def refuse_withdrawn(span: ImageSpan) -> None:
    """End a transfer of an image that was withdrawn meanwhile.

    Raises:
        ImageWithdrawn: it was.
    """
    if span.image.is_withdrawn:
        raise ImageWithdrawn(f"{span.image.version} was withdrawn")


def discard_unsent(sock: socket.SocketType) -> None:
    """Have the close of a socket drop what the other side has not got yet: it is reset."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)


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
    # After the read and before the send: what is sent was read from an unchanged file.
    if offset + length > span.stop - TAIL_BYTES and not image.is_unchanged():
        raise ImageChanged(f"the image of {image.version} was written to")
    return chunk


class PollPoller:
    """`select.poll` with the methods of `select.epoll`, where that is missing."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds; return descriptors and their events."""
        return self._poll.poll(timeout * 1000)

    def close(self) -> None:
        """Do nothing: there is no descriptor behind it."""
