"""What the server says at its start, where that depends on what happens meanwhile."""

import contextlib
import io
import resource
import socket
import threading
import unittest
from unittest import mock

from ota_server.device_port import banner
from ota_server.device_port.banner import _address_lines, _announce_image
from ota_server.releases.store import NotHashed, Store
from ota_server.system.files import find
from tests.support import TIMEOUT_SECONDS, DataDirCase, until


class AnnouncingTest(DataDirCase):
    def setUp(self):
        super().setUp()
        self.put_image("v1", b"an image")
        self.set_target("v1")
        self.store = Store(self.data_dir, settle_seconds=3600.0)
        self.addCleanup(self.store.close)

    def test_it_ends_with_a_server_that_ends_before_the_image_was_hashed(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            announcing = threading.Thread(target=_announce_image, args=(self.store,), daemon=True)
            announcing.start()
            self.store.close()
            announcing.join(TIMEOUT_SECONDS)
        self.assertFalse(announcing.is_alive())
        self.assertEqual(said.getvalue(), "")

    def test_nobody_waits_for_a_hash_that_is_wanted_after_the_end(self):
        self.store.close()
        with self.assertRaises(NotHashed) as caught:
            self.store.image("v1")
        self.assertTrue(caught.exception.hashing.done.is_set())


class FileLimitTest(DataDirCase):
    def test_an_image_that_cannot_be_opened_now_is_said_to_be_so(self):
        path = self.put_image("v1", b"an image")
        self.set_target("v1")
        store = Store(self.data_dir, settle_seconds=0.0)
        self.addCleanup(store.close)
        store.target()
        found = find(path.parent, path.name)
        assert found is not None
        self.assertTrue(until(lambda: store._hasher.known(found.stamp) is not None))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            lines = banner._target_lines(store)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(lines[0], "  target     v1")
        self.assertRegex(lines[1], "WARNING +the image cannot be read now: .*Too many open files")


class SayTest(unittest.TestCase):
    def test_the_reason_of_a_hold_forges_no_line_and_moves_no_cursor(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            banner._say(["  WARNING    on hold: a\x1b[2J\n  listening  http://other/", "  next"])
        self.assertEqual(
            said.getvalue(),
            "  WARNING    on hold: a\\x1b[2J\\n  listening  http://other/\n  next\n",
        )


class AddressTest(unittest.TestCase):
    """A device cannot use `[::]`, nor 127.0.0.1."""

    def shown(self, host: str, own: str) -> list[str]:
        class Probe(socket.socket):
            def connect(self, address: object) -> None:
                if self.family != (socket.AF_INET6 if ":" in own else socket.AF_INET):
                    raise OSError("no route")

            def getsockname(self) -> tuple[str, int]:
                return own, 40000

        with mock.patch.object(banner.socket, "socket", Probe):
            return _address_lines(host, 7777)

    def test_who_listens_on_all_interfaces_names_the_address_of_the_machine(self):
        for host, own, shown in (
            ("::", "192.168.1.20", "http://192.168.1.20:7777/"),
            ("0.0.0.0", "192.168.1.20", "http://192.168.1.20:7777/"),
            ("::", "2001:db8::20", "http://[2001:db8::20]:7777/"),
            ("0.0.0.0", "2001:db8::20", "http://ADDRESS-OF-THIS-MACHINE:7777/"),
        ):
            with self.subTest(host, own=own):
                (line,) = self.shown(host, own)
                self.assertTrue(line.endswith(shown), line)

    def test_who_listens_on_the_loopback_says_that_devices_do_not_reach_it(self):
        for host in ("127.0.0.1", "::1"):
            with self.subTest(host):
                (line,) = self.shown(host, "192.168.1.20")
                self.assertIn("only clients on this machine", line)

    def test_who_listens_for_a_proxy_alone_is_not_told_to_listen_elsewhere(self):
        self.assertEqual(_address_lines("127.0.0.1", 7777, True), [banner._BEHIND_PROXY])

    def test_an_address_of_the_network_is_the_one_to_use(self):
        self.assertEqual(self.shown("192.168.1.20", "192.168.1.20"), [])
