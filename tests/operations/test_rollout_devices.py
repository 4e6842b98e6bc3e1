"""The devices of a rollout that did not do well, by the id of the rollout."""

from ota_server.model.refusal import Refused
from ota_server.operations.rollout_devices import devices_of
from ota_server.rollouts.history import note_end
from ota_server.rollouts.outcome_list import ListedDevice
from tests.commands.test_rollout import NOW_MS, CommandCase
from tests.support.fleet import NEW, OLD, mac_of


class RolloutDevicesTest(CommandCase):
    def test_those_of_one_that_is_over_come_by_its_id_with_their_reason(self):
        self.know(3)
        for number in (1, 2):
            plan = self.roll_out(id=f"id{number}")
            failed = ListedDevice(mac_of(number), "failed", "it went back", OLD, "", "")
            note_end(self.data_dir, plan._replace(wanted="abort"), None, [failed], NOW_MS)
        (self.data_dir / "version" / "rollout.json").unlink()
        for number in (1, 2):
            found = devices_of(self.data_dir, f"id{number}", NOW_MS)
            (device,) = found.devices
            self.assertEqual((device.mac, device.reason), (mac_of(number), "it went back"))
            self.assertIn(NEW, found.headline)

    def test_those_of_one_that_is_on_are_read_from_the_journal(self):
        self.know(3)
        plan = self.roll_out(id="id1")
        found = devices_of(self.data_dir, plan.id, NOW_MS)
        self.assertEqual(found.more, 0)
        self.assertIn("waiting", found.headline)

    def test_an_id_that_no_rollout_has_is_refused(self):
        self.assertRaises(Refused, devices_of, self.data_dir, "id9", NOW_MS)
