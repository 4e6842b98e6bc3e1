"""What a device is offered from the files as they are: samples, and images that nobody may have."""

from ota_server import edits
from ota_server.http1 import read_request
from ota_server.policytext import Who
from ota_server.reply import Peer, Reply
from tests.support import DEVICE, MAC, ROOT, ServerCase, request_head

ELSEWHERE = Peer("192.0.2.7", False)


class ElsewhereTest(ServerCase):
    def ask(self, path: str) -> Reply:
        """Ask the service itself, as a device on another machine."""
        found = read_request(request_head(path, DEVICE))
        assert found is not None and self.server is not None
        return self.server.service.respond(found[0], ELSEWHERE, may_wait=False)

    def test_a_check_waits_for_no_image_that_is_no_sample_by_its_size(self):
        self.put_image("v1.2", b"third")
        edits.pin(self.data_dir, Who("devices", MAC), "v1.2", None)
        self.start(service={"settle_seconds": 3600})
        answer = self.ask("/version.txt")
        self.assertEqual((answer.status, answer.body), (200, b"v1.2"))

    def test_a_pin_on_the_sample_offers_it_to_this_machine_alone(self):
        sample = (ROOT / "ota_server" / "firmware" / "firmware_v1.0.1.bin").read_bytes()
        self.put_image("v1.2", sample)
        edits.pin(self.data_dir, Who("devices", MAC), "v1.2", None)
        self.assertEqual(self.get("/version.txt").body, b"v1.2")
        self.get("/firmware.bin")
        self.assertEqual(self.ask("/version.txt").body, b"v1.0.0")
        self.assertEqual(self.ask("/firmware.bin").status, 404)
