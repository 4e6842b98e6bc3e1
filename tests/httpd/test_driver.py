"""What drives all channels, where its process did not run for a while."""

import resource
import select
import signal
import time

from tests.support import Client, DataDirCase, Process

IDLE_SECONDS = 3.0
# One call of epoll tells of 1023 at most.
CONNECTIONS = 1100


class StoppedProcessTest(DataDirCase):
    """As by `docker pause`, a debugger, or a laptop that sleeps."""

    def test_what_arrived_meanwhile_is_answered_before_any_time_is_over(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + 100:
            self.skipTest(f"the limit of open files is {hard}")
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + 100), hard))
        self.put_image("v1", b"image")
        self.set_target("v1")
        idle = f"{IDLE_SECONDS}"
        server = Process("--data-dir", str(self.data_dir), "--idle-timeout", idle)
        self.addCleanup(server.kill)
        clients = [Client(server.port) for _ in range(CONNECTIONS)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.request("/version.txt")
        for client in clients:
            self.assertEqual(client.answer().body, b"v1")
        server.process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        for client in clients:
            client.request("/version.txt")
        select.select([], [], [], stopped_at + IDLE_SECONDS + 0.2 - time.monotonic())
        server.process.send_signal(signal.SIGCONT)
        answers = [client.answer().body for client in clients]
        self.assertEqual(answers.count(b"v1"), CONNECTIONS)

    def test_connections_that_a_proxy_opened_meanwhile_are_answered(self):
        self.put_image("v1", b"image")
        self.set_target("v1")
        options = ("--idle-timeout", f"{IDLE_SECONDS}", "--trusted-proxy", "127.0.0.1")
        server = Process("--data-dir", str(self.data_dir), *options)
        self.addCleanup(server.kill)
        with Client(server.port) as client:
            client.request("/version.txt")
            self.assertEqual(client.answer().body, b"v1")
        server.process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        clients = [Client(server.port) for _ in range(30)]
        for number, client in enumerate(clients):
            self.addCleanup(client.sock.close)
            client.sock.sendall(b"PROXY TCP4 192.0.2.%d 192.0.2.100 1000 80\r\n" % number)
            client.request("/version.txt")
        select.select([], [], [], stopped_at + IDLE_SECONDS + 0.2 - time.monotonic())
        server.process.send_signal(signal.SIGCONT)
        self.assertEqual({client.answer().body for client in clients}, {b"v1"})
