"""The operators' port of a whole server: where it listens, who reaches it, what a crash does."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from tests.rollouts.test_mover import children
from tests.support import DEVICE, ROOT, TIMEOUT_SECONDS, Client, DataDirCase, Process, until
from tests.support.commands import call

PAGE = {"Accept": "text/html"}
LOGIN = "/login"


class OperatorsPortCase(DataDirCase):
    def setUp(self):
        super().setUp()
        self.put_image("v1", b"image")
        self.set_target("v1")

    def serve(self, *options: str) -> Process:
        server = Process("--data-dir", str(self.data_dir), *options)
        self.addCleanup(server.kill)
        self.addCleanup(server.end)  # a controller whose server is killed may still write
        return server

    def page(self, port: int, path: str = LOGIN, fields: Mapping[str, str] | None = None) -> int:
        """Return the status of a page of the operators' port; it is waited for."""
        with Client(port) as client:
            lines = "".join(f"{name}: {value}\r\n" for name, value in (fields or PAGE).items())
            client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
            return client.answer().status


class ListeningTest(OperatorsPortCase):
    def test_the_first_lines_say_where_the_page_is_and_it_is_there(self):
        server = self.serve("--admin", "127.0.0.1:0")
        self.assertIn(f"  operators  http://127.0.0.1:{server.admin_port}/\n", server.banner)
        self.assertEqual(self.page(server.admin_port), 200)

    def test_an_ipv6_address_is_written_as_a_url(self):
        server = self.serve("--admin", "[::1]:0")
        self.assertRegex(server.banner, r"  operators  http://\[::1\]:\d+/\n")

    def test_a_default_port_that_is_taken_is_one_line_and_the_server_goes_on(self):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", 7778))
            except OSError:
                pass  # somebody else has it, which is as good
            else:
                taken.listen()
            code = "import sys; from ota_server.server import main; sys.argv.remove('--no-admin')"
            server = Process("--data-dir", str(self.data_dir), code=f"{code}; sys.exit(main())")
            self.addCleanup(server.kill)
            self.assertNotIn("operators", server.banner)
            said = re.compile("no page for operators: port 7778 .*--no-admin")
            self.assertTrue(until(lambda: said.search(server.logged())), server.logged())
            with Client(server.port) as client:
                client.request("/version.txt")
                self.assertEqual(client.answer().body, b"v1")

    def test_another_port_that_is_taken_is_refused_with_what_to_do(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = self.refused("--admin", address)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen for operators on {address}", done.stderr)
        self.assertIn("give another --admin", done.stderr)

    def test_elsewhere_than_on_this_machine_it_listens_only_with_a_token_on_record(self):
        done = self.refused("--admin", "0.0.0.0:0")
        self.assertEqual(done.returncode, 1)
        (command,) = re.findall("`.* (token create) NAME", done.stderr)
        call(*command.split(), "anna", "--data-dir", str(self.data_dir))
        server = self.serve("--admin", "0.0.0.0:0")
        self.assertEqual(self.page(server.admin_port, "/nothing"), 401)

    def test_without_the_port_no_controller_runs(self):
        server = self.serve()
        self.assertNotIn("operators", server.banner)
        self.assertEqual(children(server.process.pid), [])

    def refused(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "ota_server.server", "--port", "0", *options]
        return subprocess.run(
            [*command, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )


class ApartTest(OperatorsPortCase):
    def test_who_opens_the_port_of_devices_in_a_browser_is_told_where_the_page_is(self):
        server = self.serve("--admin", "127.0.0.1:0")
        with Client(server.port) as client:
            client.request("/", {**PAGE, "User-Agent": "Mozilla/5.0"})
            answer = client.answer()
        self.assertEqual(answer.status, 200)
        self.assertIn(f"http://127.0.0.1:{server.admin_port}/", answer.body.decode())

    def test_nothing_for_operators_is_on_the_port_of_devices(self):
        server = self.serve("--admin", "127.0.0.1:0")
        for path in (
            "/devices",
            "/login",
            "/metrics",
            "/events",
            "/api/v1/devices",
            "/static/page.js",
        ):
            for fields in ({}, DEVICE):
                with self.subTest(path=path, fields=fields), Client(server.port) as client:
                    client.request(path, {**PAGE, **fields})
                    self.assertIn(client.answer().status, (401, 404))

    def test_nothing_for_devices_is_on_the_port_of_operators(self):
        server = self.serve("--admin", "127.0.0.1:0")
        for path in ("/version.txt", "/firmware.bin", "/firmware/firmware_v1.bin"):
            with self.subTest(path):
                self.assertEqual(self.page(server.admin_port, path, DEVICE), 404)


class CrashTest(OperatorsPortCase):
    def test_a_controller_that_is_killed_is_back_and_no_device_notices(self):
        server = self.serve("--admin", "127.0.0.1:0")
        self.assertEqual(self.page(server.admin_port), 200)
        (before,) = children(server.process.pid)
        os.kill(before, signal.SIGKILL)
        with Client(server.port) as client:
            client.request("/version.txt")
            self.assertEqual(client.answer().body, b"v1")
        # Who comes meanwhile waits in the queue of the socket, and is answered.
        self.assertEqual(self.page(server.admin_port), 200)
        self.assertNotEqual(children(server.process.pid), [before])

    def test_a_server_that_ends_ends_the_controller_too(self):
        server = self.serve("--admin", "127.0.0.1:0")
        self.assertEqual(self.page(server.admin_port), 200)
        (controller,) = children(server.process.pid)
        self.assertEqual(server.end()[0], 0)
        self.assertFalse(os.path.exists(f"/proc/{controller}"))

    def test_a_server_that_is_killed_leaves_no_controller(self):
        server = self.serve("--admin", "127.0.0.1:0")
        self.assertEqual(self.page(server.admin_port), 200)
        (controller,) = children(server.process.pid)
        server.kill()
        until(lambda: not os.path.exists(f"/proc/{controller}"))


class AloneTest(OperatorsPortCase):
    def test_a_controller_answers_operators_of_a_data_directory_without_a_server(self):
        command = [sys.executable, "-m", "ota_server.controller", "--admin", "127.0.0.1:0"]
        process = subprocess.Popen(
            [*command, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        found = re.search(r"operators: http://127\.0\.0\.1:(\d+)/", process.stderr.readline())
        self.assertIsNotNone(found)
        self.assertEqual(self.page(int(found[1])), 200)
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)

    def test_it_makes_no_data_directory_of_a_name_that_was_mistyped(self):
        command = [sys.executable, "-m", "ota_server.controller", "--admin", "127.0.0.1:0"]
        folder = self.data_dir / "mistyped"
        done = subprocess.run(
            [*command, "--data-dir", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"there is no folder {folder}", done.stderr)
        self.assertFalse(folder.exists())
