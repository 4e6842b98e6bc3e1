"""Sending on a socket: as much as the client takes, and as fast as pacing allows.

A span of an image is sent with sendfile if there is a private copy of the image, else it is read
and sent (docs/adr/0003). It may have to wait first, for the disk or for its time.
"""

import logging
import socket
from threading import Lock

from ota_server.httpd.pacing import Pace, Pacing
from ota_server.httpd.readahead import WINDOW_BYTES, ReadAhead, Reading
from ota_server.httpd.reply import Copy, ImageBytes, ImageSpan
from ota_server.httpd.sockets import SendfileRefused, read_unchanged, send_copy

log = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
_LEAST_CHUNK_BYTES = 16 * 1024
_MORE = getattr(socket, "MSG_MORE", 0)
# Senders in several threads may share a line.
_pacing_lock = Lock()


class Sender:
    """A socket and what is still to be sent on it."""

    __slots__ = (
        "_ahead",
        "_by_sendfile",
        "_chunk_bytes",
        "_offset",
        "_outgoing",
        "_pace",
        "_paced_until",
        "_pacing",
        "_reading",
        "_sent_bytes",
        "sock",
    )

    def __init__(
        self,
        sock: socket.SocketType,
        ahead: ReadAhead | None,
        by_sendfile: bool,
        pacing: Pacing | None,
    ) -> None:
        """Take a socket.

        Args:
            ahead: reads what is not in memory; None if the caller may wait for a disk.
            pacing: how fast images are sent; None for as fast as the client takes them.
        """
        sock.setblocking(False)
        self.sock = sock
        self._ahead = ahead
        self._by_sendfile = by_sendfile
        self._chunk_bytes = _CHUNK_BYTES
        self._outgoing: tuple[memoryview | ImageSpan, ...] = ()
        self._offset = 0  # in the first of these, if that is a span
        self._sent_bytes = 0  # since the connection began
        self._pacing = pacing
        self._pace: Pace | None = None
        self._paced_until: float | None = None
        self._reading: Reading | None = None

    @property
    def holds_back(self) -> bool:
        """Whether the rest must not be sent yet, even if the socket has room."""
        return self._reading is not None or self._paced_until is not None

    def _send_window(self, now: float) -> bool:
        """Send as much as the client takes, but no more than a window: others wait.

        Returns:
            Whether nothing is left.

        Raises:
            OSError: the connection is gone.
            ImageChanged: the image was cut or written to.
        """
        left = WINDOW_BYTES
        was_looked_at = False
        self._paced_until = None
        try:
            while self._outgoing and left > 0:
                piece = self._outgoing[0]
                if isinstance(piece, ImageSpan):
                    if not was_looked_at and not self._is_in_memory(piece, now):
                        return False
                    was_looked_at = True
                    most = WINDOW_BYTES if self._pacing is None else self._allowed(piece, now)
                    if most == 0:
                        return False
                    sent, wanted = self._send_span(piece, most)
                else:
                    wanted = len(piece)
                    sent = self._send_bytes(piece, is_last=len(self._outgoing) == 1)
                self._sent_bytes += sent
                if sent < wanted:
                    return False  # the socket is full; trying again costs a system call
                left -= sent
        except BlockingIOError:
            return False
        return not self._outgoing

    def _is_in_memory(self, span: ImageSpan, now: float) -> bool:
        """Return whether the next window of an image is in memory; if not, start reading it."""
        if self._ahead is None:
            return True
        if self._reading is not None:
            reading, self._reading = self._reading, None
            if reading.is_done:
                return True
        image, start = span.image, self._offset or span.start
        copy = self._copy_to_send(image)
        descriptor = image.descriptor if copy is None else copy.descriptor
        last = min(start + WINDOW_BYTES, span.stop) - 1
        if self._ahead.needs(descriptor, start, last, now):
            self._reading = self._ahead.begin(image, descriptor, start)
        return self._reading is None

    def _allowed(self, span: ImageSpan, now: float) -> int:
        """Return how many bytes of an image may be sent now; 0 means none before `_paced_until`."""
        assert self._pacing is not None
        if self._pace is None:
            self._pace = self._pacing.pace()
        with _pacing_lock:
            most = self._pace.allowed(span.stop - (self._offset or span.start), now)
        self._paced_until = None if most else self._pace.due
        return most

    def _send_bytes(self, piece: memoryview, is_last: bool) -> int:
        sent = self.sock.send(piece, 0 if is_last else _MORE)
        self._go_on(piece[sent:] if sent < len(piece) else None)
        return sent

    def _copy_to_send(self, image: ImageBytes) -> Copy | None:
        """Return the copy that is sent with sendfile; None: the image is read and sent."""
        copy = image.copy
        return None if copy is None or not self._by_sendfile or copy.is_unsendable else copy

    def _send_span(self, span: ImageSpan, most: int) -> tuple[int, int]:
        """Send up to `most` bytes of an image; return how many were sent, and how many tried."""
        start = self._offset or span.start
        copy = self._copy_to_send(span.image)
        if copy is not None:
            length = min(span.stop - start, most)
            try:
                sent = send_copy(self.sock, span, copy, start, length)
            except SendfileRefused as problem:
                copy.is_unsendable = True
                log.warning(
                    "sendfile is refused for the image of %s: %s; it is read and sent instead, "
                    "which takes twice the processor time",
                    span.image.version,
                    problem,
                )
                return self._send_span(span, most)
        else:
            length = min(self._chunk_bytes, span.stop - start, most)
            sent = self.sock.send(read_unchanged(span, start, length))
            # A slow client takes little at a time: do not read more than it will take.
            self._chunk_bytes = (
                _CHUNK_BYTES if sent == length else max(_LEAST_CHUNK_BYTES, 2 * sent)
            )
        if self._pace is not None:
            self._pace.sent(sent)
        self._offset = start + sent
        if self._offset == span.stop:
            self._go_on(None)
        return sent, length

    def _go_on(self, rest: memoryview | None) -> None:
        """Replace the first piece with its rest, or drop it."""
        rest_of_it = () if rest is None else (rest,)
        self._outgoing = (*rest_of_it, *self._outgoing[1:])
        self._offset = 0
