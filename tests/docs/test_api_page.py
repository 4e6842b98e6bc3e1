"""The commands of docs/api.md do what they say, in their order."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.support import ROOT
from tests.support.operators import OperatorsCase, some_devices

PAGE = ROOT / "docs" / "api.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAC = "00:11:22:33:44:55"


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class ApiPageTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in({_MAC: "v1.0.0", **some_devices(40, ["v1.0.0"])})
        cls.await_devices(41)

    def test_each_request_of_the_page_is_answered_as_it_says(self):
        blocks = _BLOCK.findall(PAGE.read_text("utf-8"))
        asked, self.next, self.links = 0, "", 0
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "build").mkdir()
            (Path(folder) / "build" / "firmware.bin").write_bytes(b"a build of one's own " * 99)
            for block in blocks:
                for command in block.replace("\\\n", " ").splitlines():
                    if command.startswith("curl "):
                        asked += 1
                        with self.subTest(command):
                            self.run_it(command, folder)
        self.assertEqual(asked, 17)
        self.assertEqual(self.links, 2)

    def run_it(self, command: str, folder: str) -> None:
        is_stream = "/events" in command
        command = command.replace("http://127.0.0.1:7778", "${API%/api/v1}")
        done = subprocess.run(
            ["sh", "-c", command.replace("curl ", "curl -q --fail-with-body --noproxy '*' ", 1)],
            cwd=folder,
            env={
                **os.environ,
                "AUTH": f"Authorization: Bearer {self.operators.token}",
                "NEXT": self.next,
                "API": f"http://127.0.0.1:{self.operators.port}/api/v1",
            },
            capture_output=True,
            text=True,
        )
        # 28: a stream goes on until curl has had enough.
        self.assertEqual(done.returncode, 28 if is_stream else 0, done.stdout + done.stderr)
        if link := re.search('^Link: <(.*)>; rel="next"', done.stdout, re.MULTILINE):
            self.next = link[1]
            self.links += 1
        if is_stream:
            self.assertIn("retry: 3000", done.stdout)
