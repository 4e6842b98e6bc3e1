"""Waiting until the index shows what was done to devices."""

import json

from ota_server.operations.bulk_edits import BulkAction, BulkChange, apply
from ota_server.operations.device_index import DeviceIndex
from ota_server.operator_port.authoriser import Authoriser
from ota_server.operator_port.changes import Changes
from ota_server.operator_port.index_follows import await_shown
from ota_server.operator_port.site import Site
from tests.support.fleet import OLD, mac_of
from tests.support.operators import OperatorsCase

FORGET, UNPIN = BulkChange(BulkAction.FORGET), BulkChange(BulkAction.UNPIN)


class AwaitShownTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(1): OLD})
        cls.await_devices(1)

    def site(self, name: str) -> Site:
        """Return what pages share, of a data directory in a folder of this name; "": this one."""
        folder = self.data_dir / name
        index = DeviceIndex(folder)
        self.addCleanup(index.close)
        who = Authoriser(folder, reads_openly=True, now_seconds=lambda: 0.0)
        return Site(folder, index, who, Changes(0))

    def test_where_there_is_no_index_nothing_fails(self):
        (self.data_dir / "empty").mkdir()
        self.assertFalse(await_shown(self.site("empty"), FORGET, [mac_of(1)]))

    def test_what_does_not_come_is_not_awaited_for_ever(self):
        site = self.site("")
        self.assertFalse(await_shown(site, FORGET, [mac_of(1)]))
        site.changes.close()
        self.assertFalse(await_shown(site, FORGET, [mac_of(1)]))

    def test_a_device_that_is_not_on_record_is_shown_at_once(self):
        for action in BulkAction:
            with self.subTest(action):
                self.assertTrue(await_shown(self.site(""), BulkChange(action), [mac_of(9)]))

    def test_a_device_that_its_group_pins_may_stay_pinned(self):
        apply(self.data_dir, BulkChange(BulkAction.ADD, group="beta"), [mac_of(1)])
        pins = {"devices": {mac_of(1): {"version": OLD}}, "groups": {"beta": {"version": OLD}}}
        (self.data_dir / "version" / "pins.json").write_text(json.dumps(pins))
        site = self.site("")
        self.assertTrue(await_shown(site, BulkChange(BulkAction.PIN, version=OLD), [mac_of(1)]))
        apply(self.data_dir, UNPIN, [mac_of(1)])
        self.assertTrue(await_shown(site, UNPIN, [mac_of(1)]))
        device = site.index.device(mac_of(1))
        self.assertTrue(device is not None and device.is_pinned)
