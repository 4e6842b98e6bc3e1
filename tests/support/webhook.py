"""A receiver of notices by HTTP, as badly behaved as a test wants it.

Not by `http.server`: in the process of a server under test that is the lean one, without a parser.
"""

import json
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

# What answers a request: its status, its bytes, or what writes them.
Reaction = int | bytes | Callable[[IO[bytes]], None]


class Posted(NamedTuple):
    """A request that came; names of fields in lower case."""

    path: str
    fields: Mapping[str, str]
    body: bytes

    @property
    def notice(self) -> dict[str, Any]:
        """The notice in it."""
        notice: dict[str, Any] = json.loads(self.body)
        return notice


class WebhookReceiver:
    """Listens on a free port; each request gets the next reaction, the last one for ever."""

    def __init__(self, *reactions: Reaction, context: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        left = list(reactions or (204,))
        self.ended = threading.Event()
        receiver = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                first = self.rfile.readline().decode("latin-1").split()
                fields: dict[str, str] = {}
                while line := self.rfile.readline().decode("latin-1").strip():
                    name, _, value = line.partition(":")
                    fields[name.lower()] = value.strip()
                body = self.rfile.read(int(fields["content-length"]))
                assert first[::2] == ["POST", "HTTP/1.1"], first
                receiver.posted.append(Posted(first[1], fields, body))
                reaction = left.pop(0) if len(left) > 1 else left[0]
                if callable(reaction):
                    reaction(self.wfile)
                elif isinstance(reaction, bytes):
                    self.wfile.write(reaction)
                else:
                    answer = f"HTTP/1.1 {reaction} x\r\nContent-Length: 0\r\n\r\n"
                    self.wfile.write(answer.encode("ascii"))

        class Server(socketserver.ThreadingTCPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # a sender that leaves

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            # The handshake by the thread of the connection.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self.scheme = "http" if context is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str = "/hook/s3cret") -> str:
        """Return the URL of a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def names(self) -> list[str]:
        """Return the events of the notices that came."""
        return [each.notice["event"] for each in self.posted]

    def close(self) -> None:
        """Stop, and let those go on that hang."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hang(self, out: IO[bytes]) -> None:
        """Answer nothing."""
        self.ended.wait()

    def drip(self, out: IO[bytes]) -> None:
        """Answer slowly for ever: a head that does not end."""
        out.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not self.ended.wait(0.05):
            out.write(b"x")

    def drip_body(self, out: IO[bytes]) -> None:
        """Answer 200, and then slowly for ever."""
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self.ended.wait(0.05):
            out.write(b"x")

    def flood(self, out: IO[bytes]) -> None:
        """Answer 200 with more than anybody wants."""
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self.ended.is_set():
            out.write(b"x" * 65536)

    def flood_head(self, out: IO[bytes]) -> None:
        """Answer with a head that is larger than any."""
        out.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not self.ended.is_set():
            out.write(b"x" * 65536)


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server with a certificate of its own for 127.0.0.1, and its file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=receiver -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
