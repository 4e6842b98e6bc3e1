"""What a device is offered from the files as they are: samples, bad images, rollouts in sight."""

from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer, Reply
from ota_server.model.timestamp import format_time
from ota_server.policy import edits
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    format_plan,
    plan_name,
    progress_name,
)
from ota_server.policy.text import Who
from ota_server.system.files import replace
from tests.support import DEVICE, MAC, ROOT, ServerCase, request_head

OTHER = "a0:b1:c2:d3:e4:f5"
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


class AttendedTest(ServerCase):
    """Rollouts go on one by one, as somebody looks after them."""

    def told(self, mac: str) -> str:
        return self.get("/version.txt", {"_br_mac_": mac, "_br_fwv_": "v1.0.0"}).body.decode()

    def test_a_rollout_that_nobody_looks_after_offers_nothing_and_the_others_go_on(self):
        for group, version in (("", "v1.2"), ("beta", "v1.3")):
            self.put_image(version, b"image" * 1000)
            plan = RolloutPlan(f"id{group}", version, group, (100.0,), format_time(0), "v1.0.1")
            progress = RolloutProgress(plan.id, "running", 0, format_time(0))
            replace((self.data_dir / "version" / plan_name(group)), format_plan(plan))
            replace((self.data_dir / "version" / progress_name(group)), format_plan(progress))
        edits.add_members(self.data_dir, "beta", [MAC])
        rollouts = self.start().service.offers.attended
        for attended, versions in (
            (None, ("v1.2", "v1.3")),
            (frozenset(("", "beta", "gamma")), ("v1.2", "v1.3")),
            (frozenset(("",)), ("v1.2", "v1.0.1")),
            (frozenset(("beta",)), ("v1.0.1", "v1.3")),
            (frozenset(), ("v1.0.1", "v1.0.1")),
        ):
            with self.subTest(attended):
                rollouts.groups = attended
                self.assertEqual((self.told(OTHER), self.told(MAC)), versions)
