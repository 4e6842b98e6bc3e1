"""What the system refuses and is not needed: nothing fails, and it is said once."""

import os
import shutil
import subprocess
import sys
import unittest

from ota_server.system.wished import WITHOUT
from tests.support import ROOT, TIMEOUT_SECONDS, Client, DataDirCase, Process

# Becomes a program of whose calls of the system some fail. It is not the child of the tracer.
STRACE = ("strace", "-D", "-f", "-qq", "-o", os.devnull)
AS_SERVER = """\
import os, sys
os.execvp("strace", [*{strace}, sys.executable, "-m", "ota_server.server", *sys.argv[1:]])
"""


def refusing(calls: str, error: str, when: str = "1+") -> list[str]:
    """Return the command that runs another one for which some calls of the system fail."""
    return [*STRACE, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]


@unittest.skipUnless(shutil.which("strace"), "needs strace")
class RefusedTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", b"image")
        self.set_target("v1.0.1")

    def log_of_server(self, strace: list[str], *arguments: str) -> list[str]:
        """Return what a server logs that answers a device nevertheless."""
        code = AS_SERVER.format(strace=strace)
        server = Process("--data-dir", str(self.data_dir), *arguments, code=code)
        self.addCleanup(server.kill)
        self.assertGreater(server.port, 0, server.end()[1] if not server.port else "")
        with Client(server.port, arguments[1]) as client:
            client.request("/version.txt")
            self.assertEqual(client.answer().body, b"v1.0.1")
        code, log = server.end()
        self.assertEqual(code, 0, log)
        self.assertNotIn("Traceback", log)
        return [line for line in log.splitlines() if "refused" in line]

    def test_an_option_of_the_socket(self):
        options = ["SO_REUSEADDR", "TCP_NODELAY", "TCP_NOTSENT_LOWAT", "TCP_DEFER_ACCEPT"]
        for host, names in (("127.0.0.1", options), ("::1", ["IPV6_V6ONLY", *options])):
            lines = self.log_of_server(refusing("setsockopt", "ENOPROTOOPT"), "--host", host)
            self.assertEqual(len(lines), len(names), lines)
            for line, name in zip(lines, names, strict=True):
                with self.subTest(host=host, name=name):
                    self.assertIn(
                        f"WARNING {name} is refused (Protocol not available): {WITHOUT[name]}", line
                    )

    def test_epoll(self):
        calls = "epoll_create1" if os.uname().machine == "aarch64" else "epoll_create,epoll_create1"
        arguments = ("--host", "127.0.0.1", "--transport", "epoll")
        (line,) = self.log_of_server(refusing(calls, "ENOSYS"), *arguments)
        self.assertIn("epoll is refused (Function not implemented): --transport poll is used", line)

    def test_a_low_priority_for_the_controller(self):
        controller = [sys.executable, "-m", "ota_server.controller"]
        done = subprocess.run(
            [*refusing("setpriority", "EPERM"), *controller, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        (line,) = done.stderr.splitlines()
        self.assertIn("a low priority is refused (Operation not permitted)", line)


@unittest.skipUnless(
    shutil.which("unshare") and shutil.which("ip") and os.geteuid() == 0,
    "needs unshare, ip, and root",
)
class ScopeTest(DataDirCase):
    def serve(self, host: str) -> Process:
        code = (
            "import os, sys\nos.execvp('unshare', ['unshare', '-n', 'sh', '-c', 'ip link set lo up "
            "&& ip addr add fe80::7/64 dev lo scope link nodad && exec \"$@\"', 'sh', "
            "sys.executable, '-m', 'ota_server.server', *sys.argv[1:]])"
        )
        server = Process("--data-dir", str(self.data_dir), "--host", host, code=code)
        self.addCleanup(server.kill)
        return server

    def test_an_address_of_one_interface_is_listened_on_and_shown_with_it(self):
        for host in ("fe80::7%lo", "fe80::7%1"):
            with self.subTest(host):
                server = self.serve(host)
                self.assertIn(f"listening  http://[fe80::7%lo]:{server.port}/\n", server.banner)
                self.assertEqual(server.end()[0], 0)

    def test_one_without_its_interface_is_refused_with_what_is_missing(self):
        code, log = self.serve("fe80::7").end()
        self.assertEqual(code, 1)
        self.assertIn("Invalid argument; name its interface, as in fe80::7%eth0", log)
