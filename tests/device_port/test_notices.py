"""`serve --notify-url`: a real server tells real receivers, whatever these do."""

import os
import stat
from pathlib import Path

from ota_server.device_port.notice_status import NoticeStatus, read_notice_status
from tests.support import Process, until
from tests.support.fleet import NEW, RolloutCase, run_command, run_rollout
from tests.support.webhook import Reaction, WebhookReceiver, closed_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class NoticesTest(RolloutCase):
    def receiver(self, *reactions: Reaction) -> WebhookReceiver:
        receiver = WebhookReceiver(*reactions)
        self.addCleanup(receiver.close)
        return receiver

    def tell(self, *urls: str, more: tuple[str, ...] = ()) -> Process:
        return self.serve(*(part for url in urls for part in ("--notify-url", url)), *more)

    def secret(self, mode: int = 0o600) -> Path:
        path = self.data_dir / "secret"
        path.write_text(SECRET)
        path.chmod(mode)
        return path

    def status(self) -> NoticeStatus:
        status = read_notice_status(self.data_dir / "log")
        assert status is not None
        return status

    def hold(self) -> None:
        # What is there before it first looks is no event.
        self.assertTrue(until((self.data_dir / "log" / "notices.json").exists))
        self.assertEqual(run_command(self.data_dir, "hold", "--reason", "smoke")[0], 0)

    def test_a_rollout_is_told_to_each_url_and_one_that_is_dead_delays_no_other(self):
        receiver = self.receiver()
        hung = self.receiver(lambda out: hung.hang(out))
        dead = f"http://127.0.0.1:{closed_port()}/s3cret"
        server = self.tell(dead, hung.url(), receiver.url())
        self.roll_out(waves=(50.0, 100.0), soak_seconds=600.0)
        self.ask_until(server, lambda: receiver.names() == ["rollout_moved"])
        self.assertTrue(until(lambda: bool(hung.posted)))
        # It is being told still.
        self.assertEqual(self.status().receivers[1].health.problem, "")
        self.assertEqual(receiver.posted[0].notice["version"], NEW)
        self.assertEqual(receiver.posted[0].body, hung.posted[0].body)
        run_rollout(self.data_dir, "abort")
        self.assertTrue(until(lambda: receiver.names() == ["rollout_moved", "rollout_ended"]))
        _, log = server.end()
        self.assertIn("it cannot be reached: Connection refused", log)
        self.assertNotIn("s3cret", log + server.banner)

    def test_what_a_url_did_not_take_is_told_again_with_the_same_id(self):
        receiver = self.receiver(500, 204)
        server = self.tell(receiver.url())
        self.hold()
        self.assertTrue(until(lambda: receiver.names() == ["hold_begun"]))
        self.assertTrue(until(lambda: self.status().receivers[0].waiting == 1))
        self.assertTrue(until(lambda: receiver.names() == ["hold_begun"] * 2))
        first, second = receiver.posted
        self.assertEqual(first.body, second.body)
        self.assertEqual(first.fields["webhook-id"], second.fields["webhook-id"])
        self.assertTrue(until(lambda: not self.status().receivers[0].waiting))
        self.assertIn("(hold_begun): it answered 500 (Internal Server Error)", server.end()[1])

    def test_what_was_not_told_when_the_server_was_killed_is_told_at_the_next_start(self):
        receiver = self.receiver(lambda out: receiver.hang(out), 204)
        killed = self.tell(receiver.url())
        self.hold()
        self.assertTrue(until(lambda: len(receiver.posted) == 1))
        killed.kill()
        server = self.tell(receiver.url())
        self.assertTrue(until(lambda: len(receiver.posted) == 2))
        first, second = receiver.posted
        self.assertEqual(first.fields["webhook-id"], second.fields["webhook-id"])
        self.assertTrue(until(lambda: bool(self.status().receivers[0].health.told_ms)))
        server.end()
        self.tell(receiver.url()).end()
        self.assertEqual(len(receiver.posted), 2)

    def test_what_it_sends_is_signed_and_a_secret_that_others_can_read_is_warned_of(self):
        receiver = self.receiver()
        for mode, is_said in ((0o600, False), (0o640, True)):
            more = ("--notify-secret-file", str(self.secret(mode)))
            server = self.tell(receiver.url(), more=more)
            with self.subTest(mode):
                self.assertEqual("chmod 600" in server.end()[1], is_said)
                self.assertNotIn("not signed", server.log)
        self.assertIn("are not signed", self.tell(receiver.url()).end()[1])

    def test_a_url_can_be_in_a_file(self):
        receiver, file = self.receiver(), self.data_dir / "url"
        file.write_text(receiver.url() + "\n")
        self.tell(f"@{file}")
        self.hold()
        self.assertTrue(until(lambda: receiver.names() == ["hold_begun"]))

    def test_the_old_name_of_the_command_still_works(self):
        told = self.data_dir / "told"
        self.serve("--on-event", f"cat > {told}")
        self.hold()
        self.assertTrue(until(lambda: told.exists() and bool(told.read_text())))

    def test_whom_it_tells_is_said_at_the_start(self):
        server = self.tell(self.receiver().url(), more=("--notify-command", "cat"))
        self.assertRegex(
            server.end()[1], r"notices go to --notify-command, http://127.0.0.1:\d+/\.\.\.\n"
        )

    def test_the_status_that_a_killed_server_left_is_deleted_by_one_that_tells_nobody(self):
        server = self.tell(self.receiver().url())
        path = self.data_dir / "log" / "notices.json"
        self.assertTrue(until(path.exists))
        server.kill()
        self.assertTrue(path.exists())
        self.serve()
        self.assertTrue(until(lambda: not path.exists()))

    def test_its_status_is_deleted_with_the_server(self):
        server = self.tell(self.receiver().url())
        path = self.data_dir / "log" / "notices.json"
        self.assertTrue(until(path.exists))
        server.end()
        self.assertFalse(path.exists())

    def test_the_url_is_on_no_command_line_of_what_sends_it(self):
        seen: list[str] = []

        def look(_: object) -> None:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    words = (process / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"ota_server.system.notice_post" in words:
                    seen.append(repr(words))

        receiver = self.receiver(look)
        file = self.data_dir / "url"
        file.write_text(receiver.url())
        if not os.path.isdir("/proc/self"):
            self.skipTest("needs /proc")
        self.tell(f"@{file}")
        self.hold()
        self.assertTrue(until(lambda: bool(seen)))
        self.assertNotIn("s3cret", "".join(seen))


class ProcessTest(RolloutCase):
    def test_the_server_loads_neither_an_http_client_nor_openssl(self):
        receiver = WebhookReceiver()
        self.addCleanup(receiver.close)
        code = (
            "import atexit, sys;"
            "atexit.register(lambda: print('loaded', *sys.modules));"
            "from ota_server.server import main; sys.exit(main())"
        )
        server = self.serve("--notify-url", receiver.url("/").replace("http:", "https:"), code=code)
        self.assertTrue(until((self.data_dir / "log" / "notices.json").exists))
        run_command(self.data_dir, "notify", "test")
        server.end()
        loaded = {*server.banner.rpartition("loaded ")[2].split()}
        self.assertIn("ota_server.system.notice_receiver", loaded)
        self.assertEqual(loaded & {"http.client", "ssl"}, set())

    def test_what_it_says_of_receivers_holds_no_secret(self):
        receiver = WebhookReceiver()
        self.addCleanup(receiver.close)
        server = self.serve("--notify-url", receiver.url(), "--notify-command", "echo s3cret")
        path = self.data_dir / "log" / "notices.json"
        self.assertTrue(until(path.exists))
        content = path.read_text()
        self.assertNotIn("s3cret", content)
        self.assertIn("/...", content)
        self.assertTrue(path.stat().st_mode & stat.S_IROTH)  # for `status` of any user
        server.end()
