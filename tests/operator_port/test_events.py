"""Streams of what changes: what they say, to whom, and how many there may be."""

import json
import socket
import time
import unittest
from contextlib import ExitStack
from threading import Thread

from ota_server.httpd.taken import TakenConnection
from ota_server.operations.token_edits import revoke_token
from ota_server.operator_port.changes import MOST_STREAMS, Changes, SiteChange
from ota_server.operator_port.events import COMMENT_SECONDS, EventStream, event_text
from tests.support import TIMEOUT_SECONDS, Client, until
from tests.support.operators import OperatorsCase, make_token, some_devices


class Listener:
    """Listens to a stream."""

    def __init__(self, port: int, path: str = "/events", **fields: str) -> None:
        self.client = Client(port)
        head = {"Host": f"127.0.0.1:{port}", **fields}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
        self.client.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        self.head = self.client.read_until(b"\r\n\r\n").decode("latin-1")
        self.status = int(self.head.split(" ")[1])

    def next(self) -> dict[str, str]:
        """Return the fields of the next event, or of the next comment under ""."""
        block = self.client.read_until(b"\n\n").decode("utf-8")
        assert block.endswith("\n\n"), block
        return dict(line.split(": ", 1) for line in block.strip().split("\n"))

    def next_of(self, kind: str) -> dict[str, str]:
        """Return the next event of a kind."""
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while (found := self.next()).get("event") != kind:
            assert time.monotonic() < give_up_at, f"no event of {kind}"
        return found

    def close(self) -> None:
        self.client.sock.close()


class EventsTest(OperatorsCase):
    def listen(self, path: str = "/events", **fields: str) -> Listener:
        listener = Listener(self.server.admin_port, path, **fields)
        self.addCleanup(listener.close)
        return listener

    def hold(self, on: bool = True) -> None:
        status, _ = self.operators.json("PUT" if on else "DELETE", "/api/v1/hold")
        self.assertIn(status, (200, 204))

    def test_a_stream_says_how_to_come_back_and_that_nothing_may_keep_it(self):
        listener = self.listen()
        self.assertEqual(listener.status, 200)
        for field in (
            "Content-Type: text/event-stream",
            "Cache-Control: no-store",
            "X-Accel-Buffering: no",
            "Connection: close",
        ):
            self.assertIn(f"\r\n{field}\r\n", listener.head)
        self.assertNotIn("Content-Length", listener.head)
        first = listener.next()
        self.assertEqual(first["retry"], "3000")
        self.assertTrue(first["id"].isdigit())

    def test_a_device_that_appears_is_told_by_name(self):
        listener = self.listen("/api/v1/events")
        self.check_in({"02:00:00:00:77:77": "v1.0.0"})
        # The first one may have come before there was an index.
        while "total" not in json.loads(listener.next_of("devices")["data"]):
            pass
        mac = "02:00:00:00:77:78"
        self.check_in({mac: "v1.0.0"})
        named: list[str] = []
        while mac not in named:
            said = json.loads(listener.next_of("devices")["data"])
            named += [each["mac"] for each in said.get("new", ())]

    def test_an_action_of_a_page_is_told_once(self):
        listener = self.listen()
        listener.next()
        self.operators.post("/hold", {"product": ""})
        # Whoever looks for changes sees this one together with the hold, or later.
        (self.data_dir / "log" / "rejected.jsonl").touch()
        kinds = []
        while "rejected" not in kinds:
            kinds.append(listener.next().get("event"))
        self.operators.post("/unhold", {"product": ""})
        self.assertEqual(kinds.count("hold"), 1, kinds)

    def test_who_comes_back_is_told_what_was_missed(self):
        listener = self.listen()
        begun = listener.next()["id"]
        self.hold()
        told = listener.next_of("hold")
        listener.close()
        self.hold(on=False)
        for path, fields in (
            ("/events", {"Last_Event_ID": begun}),
            (f"/events?last_event_id={begun}", {}),
            ("/events?last_event_id=1", {"Last_Event_ID": begun}),
        ):
            with self.subTest(path=path, fields=fields):
                again = self.listen(path, **fields)
                self.assertEqual(again.next_of("hold"), told)
                self.assertGreater(int(again.next_of("hold")["id"]), int(told["id"]))

    def test_who_was_away_for_too_long_looks_at_everything_again(self):
        for last_id in ("1", "0" * 19, "x", "9" * 40):
            with self.subTest(last_id):
                listener = self.listen("/events", Last_Event_ID=last_id)
                listener.next()
                self.assertEqual(listener.next()["event"], "all")

    def test_a_head_request_has_no_stream(self):
        answer = self.operators.ask("HEAD", "/events")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_what_cannot_be_a_stream_is_not_acceptable(self):
        answer = self.operators.get("/api/v1/events", Accept="application/json")
        self.assertEqual(answer.status, 406)


