"""Why a device gets what it gets, in one sentence."""

from ota_server.journal.replay import newest
from ota_server.operations.device_why import explain_why
from ota_server.system import clock
from tests.support import DEVICE, MAC, ServerCase


class DeviceWhyTest(ServerCase):
    def test_the_sentence_says_what_it_is_told_and_why(self):
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.0"})
        self.stop()
        device = newest(self.data_dir / "log", MAC)
        assert device is not None
        facts = explain_why(self.data_dir, MAC, device, "v1.0.0", clock.now_ms(), is_brief=True)
        self.assertEqual(facts.sentence, "it is told v1.0.1: the target of the fleet")
        self.assertIsNone(facts.besides.state)

    def test_a_hold_is_named_with_its_reason(self):
        (self.data_dir / "version" / "hold.json").write_text('{"reason": "<b>"}')
        facts = explain_why(self.data_dir, MAC, None, "v1.0.0", clock.now_ms())
        self.assertEqual(facts.sentence, "it is told v1.0.0: everything is on hold: <b>")
