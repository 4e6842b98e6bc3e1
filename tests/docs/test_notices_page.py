"""docs/notices.md is true: its events are those that there are, its commands verify and convert."""

import json
import os
import re
import shutil
import subprocess
import time
import unittest
from typing import Any

from ota_server.model.notice import Delivery
from ota_server.model.webhook import parse_webhook_url
from ota_server.rollouts.notices import EventName, test_notice
from ota_server.system.notice_receiver import command_receiver, url_receiver
from tests.docs.test_pages import BLOCK, DOCS, read
from tests.support import DataDirCase, until
from tests.support.webhook import Posted, WebhookReceiver

PAGE = DOCS / "notices.md"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOTICE = test_notice("2026-11-29T12:00:00.000Z", "1")


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind that the page has."""
    return [match["text"] for match in BLOCK.finditer(read(PAGE)) if match["kind"] == kind]


class NoticesPageTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.receiver = WebhookReceiver()
        self.addCleanup(self.receiver.close)
        self.secret = self.data_dir / "notify.secret"
        self.secret.write_text(SECRET + "\n")

    def posted(self) -> Posted:
        """Return a signed notice as it came."""
        sender = url_receiver(parse_webhook_url(self.receiver.url()), self.secret, "key")
        self.addCleanup(sender.end)
        self.assertTrue(sender.tell(NOTICE))
        self.assertTrue(until(lambda: bool(self.receiver.posted)))
        return self.receiver.posted[-1]

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_the_shell_command_makes_the_signature(self):
        posted = self.posted()
        (self.data_dir / "body.json").write_bytes(posted.body)
        done = subprocess.run(
            ["sh", "-e", "-c", blocks("bash")[0]],
            cwd=self.data_dir,
            env={
                **os.environ,
                "id": posted.fields["webhook-id"],
                "timestamp": posted.fields["webhook-timestamp"],
            },
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.stdout.strip(), done.stderr), (self.signature(posted), ""))

    def signature(self, posted: Posted) -> str:
        return posted.fields["webhook-signature"]

    def test_the_python_function_tells_what_is_genuine(self):
        names: dict[str, Any] = {}
        exec(blocks("python")[0], names)
        is_genuine, posted = names["is_genuine"], self.posted()
        fields, stamp = posted.fields, posted.fields["webhook-timestamp"]
        later = {**fields, "webhook-signature": f"v1,x {self.signature(posted)}"}
        old = {**fields, "webhook-timestamp": str(int(time.time()) - 301)}
        for secret, headers, body, expected in (
            (SECRET, fields, posted.body, True),
            (SECRET + "\n", later, posted.body, True),
            ("whsec_" + "A" * 32, fields, posted.body, False),
            (SECRET, fields, posted.body + b" ", False),
            (SECRET, {**fields, "webhook-id": "other"}, posted.body, False),
            (SECRET, {**fields, "webhook-timestamp": str(int(stamp) - 1)}, posted.body, False),
            (SECRET, old, posted.body, False),
        ):
            with self.subTest(expected=expected):
                self.assertEqual(is_genuine(secret, headers, body), expected)

    @unittest.skipUnless(all(map(shutil.which, ("jq", "curl"))), "needs jq and curl")
    def test_the_command_for_a_chat_sends_what_that_wants(self):
        (self.data_dir / "chat.url").write_text(self.receiver.url())
        deliveries: list[Delivery] = []
        command = command_receiver(f"cd {self.data_dir}; {blocks('bash')[1]}")
        self.addCleanup(command.end)
        command.tell(NOTICE, when_ended=deliveries.append)
        self.assertTrue(until(lambda: bool(deliveries)))
        self.assertTrue(deliveries[0].is_told)
        self.assertEqual(self.receiver.posted[0].notice, {"content": NOTICE["text"]})

    def test_it_names_the_events_that_there_are(self):
        table = read(PAGE).split("| `event` | when |")[1].split("\n\n")[0]
        named = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| ([^|]*)\|", table, re.M)))
        self.assertEqual(sorted(named), sorted(EventName))

    def test_its_example_has_the_fields_that_it_names(self):
        (example,) = map(json.loads, blocks("json"))
        table = read(PAGE).split("| field | of which events")[1].split("\n\n")[0]
        cells = re.findall(r"^\| ([^|]*)\|", table, re.M)
        named = {*re.findall(r"`([a-z]+)`", "".join(cells))}
        self.assertEqual({*example} | {"product", "user"}, named)
