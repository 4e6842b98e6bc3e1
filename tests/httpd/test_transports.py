"""One connection machine, three drivers: the same request gets the same bytes from each."""

import re

from ota_server.httpd.transports import TRANSPORTS
from tests.support import DEVICE, Client, ServerCase, request_head

PART = {**DEVICE, "Range": "bytes=5-70000"}
PARTS = {**DEVICE, "Range": "bytes=0-9,70000-,-3"}
STREAMS = {
    "a check": [request_head("/version.txt")],
    "pipelined": [
        request_head("/version.txt") + request_head("/firmware.bin") + request_head("/healthz")
    ],
    "byte by byte": [bytes([byte]) for byte in request_head("/version.txt")],
    "cut in the middle of the second": [
        request_head("/version.txt") + request_head("/version.txt")[:30],
        request_head("/version.txt")[30:],
    ],
    "a part": [request_head("/firmware.bin", PART)],
    "several parts": [request_head("/firmware.bin", PARTS)],
    "by name": [request_head("/firmware/firmware_v1.0.0.bin", {})],
    "a head": [request_head("/firmware.bin", method="HEAD")],
    "no identity": [request_head("/version.txt", {}), request_head("/version.txt")],
    "another method": [request_head("/version.txt", method="POST")],
    "HTTP/1.0": [b"GET /version.txt HTTP/1.0\r\n_br_mac_: 001122334455\r\n_br_fwv_: 1\r\n\r\n"],
    "broken": [request_head("/version.txt") + b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"],
}
# Who asks for the end of the connection may not send more on it.
CLOSING = {"HTTP/1.0", "broken"}


class SameBytesTest(ServerCase):
    def replies(self, transport: str) -> dict[str, bytes]:
        """Return what the server answers to each stream of bytes, less the date."""
        port = self.start(transport=transport).server_port
        answers = {}
        for name, pieces in STREAMS.items():
            with Client(port) as client:
                for piece in pieces:
                    client.send(piece)
                if name not in CLOSING:
                    client.send(request_head("/healthz", {"Connection": "close"}))
                answers[name] = re.sub(rb"Date: [^\r]*", b"", client.read_all())
        self.stop()
        return answers

    def test_each_transport_answers_with_the_same_bytes(self):
        expected = self.replies(TRANSPORTS[0])
        for transport in TRANSPORTS[1:]:
            with self.subTest(transport):
                self.assertEqual(self.replies(transport), expected)

    def test_each_transport_puts_the_same_on_record(self):
        def happened(transport: str) -> list[tuple[object, ...]]:
            self.replies(transport)
            names = ("event", "mac", "firmware_version", "target_version", "status", "bytes_sent")
            # The lines of known devices follow a tenth of a second after the start: here perhaps.
            asked = [record for record in self.records() if record["event"] != "device"]
            records = [tuple(record.get(name) for name in names) for record in asked]
            (self.data_dir / "log" / "devices.jsonl").unlink()
            return sorted(records, key=str)

        expected = happened(TRANSPORTS[0])
        for transport in TRANSPORTS[1:]:
            with self.subTest(transport):
                self.assertEqual(happened(transport), expected)


class WaitingTest(ServerCase):
    def test_what_arrives_while_a_request_waits_for_an_image_is_answered_after_it(self):
        for number, transport in enumerate(TRANSPORTS):
            with self.subTest(transport):
                self.start(transport=transport, service={"settle_seconds": 0.5})
                self.put_image("v2", bytes([number]) * 300_000)
                self.set_target("v2")
                with Client(self.port) as client:
                    client.send(request_head("/firmware.bin"))
                    for _ in range(20):
                        client.send(request_head("/version.txt"))
                        with Client(self.port) as other:  # what was sent has arrived by then
                            other.send(request_head("/healthz", {"Connection": "close"}))
                            other.read_all()
                    image = client.answer()
                    self.assertEqual((image.status, len(image.body)), (200, 300_000))
                    for _ in range(20):
                        self.assertEqual(client.answer().body, b"v2")
                self.stop()
                self.assertEqual(len(self.records(event="check")), 20 * (number + 1))