class ManyStreamsTest(OperatorsCase):
    def test_of_a_hundred_streams_the_first_are_served_and_the_others_told_to_poll(self):
        with ExitStack() as stack:
            listeners = [Listener(self.server.admin_port) for _ in range(100)]
            for each in listeners:
                stack.callback(each.close)
            statuses = [each.status for each in listeners]
            self.assertEqual(statuses, [200] * MOST_STREAMS + [503] * (100 - MOST_STREAMS))
            self.assertIn("\r\nRetry-After: ", listeners[-1].head)
            begun = time.monotonic()
            self.assertEqual(self.operators.json("GET", "/api/v1/hold")[0], 200)
            self.assertLess(time.monotonic() - begun, 2.0)
        # Who leaves makes room for the next one.
        self.assertTrue(until(self._is_served))

    def _is_served(self) -> bool:
        listener = Listener(self.server.admin_port)
        listener.close()
        return listener.status == 200


class EndTest(OperatorsCase):
    def test_a_stream_ends_when_its_token_is_revoked(self):
        authorization = f"Bearer {make_token(self.data_dir, 'listener', may_act=False)}"
        listener = Listener(self.server.admin_port, Authorization=authorization)
        self.addCleanup(listener.close)
        self.assertEqual(listener.status, 200)
        revoke_token(self.data_dir, "listener")
        listener.client.sock.settimeout(10)
        listener.client.read_all()

    def test_a_stream_ends_when_the_server_does(self):
        listener = Listener(self.server.admin_port)
        self.check_in(some_devices(1))
        self.assertEqual(self.server.end()[0], 0)
        listener.client.sock.settimeout(10)
        listener.client.read_all()
        listener.close()


class CommentTest(unittest.TestCase):
    def test_proxies_that_close_what_is_silent_for_half_a_minute_close_no_stream(self):
        self.assertEqual(COMMENT_SECONDS, 15)

    def test_a_stream_to_which_nothing_happens_has_comments(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.settimeout(TIMEOUT_SECONDS)
        ours.setblocking(False)
        changes = Changes(0)
        stream = EventStream(changes, TakenConnection(ours, b"", None), None, comment_seconds=0.01)
        thread = Thread(target=stream.send, args=(1,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(changes.close)
        with theirs.makefile("rb") as sent:
            while (line := sent.readline()) != b"\r\n":
                self.assertTrue(line)
            self.assertEqual(
                [sent.readline() for _ in range(3)], [b"retry: 3000\n", b"id: 0\n", b"\n"]
            )
            for _ in range(2):
                self.assertEqual([sent.readline(), sent.readline()], [b": still here\n", b"\n"])


class EventTextTest(unittest.TestCase):
    def test_what_a_device_calls_itself_stays_within_the_data_of_its_event(self):
        name = "id:a\r\ndata: b\n\nevent: hold"
        text = event_text(SiteChange(7, "devices", {"new": [{"mac": name}]}))
        lines = text.decode("ascii").split("\n")
        self.assertEqual(lines[:2], ["id: 7", "event: devices"])
        self.assertEqual(lines[3:], ["", ""])
        self.assertEqual(json.loads(lines[2].removeprefix("data: "))["new"], [{"mac": name}])
