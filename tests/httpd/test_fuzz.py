"""Mutated requests against a real server; the seed makes each run the same."""

import json
import os
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support import Client, DataDirCase, Process

# By coverage.py these take every branch of the server that a hundred thousand took of which a
# twentieth was mutated. One of the runs of CI sends a hundred thousand.
REQUESTS = int(os.environ.get("OTA_SERVER_TEST_REQUESTS", "25000"))
CLIENTS = 2
BATCH = 25
# Of the bytes of a request; its fields are always at random. More of these would mostly be more of
# the same 400 and a connection each.
BYTES_MUTATED = 0.2
IMAGE = b"image " * 200

_MAC = b"_br_mac_: 00:11:22:33:44:55\r\n"
_DEVICE = _MAC + b"_br_fwv_: v1.0.0\r\n"
_LINES = (
    b"GET /version.txt HTTP/1.1\r\n",
    b"GET /version.txt HTTP/1.1\r\n",
    b"HEAD /version.txt HTTP/1.1\r\n",
    b"GET /firmware.bin HTTP/1.1\r\n",
    b"HEAD /firmware.bin HTTP/1.1\r\n",
    b"GET /firmware/firmware_v1.0.1.bin?sha256=00 HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.1\r\n",
    b"GET http://ota:80/version.txt?a=b HTTP/1.1\r\n",
    b"POST /version.txt HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT ota:443 HTTP/1.1\r\n",
    b"BREW /pot HTTP/1.1\r\n",
    b"GET /default/controller/v1/gw-1 HTTP/1.1\r\n",
    b"PUT /default/controller/v1/gw-1/configData HTTP/1.1\r\n",
    b"POST /default/controller/v1/gw-1/deploymentBase/101/feedback HTTP/1.1\r\n",
)
_BODIES = (
    b"",
    b'{"data":{"version":"v1.0.0"}}',
    b'{"status":{"execution":"closed","result":{"finished":"success"},"details":["a\nb"]}}',
    b"[" * 5000,
    b"\r\n\r\nGET /",
)
_NAMES = (
    b"_br_mac_",
    b"_br_fwv_",
    b"Range",
    b"If-Range",
    b"If-Match",
    b"If-None-Match",
    b"If-Modified-Since",
    b"If-Unmodified-Since",
    b"Connection",
    b"Expect",
    b"Cache-Control",
    b"X",
)
_FRAMING = (b"Content-Length", b"Transfer-Encoding", b"Host")
_VALUES = (
    b"",
    b"0",
    b"5",
    b"-1",
    b"+5",
    b"1_0",
    b"\xd9\xa0",
    b"9" * 30,
    b"close",
    b"keep-alive",
    b"chunked",
    b"100-continue",
    b"*",
    b'"x"',
    b'W/"x"',
    b'"a,b", "c"',
    b'"' * 50,
    b"bytes=0-9",
    b"bytes=5-",
    b"bytes=-5",
    b"bytes=0-0,2-3,-1",
    b"bytes=9-5",
    b"bytes=" + b"0-," * 300,
    b"bytes=" + b"9" * 5000 + b"-",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
    b"Sun, 31 Feb 9999 23:59:60 GMT",
    b"00-11-22-33-44-66",
    b"0011.2233.4477",
    b"ff:ff:ff:ff:ff:ff",
    b"v1.0.1",
    b"v" * 65,
    b"[::1]:80",
    b"a b",
    b"%00",
    b"\xff\xfe",
)
_PIECES = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"/",
    b"//",
    b"..",
    b"?",
    b"#",
    b",",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"A" * 9000,
    b"X: y\r\n" * 70,
)


