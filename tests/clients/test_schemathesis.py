"""The API as schemathesis finds it: it reads the description, sends what that allows and forbids.

It checks each answer against the description, sends each request without a token and with a wrong
one, and asks for what it has made and what it has deleted.
"""

import json
import os
import re
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from ota_server.operator_port.api import OPERATIONS
from ota_server.operator_port.openapi import document
from tests.support import ROOT
from tests.support.operators import OperatorsCase, make_token, some_devices

# Where .ci/run puts it, with all that it needs.
TOOLS = Path(os.environ.get("OTA_SERVER_TEST_API_TOOLS", "/nowhere"))
_SEED = "7"
_MOST_SECONDS = 240
_MAC = "02:00:00:00:00:01"
# A stream has no end: the first event is enough.
_CONFIG = """\
[[operations]]
include-path = "/api/v1/events"
max-stream-events = 1
"""
# What is there, so that it comes further than to 404.
_NAMED = f"""
[parameters]
"path.product" = "default"
"path.mac" = "{_MAC}"
"path.group" = "beta"
"path.version" = "v2.0.0"
"path.rollout" = "%s"
"""


needs_schemathesis = unittest.skipUnless(
    (TOOLS / "st").is_file(), "the folder OTA_SERVER_TEST_API_TOOLS has no schemathesis"
)


class SchemathesisCase(OperatorsCase):
    """A server with devices and a group, and schemathesis."""

    @classmethod
    def prepare(cls) -> None:
        groups = cls.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text(f"{_MAC}\n")

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(30, ["v1.0.0"]))
        cls.await_devices(30)

    def run_it(self, config: str, *arguments: str) -> str:
        """Run it; return what it says. Its exit code is 1 if it has found a failure."""
        url = f"http://127.0.0.1:{self.server.admin_port}/api/v1/openapi.json"
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "schemathesis.toml"
            settings.write_text(config)
            command = [str(TOOLS / "st"), "--config-file", str(settings), "run", url]
            command += ["--header", f"Authorization: Bearer {self.operators.token}"]
            command += ["--seed", _SEED, "--continue-on-failure", "--no-shrink", *arguments]
            done = subprocess.run(
                command,
                cwd=folder,
                env={
                    **os.environ,
                    "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
                    "PYTHONPATH": str(ROOT),
                    "NO_PROXY": "*",
                    "COLUMNS": "150",
                },
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
            )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        return said


@needs_schemathesis
class WholeApiTest(SchemathesisCase):
    TAKES_LONG = True
    # Where others reach it, reading needs a token as well.
    ARGUMENTS = ("--admin", "0.0.0.0:0")

    @classmethod
    def prepare(cls) -> None:
        super().prepare()
        make_token(cls.data_dir, "first")

    def test_no_answer_differs_from_the_description_and_no_missing_token_is_ignored(self):
        done = threading.Event()
        # Streams need something to tell.
        changing = threading.Thread(target=self._change_until, args=(done,))
        changing.start()
        try:
            said = self.run_it(_CONFIG, "--checks", "all", "--max-examples", "8")
        finally:
            done.set()
            changing.join()
        self.assertNotIn("Traceback", self.server.logged())
        match = re.search(r"Tested: +(\d+)", said)
        assert match is not None, said
        paths = self.operators.json("GET", "/api/v1/openapi.json")[1]["paths"]
        # It leaves out the description itself.
        self.assertEqual(int(match[1]), sum(map(len, paths.values())) - 1, said)

    def _change_until(self, done: threading.Event) -> None:
        path = self.data_dir / "log" / "rejected.jsonl"
        while not done.wait(0.2):
            path.touch()


@needs_schemathesis
class ThingsThatAreThereTest(SchemathesisCase):
    TAKES_LONG = True

    def test_what_is_there_is_answered_as_described(self):
        status, rollout = self.operators.json(
            "POST", "/api/v1/rollouts/default", {"version": "v2.0.0", "count_new": True}
        )
        self.assertEqual(status, 201, rollout)
        config = _CONFIG + _NAMED % rollout["id"]
        # Without what ends the rollout or deletes what the others need, which is tested above.
        self.run_it(
            config,
            *("--checks", "all", "--max-examples", "4", "--phases", "examples,fuzzing"),
            *("--include-path-regex", "{"),
            *("--exclude-method", "DELETE"),
            *("--exclude-path-regex", "(abort|revert|withdraw|activate)$"),
        )
        self.assertNotIn("Traceback", self.server.logged())


@unittest.skipUnless(
    (TOOLS / "openapi-spec-validator").is_file(),
    "the folder OTA_SERVER_TEST_API_TOOLS has no openapi-spec-validator",
)
class DescriptionTest(unittest.TestCase):
    def test_the_description_is_valid_openapi(self):
        for reads_openly in (False, True):
            said = json.dumps(document(OPERATIONS, "1", "By a command.", reads_openly))
            with self.subTest(reads_openly), tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "openapi.json"
                path.write_text(said)
                done = subprocess.run(
                    [str(TOOLS / "openapi-spec-validator"), "--schema", "3.2", str(path)],
                    capture_output=True,
                    text=True,
                )
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
