"""kill -9 of the controller in the middle of what an operator does: whole or not at all."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.support import ROOT, DataDirCase, Process, until
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import Operators, ask_all, make_data_dir, make_token, some_devices

DEVICES = 2000
NAMES = [mac_of(each) for each in range(DEVICES)]
ROUNDS = 3


class KilledControllerTest(DataDirCase):
    """A controller beside a server, which is killed at many moments and started again at once."""

    def setUp(self) -> None:
        super().setUp()
        self.data_dir = self.data_dir / "data"
        make_data_dir(self.data_dir)
        (self.data_dir / "version" / "groups").mkdir()
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.end)
        self.port = server.port
        ask_all(server.port, some_devices(DEVICES))
        self.operators = Operators(0, make_token(self.data_dir))
        self.start()
        self.addCleanup(self.kill)
        self.assertTrue(until(lambda: self.count() == DEVICES))

    def start(self) -> None:
        command = [sys.executable, "-m", "ota_server.controller", "--admin", "127.0.0.1:0"]
        self.controller = subprocess.Popen(
            [*command, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.controller.stderr is not None
        for line in self.controller.stderr:
            if found := re.search(r"operators: http://127\.0\.0\.1:(\d+)/", line):
                self.operators.port = int(found[1])
                break

    def kill(self) -> None:
        self.controller.kill()
        self.controller.communicate()

    def count(self) -> int:
        status, found = self.operators.json("GET", "/api/v1/devices?limit=1")
        return int(found["total"]) if status == 200 else -1

    def killed_while(self, do: Callable[[], object], has_begun: Callable[[], bool]) -> None:
        """Do something, kill the controller when it has begun, and start it again."""

        def lost() -> None:
            with suppress(OSError, ValueError, AssertionError):
                do()

        doing = threading.Thread(target=lost)
        doing.start()
        until(lambda: has_begun() or not doing.is_alive(), pause_seconds=0.0002)
        self.kill()
        doing.join()
        self.start()
        self.assertEqual(self.operators.get("/devices").status, 200)
        answers = ask_all(self.port, {mac_of(0): OLD})
        self.assertEqual([each.status for each in answers], [200])
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        for folder in ("version", "version/groups", "firmware"):
            left = [each.name for each in (self.data_dir / folder).glob(".*.new")]
            self.assertEqual(left, [], folder)

    def has_audited(self, words: str) -> Callable[[], bool]:
        path = self.data_dir / "log" / "audit.jsonl"
        before = path.read_text().count(words) if path.exists() else 0
        return lambda: path.exists() and path.read_text().count(words) > before

    def bulk(self, action: str, **wish: str) -> None:
        wanted = {"action": action, "product": "default", "keys": NAMES, "expected": DEVICES}
        status, said = self.operators.json("POST", "/api/v1/devices/actions", {**wanted, **wish})
        assert status == 200, said

    def decided(self, name: str, pick: Callable[[dict[str, object]], list[object]]) -> list[int]:
        """Return how many devices have each value in a file."""
        path = self.data_dir / "version" / name
        return (
            [*Counter(map(str, pick(json.loads(path.read_text())))).values()]
            if (path.exists())
            else []
        )

    def test_a_bulk_action_reaches_all_devices_or_none(self):
        for each in range(ROUNDS):
            do = (
                lambda each=each: self.bulk("label", label=f"L{each}"),
                lambda each=each: self.bulk("pin", version=(OLD, NEW)[each % 2]),
                lambda each=each: self.bulk("group add", group=f"g{each}"),
            )
            for action, words in zip(do, ('"label"', '"pin"', '"group add"'), strict=True):
                self.killed_while(action, self.has_audited(words))
                labels = self.decided("labels.json", lambda found: [*found.values()])
                self.assertIn(labels, ([], [DEVICES]))
                pins = self.decided("pins.json", lambda found: [*found.get("devices", {}).values()])
                self.assertIn(pins, ([], [DEVICES]))
                for path in (self.data_dir / "version" / "groups").iterdir():
                    self.assertEqual(len(path.read_text().splitlines()), DEVICES)

    def test_a_forget_of_all_devices_reaches_all_or_none(self):
        self.killed_while(lambda: self.bulk("forget"), self.has_audited('"forget"'))
        # Those of which it is on record go, also without who had that done.
        self.assertTrue(until(lambda: self.count() in (1, DEVICES)), self.count())

    def test_an_upload_leaves_nothing(self):
        firmware = self.data_dir / "firmware"
        before = sorted(firmware.iterdir())
        content = b"a" * 30_000_000
        self.killed_while(
            lambda: self.operators.ask("POST", "/releases/upload?name=a", content),
            lambda: any(each.stat().st_size for each in firmware.glob(".firmware_upload_*")),
        )
        self.assertEqual(sorted(firmware.iterdir()), before)

    def test_a_publication_is_whole_or_not_there(self):
        firmware, octets = self.data_dir / "firmware", {"Content-Type": "application/octet-stream"}
        for at in range(2 * ROUNDS):
            path, content = f"/api/v1/releases/default/v9.{at}", b"%d" % at * 3_000_000
            moments = (
                lambda: any(firmware.glob(".firmware_v9*")),
                lambda at=at: (firmware / f"firmware_v9.{at}.json").exists(),
            )
            self.killed_while(
                lambda path=path, content=content: self.operators.ask(
                    "PUT", path, content, {**octets, "Accept": "*/*"}
                ),
                moments[at % 2],
            )
            names = {each.name for each in firmware.glob("firmware_v9*")}
            for name in {each.rpartition(".")[0] for each in names}:
                self.assertLessEqual({f"{name}.bin", f"{name}.json"}, names)
                said = json.loads((firmware / f"{name}.json").read_text())["sha256"]
                there = hashlib.sha256((firmware / f"{name}.bin").read_bytes()).hexdigest()
                self.assertEqual(said, there)

    def test_a_rollout_begins_or_does_not(self):
        wanted = {"version": NEW, "waves": [50, 100], "count_new": True}
        plan = self.data_dir / "version" / "rollout.json"
        self.killed_while(
            lambda: self.operators.json("POST", "/api/v1/rollouts/default", wanted),
            self.has_audited('"rollout start"'),
        )
        status, found = self.operators.json("GET", "/api/v1/rollouts")
        self.assertEqual((status, len(found["rollouts"])), (200, int(plan.exists())))
