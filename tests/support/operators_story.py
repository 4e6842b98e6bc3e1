"""What an operator does in a browser when a release comes, step by step.

The tests take these steps and look at what pages show; `screenshots/pages.py` takes them and makes
pictures.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.commands import call
from tests.support.past_fleet import FAMILIES, PILOT, PastFleet, away, family_of, pilots
from tests.support.real_browser import NeverShown, Window

OPERATOR = "anna"
RELEASE = "v2.0.0"
NOTES = "Sensors sleep between readings: half the current."
PUBLISH = "Publish: no device is offered it yet"
# The family that cannot boot the release; the pilot group has none of it.
BAD_FAMILY = FAMILIES[-1]
_SHORT = {"soak_seconds": "1s", "grace_seconds": "1s", "waves": "4,100", "first_group": PILOT}
# How often devices ask. More often than this they make more records than the controller reads on a
# machine that runs other tests too, where a step of a rollout may take a minute all the same.
_LOOK_MS = 400
_PATIENCE_SECONDS = 180.0
_ASKED_MS = 20_000


def boots(number: int) -> bool:
    """Return whether a device runs the release once it has it."""
    return family_of(number) != BAD_FAMILY


class OperatorsStory:
    """One operator in one window, and the devices.

    Attributes:
        page: of playwright.
        rollout_path: of the page of the rollout, once it has begun.
    """

    def __init__(self, window: Window, data_dir: Path, fleet: PastFleet) -> None:
        self.window = window
        self.page = window.page
        self.fleet = fleet
        self.rollout_path = ""
        self._data_dir = data_dir

    def press(self, words: str) -> None:
        """Press a button, or follow a link that looks like one."""
        button = self.page.get_by_role("button", name=words, exact=True)
        self.page.get_by_role("main").get_by_role("link", name=words, exact=True).or_(
            button
        ).first.click()

    def go(self, name: str) -> None:
        """Go to a page by the links at the top."""
        self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        self.page.get_by_role("heading", level=1).first.wait_for()

    def sign_in(self) -> None:
        """Sign in by the link that `token login` prints."""
        origin = self.page.evaluate("location.origin")
        folder = ("--data-dir", str(self._data_dir))
        if OPERATOR not in call("token", "list", *folder).stdout:
            call("token", "create", OPERATOR, *folder)
        done = call("token", "login", OPERATOR, "--url", origin, *folder)
        assert done.returncode == 0, done.stderr
        link = re.search(r"http\S+/login\S+", done.stdout)
        assert link is not None, done.stdout
        self.page.goto(link[0])
        self.press("Sign in")
        self.page.get_by_role("button", name="Sign out").wait_for()

    def choose_image(self, image: Path) -> None:
        """Send the image of a build by choosing its file."""
        self.go("Releases")
        self.page.locator("input[type=file]").set_input_files(image)
        self.page.wait_for_url("**/uploads/**")

    def drop_image(self, image: Path) -> None:
        """Send the image of a build by dropping its file onto the page."""
        self.go("Releases")
        # The browser lets a script have a file only from a field.
        self.page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<input id=held type=file>')"
        )
        self.page.locator("#held").set_input_files(image)
        self.page.evaluate(
            """() => {
              const given = new DataTransfer();
              given.items.add(document.getElementById("held").files[0]);
              for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector(".drop").dispatchEvent(new DragEvent(
                  kind, {dataTransfer: given, bubbles: true, cancelable: true}));
            }"""
        )
        self.page.wait_for_url("**/uploads/**")

    def fill_in_release(self, version: str, notes: str) -> None:
        """Say what the image that was sent is, and publish it."""
        self.page.get_by_label("Version", exact=True).fill(version)
        self.page.get_by_label("Notes").fill(notes)
        self.press(PUBLISH)

    def preview_rollout(self) -> None:
        """Fill in a rollout to the pilot group, then to a part of the fleet, then to all."""
        self.go("Rollouts")
        self.press("Start a rollout")
        page = self.page
        page.locator("select[name=version]").select_option(RELEASE)
        page.get_by_label("Note").fill("Battery life, as promised to the shops")
        page.get_by_text("Waves and limits").click()
        for name in ("waves", "soak_seconds", "grace_seconds"):
            page.locator(f"input[name={name}]").fill(_SHORT[name])
        page.locator("select[name=first_group]").select_option(_SHORT["first_group"])
        self.press("Show what it would do")
        page.get_by_role("heading", name=f"Roll out {RELEASE}?").wait_for()

    def begin_rollout(self) -> None:
        """Begin what the preview shows."""
        self.press(f"Begin: {len(pilots())} devices first")
        self.page.wait_for_url("**/rollouts/default/*")
        self.rollout_path = self.page.evaluate("location.pathname")

    def do_and_confirm(self, button: str, confirm: str = "") -> None:
        """Press a button of the rollout, and the one of the page that asks."""
        asked = self.page.get_by_role("main").get_by_role(
            "button", name=confirm or button, exact=True
        )
        for attempts_left in (2, 1, 0):
            self.press(button)
            self.page.wait_for_url("**/rollouts/default/*/*")
            try:
                asked.first.click(timeout=_ASKED_MS)
                break
            except NeverShown:
                # As a person does where the page says that it cannot be done at this moment.
                assert attempts_left, self.page.inner_text("main")
                self.page.goto(self.rollout_path)
        self.page.wait_for_url(f"**{self.rollout_path}")

    def updated(self) -> int:
        """Return how many devices have the release, by the bars of the page."""
        titles = self.page.locator("#waves svg.bar .good title")
        texts = titles.all_text_contents()
        return max((int(each.split(" ")[0].replace(",", "")) for each in texts), default=0)

    def state(self) -> str:
        """Return the state of the rollout, as the page says it."""
        return self.page.locator("#state .state").inner_text()

    def let_devices_ask(self, numbers: list[int], until: Callable[[], object]) -> None:
        """Have devices ask again and again until the page shows something."""
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while not until():
            assert time.monotonic() < give_up_at, self.page.inner_text("main")
            self.fleet.step(numbers, boots)
            self.page.wait_for_timeout(_LOOK_MS)

    def second_wave(self) -> list[int]:
        """Wait until the second wave opens, and have the fleet ask; return the devices of it."""
        second = self.page.locator("#waves td[data-name=State]").nth(1)
        self.let_devices_ask(pilots(), lambda: second.inner_text().startswith("open"))
        heard = {*self.fleet.runs} - {*away(len(self.fleet.runs))}
        fetched = self.fleet.step(sorted(heard), boots)
        return sorted(each for each, version in fetched.items() if version == RELEASE)

    def hold(self, reason: str) -> None:
        """Hold everything."""
        self.go("Hold")
        self.page.get_by_label("Why").fill(reason)
        self.press("Hold: offer nothing to these devices")
        self.page.get_by_role("button", name="End the hold").wait_for()
