"""An operator's night: a bad release, and all that follows. The page of it is written by this.

    python -m tests.whole.test_operators_night

plays the night and writes docs/operators-night.md; the test plays it too, and asks at each step
what the operator has to see. Names and numbers differ from night to night, the steps do not.
"""

import os
import re
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tests.support import ROOT, Process, until
from tests.support.fleet import NEW, OLD, Fleet, RolloutCase, run_command, run_main

PAGE = ROOT / "docs" / "operators-night.md"
HEAD = """# An operator's night

For whoever is on call: a bad release at night, from the halt to the morning, with the output.

This was played by `python -m tests.whole.test_operators_night`: 300 simulated devices ask a real
server, and the waves of the rollout take seconds instead of days. CI plays it for each change.
"""
_PROGRAM = "python -m ota_server"
_WIDTH = "80"
_SHOWN_LINES = 26


class Night:
    """One night: what is said and typed, and what the commands print."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.page = [HEAD]

    def say(self, text: str) -> None:
        """Write a paragraph."""
        self.page.append(text + "\n")

    def type(self, *words: str, code: int = 0) -> str:
        """Run a command, which must exit with `code`; return what it prints."""
        # As an operator calls it. Lines break where commands in them are as long as they are shown.
        here = {"COLUMNS": _WIDTH, "OTA_SERVER_DATA": str(self._data_dir)}
        with mock.patch.dict(os.environ, here), mock.patch.object(sys, "executable", "python"):
            actual, out, err = run_main(*words)
        assert actual == code, f"{words}: {actual}, not {code}\n{out}{err}"
        lines = (err + out).replace(str(self._data_dir), "/srv/ota").rstrip().splitlines()
        if len(lines) > _SHOWN_LINES:
            lines = [*lines[: _SHOWN_LINES - 3], "…", *lines[-2:]]
        typed = " ".join(f'"{word}"' if " " in word else word for word in words)
        self.page.append(f"```console\n{_PROGRAM} {typed}\n```\n")
        if lines:
            self.page.append("```text\n" + "\n".join(lines) + "\n```\n")
        return " ".join((out + err).split()).replace(f"`{_PROGRAM} ", "`")

    @property
    def typed(self) -> list[str]:
        """The commands, in their order."""
        return commands_of("\n".join(self.page))


def commands_of(page: str) -> list[str]:
    """Return the commands of a page, without what differs from night to night."""
    found = re.findall(rf"^{_PROGRAM} (.*)$", page, re.MULTILINE)
    return [re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", each) for each in found]


def boots(mac: str) -> bool:
    """Return whether a device can boot the new release: three of five can."""
    return int(mac[-2:], 16) % 5 < 3


@unittest.skipUnless(
    sys.platform == "linux" and os.geteuid() == 0, "mounts a small disk, as root on Linux"
)
class NightTest(RolloutCase):
    # Devices that are asked too late count as silent.
    NEEDS_QUIET = True

    def setUp(self) -> None:
        super().setUp()
        self.devices = Fleet(300)
        images = {each.name: each.read_bytes() for each in (self.data_dir / "firmware").iterdir()}
        disk = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(self.data_dir)]
        subprocess.run(disk, check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.data_dir], check=True)
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).mkdir()
        for name, content in images.items():
            (self.data_dir / "firmware" / name).write_bytes(content)
        self.set_target(OLD)

    def ask(self, server: Process, is_so: Callable[[], bool]) -> None:
        """Have the fleet ask until something is so."""
        self.ask_until(server, is_so, boots=boots)

    def test_the_page_has_the_steps_that_an_operator_takes(self):
        night = self.play()
        self.assertEqual(commands_of(PAGE.read_text("utf-8")), night.typed)

    def play(self) -> Night:
        """Play the night, and see at each step what the operator has to see."""
        night = Night(self.data_dir)
        server = self.serve()
        self.ask(server, lambda: len(self.devices.told) > 0)
        self.halt(night, server)
        self.revert(night, server)
        self.hold(night, server)
        self.fill_the_disk(night, server)
        self.restart(night, server)
        return night

    def halt(self, night: Night, server: Process) -> None:
        night.say("## 22:00, a release goes out\n\nIt has passed all tests. It goes out in waves.")
        start = ("rollout", "start", NEW, "--waves", "10,50,100", "--count-new")
        night.type(*start, "--soak", "2s", "--apply-grace", "1s")
        self.ask(server, lambda: self.state() == "halted")
        night.say("## 03:00, it was halted\n\nThe pager rang. What is wrong?")
        seen = night.type("status", code=1)
        self.assertIn(f"the rollout of {NEW} was halted", seen)
        failed = re.search(r"(\d+) failed", seen)
        assert failed is not None
        night.say("Which devices are that, and what did they do?")
        listed = night.type("rollout", "devices", "--failed", "--limit", "5")
        self.assertIn(f"{failed[1]} failed", listed)
        mac = next(each for each in re.findall(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", listed))
        night.say("What does one of them get now, and why?")
        self.assertIn(f"is told {OLD}", night.type("why", mac))

    def revert(self, night: Night, server: Process) -> None:
        night.say("## Back to what ran before\n\nSome devices run the bad release: back.")
        night.type("rollout", "abort", "--revert")
        night.say(
            "A revert waits for five minutes at most after each wave; it may be less tonight."
        )
        night.type("rollout", "change", "--soak", "1s", "--apply-grace", "1s")

        def is_back() -> bool:
            return self.state() == "done" and NEW not in self.devices.versions.values()

        self.ask_until(server, is_back)
        seen = night.type("status")
        self.assertIn(f"300 {OLD}", seen)

    def hold(self, night: Night, server: Process) -> None:
        night.say(
            "## Nothing moves until morning\n\nNobody else should begin anything tonight: with a "
            "hold each device is told to stay on what it runs. It is the last line of each table."
        )
        night.type("hold", "--reason", f"{NEW} does not boot on every board")
        self.assertIn("does not boot", night.type("status", code=1))
        self.assertIn("hold", night.type("devices", "--limit", "3"))

    def fill_the_disk(self, night: Night, server: Process) -> None:
        night.say(
            "## 04:00, the disk is full\n\nSomething else has filled it. Devices are still "
            "answered; the server remembers whose records are missing."
        )
        filler = self.data_dir / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(65536)):
                    pass
            except OSError:
                pass

        def is_noticed() -> bool:
            self.devices.ask(server.port)
            return run_command(self.data_dir, "health")[1].count("journal") > 0

        self.assertTrue(until(is_noticed))
        self.assertIn("disk", night.type("health", code=1))
        told = self.devices.told.total()
        self.devices.ask(server.port)
        self.assertEqual(self.devices.told.total(), told + 300)
        filler.unlink()

        def is_over() -> bool:
            self.devices.ask(server.port)
            return "journal" not in run_command(self.data_dir, "health")[1]

        self.assertTrue(until(is_over))
        night.say("With room again it catches up by itself. Only the hold is left:")
        self.assertNotIn("disk", night.type("health", code=1))

    def restart(self, night: Night, server: Process) -> None:
        night.say("## 05:00, the machine restarts\n\nThe power fails (`kill -9`). No server runs:")
        server.kill()
        self.assertIn("no server runs", night.type("health", code=1))
        again = self.serve()
        self.devices.ask(again.port)
        # A moment after its start it says where it listens.
        self.assertTrue(
            until(lambda: f"port {again.port}" in run_command(self.data_dir, "status")[1])
        )
        night.say(
            "It starts again, and knows all that it knew: each answer was on record before it "
            "was sent."
        )
        self.assertIn("300 on record", night.type("status", code=1))
        night.say("## 08:00, the morning\n\nThe release is fixed; the hold is lifted.")
        night.type("unhold")
        self.assertIn("hold none", night.type("status"))
        night.say("What was done, and by whom, is in the audit log; the rollouts are kept too:")
        self.assertIn("unhold", night.type("audit"))
        self.assertIn("halted", night.type("rollout", "history"))


def write_page() -> None:
    """Play the night, and write the page."""
    test = NightTest("test_the_page_has_the_steps_that_an_operator_takes")
    NightTest.setUpClass()
    try:
        test.setUp()
        PAGE.write_text("\n".join(test.play().page).rstrip() + "\n", "utf-8")
    finally:
        test.doCleanups()
        NightTest.doClassCleanups()


if __name__ == "__main__":
    write_page()
