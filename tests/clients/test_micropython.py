"""Real updaters of MicroPython boards take the files of a release, by the code of our page."""

import re
import sys

from tests.support import MAC, ROOT, until
from tests.support.real_clients import PYTHON_CLIENTS, FleetCase, needs_packages

PAGE = ROOT / "docs" / "devices" / "micropython.md"
OTHER = {"_br_mac_": "02:00:00:00:00:01", "_br_fwv_": "-"}
BOARD = ROOT / "tests" / "support" / "micropython_board.py"


class BoardCase(FleetCase):
    """A board whose files are in a folder, and releases of two files for its product."""

    CLIENT = ""

    def setUp(self) -> None:
        super().setUp()
        self.board = self.folder / "board"
        self.board.mkdir()
        self.operate("product", "add", "sensor")

    def release(self, version: str) -> None:
        """Publish a release of two files, and give it to all boards."""
        files = self.folder / version
        files.mkdir()
        for name in ("main.py", "net.py"):
            (files / name).write_text(self.content(name, version))
        self.give(files, version, "--product", "sensor")
        # The server looks for new products once a second.
        self.assertTrue(
            until(lambda: self.answer("/sensor/version", OTHER).body == version.encode())
        )

    @staticmethod
    def content(name: str, version: str) -> str:
        """Return a file of a release; its letters are not all ASCII."""
        return f"# {name} für {version}\n" * 2000

    def update(self, **replaced: str) -> str:
        """Run the code of the page on the board; return what it printed."""
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        (code,) = (block for block in blocks if self.CLIENT in block)
        replaced |= {"http://192.168.1.20:7777": f"http://127.0.0.1:{self.port}"}
        replaced |= {"aa:bb:cc:dd:ee:ff": MAC}
        for old, new in replaced.items():
            self.assertIn(old, code)
            code = code.replace(old, new)
        command = [sys.executable, BOARD, self.board, code]
        return self.run_client(command, {"PYTHONPATH": str(PYTHON_CLIENTS)})

    def assert_runs(self, version: str) -> None:
        for name in ("main.py", "net.py"):
            text = (self.board / name).read_text(encoding="utf-8")
            self.assertIs(text == self.content(name, version), True, f"{name}: {text[:40]!r}")


@needs_packages("micropython_ota")
class MicropythonOtaTest(BoardCase):
    CLIENT = "micropython_ota"

    def test_a_board_gets_each_release_once_and_resets(self):
        for version in ("v1.0.0", "v2.0.0"):
            self.release(version)
            self.assertIn("\nreset\n", self.update())
            self.assert_runs(version)
            self.assertEqual((self.board / "version").read_text(), version)
            self.assertEqual(self.update(), "")
            row = self.device()
            self.assertEqual((row["product"], row["firmware_version"]), ("sensor", version))
            self.assertEqual((row["target_version"], row["state"]), (version, "up to date"))

    def test_a_board_that_is_held_stays_as_it_is(self):
        self.release("v1.0.0")
        self.update()
        self.release("v2.0.0")
        self.operate("hold", "--product", "sensor", "--reason", "night")
        self.assertEqual(self.update(), "")
        self.assert_runs("v1.0.0")


@needs_packages("senko")
class SenkoTest(BoardCase):
    CLIENT = "senko"

    def test_a_board_gets_each_file_of_each_release(self):
        for old, new in (("-", "v1.0.0"), ("v1.0.0", "v2.0.0")):
            self.release(new)
            for runs in (old, new):
                self.update(**{'"1.0.0"': f'"{runs}"'})
                self.assert_runs(new)
            row = self.device()
            self.assertEqual((row["firmware_version"], row["state"]), (new, "up to date"))
