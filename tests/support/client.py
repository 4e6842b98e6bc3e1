"""A raw socket that speaks HTTP, and the device that it speaks for."""

import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

MAC = "00:11:22:33:44:55"
DEVICE = {"_br_mac_": MAC, "_br_fwv_": "v1.0.0"}
TIMEOUT_SECONDS = 20.0


class Answer(NamedTuple):
    """A reply as it came over the wire; names of fields in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes
    head: bytes


class Client:
    """A raw socket that speaks HTTP as far as a test wants it to."""

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        source: str | None = None,
    ) -> None:
        """Connect, from the address `source` where that is given."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if source is not None:
            self.sock.bind((source, 0))
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect((host, port))
        self._buffer = bytearray()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def request(self, path: str, fields: Mapping[str, str] = DEVICE, method: str = "GET") -> None:
        """Send a request head."""
        self.send(request_head(path, fields, method))

    def read_until(self, mark: bytes) -> bytes:
        """Return what arrives up to and with `mark`; less if the connection ends before."""
        while mark not in self._buffer:
            part = self.sock.recv(65536)
            if not part:
                break
            self._buffer += part
        end = self._buffer.find(mark)
        end = len(self._buffer) if end < 0 else end + len(mark)
        return self._take(end)

    def read(self, length: int) -> bytes:
        """Return `length` bytes; fewer if the connection ends before."""
        while len(self._buffer) < length:
            part = self.sock.recv(65536)
            if not part:
                break
            self._buffer += part
        return self._take(length)

    def read_all(self) -> bytes:
        """Return all up to the end of the connection."""
        while part := self.sock.recv(65536):
            self._buffer += part
        return self._take(len(self._buffer))

    def _take(self, length: int) -> bytes:
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content

    def answer(self, method: str = "GET") -> Answer:
        """Read one reply."""
        head = self.read_until(b"\r\n\r\n")
        status, fields = parse_reply_head(head)
        length = int(fields.get("content-length", "0"))
        body = b"" if method == "HEAD" or status == 304 else self.read(length)
        return Answer(status, fields, body, head)

    def reset(self) -> None:
        """Close by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def request_head(path: str, fields: Mapping[str, str] = DEVICE, method: str = "GET") -> bytes:
    """Return a request head with a Host field."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\nHost: ota\r\n{lines}\r\n".encode("latin-1")


def parse_reply_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and fields of a reply head; fails where it is none."""
    lines = head.decode("latin-1").split("\r\n")
    version, status, _ = lines[0].split(" ", 2)
    assert version == "HTTP/1.1", head
    fields = dict(line.split(": ", 1) for line in lines[1:-2])
    return int(status), {name.lower(): value for name, value in fields.items()}


def until(
    condition: Callable[[], bool], seconds: float = TIMEOUT_SECONDS, pause_seconds: float = 0.005
) -> bool:
    """Wait for what nothing tells of, such as a line in a file; False when it did not come."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= give_up_at:
            return False
        select.select([], [], [], pause_seconds)
    return True
