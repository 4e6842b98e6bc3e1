"""What commands warn of after an action, the page that follows and the API say too."""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import ROOT, TIMEOUT_SECONDS, Process
from tests.support.fleet import NEW, OLD, mac_of, run_command
from tests.support.operators import (
    Operators,
    ask_all,
    await_indexed,
    make_data_dir,
    make_token,
    some_devices,
)

NO_SERVER = "no server runs on"


class AloneCase(unittest.TestCase):
    """A controller on a data directory on which no server runs any longer."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.data_dir = Path(folder.name) / "data"
        make_data_dir(self.data_dir)
        server = Process("--data-dir", str(self.data_dir), "--admin", "127.0.0.1:0")
        self.addCleanup(server.kill)
        ask_all(server.port, some_devices(4, [OLD]))
        await_indexed(self.data_dir, 4)
        server.end()
        self.operators = Operators(self.controller(), make_token(self.data_dir))

    def controller(self) -> int:
        """Start one; return its port."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ota_server.controller", "--admin", "127.0.0.1:0"),
                *("--data-dir", str(self.data_dir)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.wait, TIMEOUT_SECONDS)
        self.addCleanup(process.terminate)
        assert process.stderr is not None
        found = re.search(r"operators: http://127\.0\.0\.1:(\d+)/", process.stderr.readline())
        assert found is not None
        return int(found[1])

    def notes_after(self, path: str, form: Mapping[str, str] = {}) -> str:
        """Send a form; return the notes of the page that follows, and fail if they come twice."""
        answer = self.operators.post(path, form)
        self.assertEqual(answer.status, 303, answer.body)
        url = answer.fields["location"]
        part = self.operators.get(url, X_Fragment="1").body  # a part that is renewed takes none
        first, again = (_notes(self.operators.get(url).body) for _ in range(2))
        left = [each for each in first if each not in again]
        self.assertNotIn(first[0] if left else "-", _notes(part))
        return " ".join(left)

    def said(self, method: str, path: str, content: object = None, status: int = 200) -> str:
        """Ask the API; return the warnings."""
        found, said = self.operators.json(method, f"/api/v1{path}", content)
        self.assertEqual(found, status, said)
        warnings: Any = said["warnings"]
        return " ".join(warnings)


def _notes(page: bytes) -> list[str]:
    """Return the warnings on a page."""
    return re.findall(r'<p class="note warn">(.*?)</p>', page.decode("utf-8"))


class WithoutServerTest(AloneCase):
    def test_the_page_says_that_no_server_runs(self):
        for path, form in (
            ("/hold", {"product": ""}),
            ("/unhold", {"product": ""}),
            (f"/releases/default/{NEW}/activate", {}),
            ("/releases/rollback", {"product": "default", "version": OLD}),
            ("/rollouts/new", {"version": NEW, "waves": "50,100", "count_new": "on"}),
        ):
            with self.subTest(path):
                self.assertIn("No server runs on", self.notes_after(path, form))
        (rollout,) = self.operators.json("GET", "/api/v1/rollouts")[1]["rollouts"]
        for action, form in (
            ("pause", {}),
            ("resume", {}),
            ("change", {"soak_seconds": "7s"}),
            ("abort", {}),
        ):
            with self.subTest(action):
                path = f"/rollouts/default/{rollout['id']}/{action}"
                self.assertIn("No server runs on", self.notes_after(path, form))

    def test_the_api_says_that_no_server_runs(self):
        for method, path, content in (
            ("PUT", "/hold", {}),
            ("DELETE", "/hold", None),
            ("PUT", "/hold/default", {}),
            ("DELETE", "/hold/default", None),
            ("POST", f"/releases/default/{NEW}/activate", {}),
            ("POST", "/products/default/rollback", {}),
        ):
            with self.subTest(path, method=method):
                self.assertIn(NO_SERVER, self.said(method, path, content))
        request = {"version": NEW, "waves": [50, 100], "count_new": True}
        self.assertIn(NO_SERVER, self.said("POST", "/rollouts/default", request, 201))
        (rollout,) = self.operators.json("GET", "/api/v1/rollouts")[1]["rollouts"]
        url = f"/rollouts/default/{rollout['id']}"
        for method, path, content in (
            ("POST", f"{url}/pause", None),
            ("POST", f"{url}/resume", None),
            ("PATCH", url, {"soak_seconds": 7}),
            ("POST", f"{url}/abort", None),
        ):
            with self.subTest(path):
                self.assertIn(NO_SERVER, self.said(method, path, content))
        self.assertEqual(self.operators.json("DELETE", "/api/v1/hold")[0], 204)  # it was off


class WarnedTest(AloneCase):
    def test_that_devices_are_on_hold(self):
        run_command(self.data_dir, "group", "add", "beta", mac_of(0))
        run_command(self.data_dir, "hold", "--reason", "a test")
        words = "verything is on hold: a test; no device is offered anything until"
        path = f"releases/default/{NEW}/activate"
        self.assertIn(words, self.notes_after(f"/{path}"))
        self.assertIn(words, self.said("POST", f"/{path}", {}))
        for who in (f"devices/default/{mac_of(1)}", "groups/default/beta"):
            self.assertIn(words, self.said("PUT", f"/{who}/pin", {"version": OLD}))

    def test_that_a_rollout_is_still_there(self):
        request = {"version": NEW, "waves": [50, 100], "count_new": True}
        self.said("POST", "/rollouts/default", request, 201)
        words, path = f"he rollout of {NEW} is still there", f"releases/default/{OLD}/activate"
        self.assertIn(words, self.notes_after(f"/{path}", {"force": "1"}))
        self.assertIn(words, self.said("POST", f"/{path}", {"force": True}))

    def test_that_a_release_has_the_bytes_of_another(self):
        image = (self.data_dir / "firmware" / f"firmware_{NEW}.bin").read_bytes()
        words = f"the same bytes as {NEW}"
        fields = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        answer = self.operators.ask("PUT", "/api/v1/releases/default/v3.0.0", image, fields)
        self.assertIn(words, " ".join(json.loads(answer.body)["warnings"]))
        answer = self.operators.ask("POST", "/releases/upload", image, fields)
        url = answer.fields["location"]
        self.assertIn(words, self.notes_after(f"{url}/publish", {"version": "v4.0.0"}))

    def test_what_devices_are_named_in(self):
        ours, others, unknown = mac_of(0), mac_of(1), "02:ff:ff:ff:ff:ff"
        self.said("PUT", f"/devices/default/{others}/label", {"label": "well"})
        words = f"{others} is called that too"
        self.assertIn(words, self.said("PUT", f"/devices/default/{ours}/label", {"label": "well"}))
        done = self.said("PUT", f"/devices/default/{unknown}/pin", {"version": OLD})
        self.assertIn("not on record", done)
        run_command(self.data_dir, "pin", ours, OLD)
        run_command(self.data_dir, "group", "add", "beta", ours)
        form = {"action": "forget", "product": "default", "scope": "chosen", "key": ours}
        asking = " ".join(_notes(self.operators.post("/devices/preview", form).body))
        self.assertIn(f"{ours} is still pinned to {OLD}", asking)
        found = self.said("DELETE", f"/devices/default/{ours}")
        self.assertIn(f"{ours} is still pinned to {OLD}; `unpin {ours}` ends the pin", found)
        self.assertIn(f"`group remove beta {ours}`", found)
