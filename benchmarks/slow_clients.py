"""Ten thousand slow devices in one process: each reads a little once a second, or nothing at all.

    python -m benchmarks.slow_clients --port P --path /firmware.bin [--clients 10000]
        [--bytes-a-second 4096] [--seconds 15] [--expect FILE]

Prints two lines of JSON: one when all clients are answered (or the time for that is over), and one
after the seconds that count. A turn of a client reads its share of a second, and of what earlier
turns did not find: a window that has closed opens by pieces, not by the byte. That goes back four
turns; what comes later than that counts as not delivered.
"""

import argparse
import heapq
import json
import resource
import select
import socket
import time
from collections import Counter
from pathlib import Path

_MOST_CONNECTING = 200
_SOURCES = 16  # addresses 127.0.0.2 and on, or ports run out
_HEAD_BYTES = 16384
_MOST_OWED = 4  # turns


class SlowClient:
    """One device: its connection, and how far it is.

    Attributes:
        error: why it is not answered, or not served any longer.
        owed: the bytes that its turns should have read and did not find.
    """

    def __init__(self, number: int, port: int, receive_buffer: int) -> None:
        """Begin to connect, from an address that depends on the number."""
        self.number = number
        self.answered = False
        self.error = ""
        self.owed = 0
        self._head = b""
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if receive_buffer:
            # Before connecting, for the window that is offered with the first packet.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind((f"127.0.0.{2 + number % _SOURCES}", 0))
        self.sock.connect_ex(("127.0.0.1", port))

    def ask(self, path: str) -> None:
        """Send the request; the connection is there."""
        mac = (0x020000000000 + self.number).to_bytes(6, "big").hex(":")
        head = f"GET {path} HTTP/1.1\r\nHost: ota\r\n_br_mac_: {mac}\r\n_br_fwv_: v1.0.0\r\n\r\n"
        try:
            self.sock.send(head.encode())
        except OSError as problem:
            self.error = str(problem)

    def hear(self, expected: bytes) -> None:
        """Take the head and the first bytes of the body, and look whether they are right."""
        part = self._receive(1024)
        if part is None or self.error:
            return
        self._head += part
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            self.error = "a long head" if len(head) > _HEAD_BYTES else ""
        elif head.split(b" ", 2)[1:2] != [b"200"]:
            self.error = head.split(b"\r\n")[0].decode("latin-1")
        elif not expected.startswith(body[: len(expected)]):
            self.error = "other bytes than the image has"
        elif body:
            self.answered = True

    def read(self, share: int) -> int:
        """Take a turn and return how many bytes were there."""
        self.owed = min(self.owed + share, share * _MOST_OWED)
        found = len(self._receive(self.owed) or b"")
        self.owed -= found
        return found

    def is_open(self) -> bool:
        """Say whether an idle connection is still there; what has come in is thrown away."""
        self._receive(_HEAD_BYTES)
        return not self.error

    def _receive(self, most: int) -> bytes | None:
        try:
            part = self.sock.recv(most)
        except BlockingIOError:
            return None
        except OSError as problem:
            self.error = str(problem)
            return None
        if not part:
            self.error = "closed by the server"
        return part


class Crowd:
    """All clients: they connect a few at a time; those that are answered take their turns."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._poller = select.epoll()
        self._waiting: dict[int, SlowClient] = {}
        self._turns: list[tuple[float, int]] = []
        self._began = time.monotonic()
        self.clients: list[SlowClient] = []
        self.received = 0
        file: Path | None = arguments.expect
        self._expected = b"" if file is None else file.read_bytes()[:4096]

    @property
    def answered(self) -> int:
        """How many got a 200 with the right first bytes, and still have their connection."""
        return sum(client.answered and not client.error for client in self.clients)

    def connect(self) -> None:
        """Connect all; return when each is answered or refused, or when the time is over."""
        most = self._arguments.clients
        give_up_at = self._began + self._arguments.ramp_seconds
        while time.monotonic() < give_up_at and (self._waiting or len(self.clients) < most):
            while len(self.clients) < most and len(self._waiting) < _MOST_CONNECTING:
                client = SlowClient(
                    len(self.clients), self._arguments.port, self._arguments.receive_buffer
                )
                self.clients.append(client)
                self._waiting[client.sock.fileno()] = client
                self._poller.register(client.sock, select.EPOLLOUT)
            self._take_events()
            self._take_turns()
        for client in self._waiting.values():
            client.error = "no answer"

    def stay(self, seconds: float) -> None:
        """Let the answered clients take their turns for so long."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._take_turns()
            next_at = self._turns[0][0] if self._turns else until
            time.sleep(max(0.0, min(next_at, until) - now))

    def forget(self) -> None:
        """Begin to count anew."""
        self.received = 0
        for client in self.clients:
            client.owed = 0

    def _take_events(self) -> None:
        for descriptor, events in self._poller.poll(0.001):
            client = self._waiting[descriptor]
            if events & select.EPOLLOUT:
                client.ask(self._arguments.path)
                self._poller.modify(descriptor, select.EPOLLIN)
            else:
                client.hear(self._expected)
            if client.answered or client.error:
                self._poller.unregister(descriptor)
                del self._waiting[descriptor]
                if client.answered and self._arguments.bytes_a_second:
                    self._add_turn(client)

    def _add_turn(self, client: SlowClient) -> None:
        """Give a client its place in the second, so that turns are spread evenly over it."""
        now = time.monotonic()
        place = self._began + client.number / self._arguments.clients
        heapq.heappush(self._turns, (now + (place - now) % 1.0, client.number))

    def _take_turns(self) -> None:
        now = time.monotonic()
        while self._turns and self._turns[0][0] <= now:
            due, number = self._turns[0]
            client = self.clients[number]
            self.received += client.read(self._arguments.bytes_a_second)
            if client.error:
                heapq.heappop(self._turns)
            else:
                heapq.heapreplace(self._turns, (due + 1.0, number))


def run(arguments: argparse.Namespace) -> None:
    """Connect, say so, take the turns, say what was delivered."""
    crowd = Crowd(arguments)
    began = time.monotonic()
    crowd.connect()
    if arguments.bytes_a_second:
        crowd.stay(arguments.settle_seconds)
    print(json.dumps({"answered": crowd.answered, "ramp": time.monotonic() - began}), flush=True)
    crowd.forget()
    crowd.stay(arguments.seconds)
    wanted = arguments.clients * arguments.bytes_a_second * arguments.seconds
    if not arguments.bytes_a_second:
        for client in crowd.clients:
            client.is_open()
    errors = Counter(client.error for client in crowd.clients if client.error)
    report = {"answered": crowd.answered, "errors": dict(errors.most_common(5))}
    print(json.dumps({**report, "delivery": crowd.received / wanted if wanted else 1.0}))


def main(argv: list[str] | None = None) -> None:
    """Run `python -m benchmarks.slow_clients`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--clients", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--bytes-a-second", type=int, default=4096, help="0: stay idle")
    parser.add_argument("--seconds", type=float, default=15.0, help="default: %(default)s")
    parser.add_argument("--settle-seconds", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument("--ramp-seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--receive-buffer", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--expect", type=Path, help="the file whose first bytes must come")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