def request(chance: random.Random) -> bytes:
    """Return a request that is likely whole, with fields of all kinds."""
    fields = b"".join(
        b"%b: %b\r\n" % (chance.choice(_NAMES), chance.choice(_VALUES))
        for _ in range(chance.choice((1, 1, 1, 2, 3)))
    )
    if chance.random() < 0.02:
        fields += b"%b: %b\r\n" % (chance.choice(_FRAMING), chance.choice(_VALUES))
    line = chance.choice(_LINES)
    if chance.random() < 0.01:
        line = line.replace(b"HTTP/1.1", b"HTTP/1.0")
    body = b""
    if b"/controller/v1/gw-1/" in line:
        body = chance.choice(_BODIES)
        fields += b"Content-Length: %d\r\n" % len(body)
    return line + b"Host: ota\r\n" + _DEVICE + fields + b"\r\n" + body


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a request somewhere, as neither a client nor an attacker with a plan would."""
    at = chance.randrange(len(content))
    how = chance.randrange(6)
    if how == 0:
        return content[:at] + bytes((chance.randrange(256),)) + content[at + 1 :]
    if how == 1:
        return content[:at] + chance.choice(_PIECES) + content[at:]
    if how == 2:
        return content[:at] + content[at + chance.randrange(1, 20) :]
    if how == 3:
        return content[:at] + content[max(0, at - chance.randrange(40)) :]
    if how == 4:
        return content[:at] + request(chance)[chance.randrange(40) :]
    return content.replace(_MAC, b"_br_mac_: %b\r\n" % chance.choice(_VALUES))


def statuses(replies: bytes) -> list[int]:
    """Return the status of each reply; fails where there is something without a status line."""
    found, at = [], 0
    while at < len(replies):
        assert replies.startswith(b"HTTP/1.1 ", at), replies[at : at + 200]
        found.append(int(replies[at + 9 : at + 12]))
        end = replies.find(b"\r\n\r\n", at)
        assert end > 0, replies[at:]
        head, at = replies[at:end].lower(), end + 4
        # A reply to HEAD has a length and no body; no body here begins like a status line.
        if b"\r\ncontent-length: " in head and at < len(replies):
            if not replies.startswith(b"HTTP/1.1 ", at):
                at += int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            assert at <= len(replies), "the last reply is not whole"
    return found


OTHER = {"_br_mac_": "02:00:00:00:00:01", "_br_fwv_": "v1.0.0"}


class FuzzTest(DataDirCase):
    def test_mutated_requests_do_no_harm(self):
        self.put_image("v1.0.1", IMAGE)
        self.set_target("v1.0.1")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = sum(pool.map(lambda n: self.fuzz(server.port, n), range(CLIENTS)), Counter())
        with Client(server.port) as client:
            client.request("/version.txt", OTHER)  # the others have fetched the image too often
            self.assertEqual(client.answer().body, b"v1.0.1")
        code, log = server.end()
        self.assertEqual(code, 0)
        self.assertNotIn("Traceback", log)
        self.assertEqual([s for s in found if s >= 500 and s not in (501, 503, 505)], [])
        for status in (200, 206, 304, 400, 401, 404, 405, 412, 413, 414, 416, 431, 501, 505):
            self.assertIn(status, found)
        for line in (self.data_dir / "log" / "devices.jsonl").read_bytes().splitlines():
            self.assertIsInstance(json.loads(line), dict)

    def fuzz(self, port: int, seed: int) -> Counter[int]:
        """Send this client's share; what a refusal cut off is sent again on a new connection."""
        chance = random.Random(seed)
        found: Counter[int] = Counter()
        batch: list[bytes] = []
        left = REQUESTS // CLIENTS
        while left > 0 or batch:
            while left > 0 and len(batch) < BATCH:
                content = request(chance)
                batch.append(
                    mutate(content, chance) if chance.random() < BYTES_MUTATED else content
                )
                left -= 1
            with Client(port) as client:
                try:
                    client.send(b"".join(batch))
                    client.sock.shutdown(socket.SHUT_WR)
                except ConnectionError:
                    pass  # it was refused before all was sent; the reply is there all the same
                answered = statuses(client.read_all())
            found.update(answered)
            del batch[: max(1, len(answered))]
        return found
