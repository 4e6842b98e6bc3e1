"""A proxy that the server was not told of is noticed while a rollout is on, and said once."""

import unittest
from types import SimpleNamespace

from ota_server.device_port.proxy_signs import ProxySigns
from tests.support import Client, until
from tests.support.fleet import OLD, FleetAtHome, RolloutCase, mac_of, run_rollout

SIGN = "a request came with X-Forwarded-For (from 127.0.0.1)"


class ProxySignsTest(RolloutCase):
    """A rollout that is on, and a server."""

    def ask(self, server, number: int, path: str = "/version.txt", **fields: str) -> int:
        with Client(server.port) as client:
            names = {name.replace("_", "-"): value for name, value in fields.items()}
            client.request(path, {"_br_mac_": mac_of(number), "_br_fwv_": OLD, **names})
            return client.answer().status

    def status(self) -> str:
        return run_rollout(self.data_dir, "status")[1]

    def wait_for_status(self, text: str) -> None:
        self.assertTrue(until(lambda: text in self.status()), self.status())

    def test_a_forwarded_request_is_said_once_in_the_log_and_in_the_status(self):
        server = self.serve()
        self.roll_out()
        self.ask_until(server, lambda: self.state() == "running", fetches=False)
        for number in range(5):
            self.assertEqual(self.ask(server, number, X_Forwarded_For="192.0.2.7"), 200)
        self.wait_for_status(SIGN)
        self.assertIn("--buffering-proxy", self.status())
        self.assertIn("serve with --trusted-proxy 127.0.0.1", self.status())
        _, log = server.end()
        self.assertEqual(log.count("a request came with"), 1)

    def test_via_is_such_a_sign(self):
        server = self.serve()
        self.roll_out()
        self.ask_until(server, lambda: self.state() == "running", fetches=False)
        self.ask(server, 1, Via="1.1 cache")
        self.wait_for_status("a request came with Via")

    def test_downloads_from_one_address_of_this_machine_are_one(self):
        server = self.serve()
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.ask_until(server, lambda: len(self.devices.holders) > 3)
        self.wait_for_status("all devices download from 127.0.0.1")

    def test_downloads_from_several_addresses_are_none(self):
        server = self.serve()
        self.devices = FleetAtHome(*[1] * 20)
        self.addCleanup(self.devices.hang_up)
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.ask_until(server, lambda: len(self.devices.holders) == 20)
        self.assertNotIn("download from", server.end()[1])

    def test_a_server_that_was_told_says_nothing(self):
        for option in (["--buffering-proxy"], ["--trusted-proxy", "127.0.0.1"]):
            with self.subTest(option):
                server = self.serve(*option)
                self.roll_out(waves=(100.0,), soak_seconds=3600.0)
                self.ask_until(server, lambda: self.state() == "running")
                self.ask(server, 1, X_Forwarded_For="192.0.2.7", Via="1.1 cache")
                self.assertNotIn("WARNING: ", self.status())
                self.assertNotIn("a request came with", server.end()[1])

    def test_without_a_rollout_nothing_is_said(self):
        server = self.serve()
        self.assertEqual(self.ask(server, 1, Via="1.1 cache"), 200)
        self.assertNotIn("a request came with", server.end()[1])


class StrangerTest(unittest.TestCase):
    def test_the_address_of_a_stranger_is_not_named_as_one_to_trust(self):
        signs = ProxySigns()
        request = SimpleNamespace(fields={b"via": b"1.1 evil"})
        peer = SimpleNamespace(address="203.0.113.66", is_local=False)
        with self.assertLogs("ota_server.device_port.proxy_signs", "WARNING"):
            signs.look_at(request, mac_of(1), peer, is_download=False)
        self.assertIn("--trusted-proxy ADDRESS", signs.text)
