"""Each page for everybody: dark and light, on a phone, by keyboard alone, and without script."""

import re
import tempfile
from pathlib import Path
from typing import Any

from ota_server.operator_port.page_devices_meant import PREFIX
from tests.support.browser_case import PastFleetCase
from tests.support.images import esp32_image
from tests.support.operators_story import PUBLISH, OperatorsStory
from tests.support.past_fleet import OLDER, PILOT, TARGET, mac_of
from tests.support.real_browser import PHONE, Window, needs_browser

# Of those that are there from the beginning; that of a rollout and of an upload come later.
PATHS = {
    "overview": "/?span=30d",
    "devices": "/devices",
    "filtered devices": f"/devices?group={PILOT}&version={TARGET}&family=br",
    "groups": "/groups",
    "a device": f"/devices/default/{mac_of(2)}",
    "releases": "/releases",
    "a release": f"/releases/default/{TARGET}",
    "to activate": f"/releases/default/{OLDER}/activate",
    "rollouts": "/rollouts",
    "a new rollout": "/rollouts/new",
    "its preview": f"/rollouts/preview?product=default&version={OLDER}&group={PILOT}&count_new=on",
    "rejected": "/rejected",
    "audit": "/audit",
    "hold": "/hold",
    "login": "/login",
    "no page": "/nowhere",
}
_FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return {
    name: (at.innerText || at.value || at.getAttribute("aria-label") || at.name || "").trim(),
    field: at.name || "", tag: at.tagName.toLowerCase(), path: at.getAttribute("href") || "",
    isMarked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    isThere: at.getBoundingClientRect().width > 0};
}"""


@needs_browser
class EachPageTest(PastFleetCase):
    TAKES_LONG = True
    cookies: list[Any]
    paths: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        window = cls.browser.window(cls.origin)
        story = OperatorsStory(window, cls.data_dir, cls.fleet)
        window.open("/")
        story.sign_in()
        image = cls.data_dir / "firmware" / f"firmware_{TARGET}.bin"
        story.choose_image(image)
        upload = window.page.evaluate("location.pathname")
        window.open(PATHS["its preview"])
        window.page.get_by_role("button", name=re.compile("^Begin")).click()
        window.page.wait_for_url("**/rollouts/default/*")
        rollout = window.page.evaluate("location.pathname")
        cls.paths = {**PATHS, "an upload": upload, "a rollout": rollout}
        cls.paths["to abort"] = f"{rollout}/abort"
        cls.cookies = window.context.cookies()
        assert window.close() == []

    def signed_in(self, *expected: str, **how: Any) -> Window:
        """Return a window of somebody who may act."""
        return self.window(*expected, cookies=self.cookies, **how)

    def assert_no_fault(self, scheme: str) -> None:
        window = self.signed_in("404 (Not Found)", scheme=scheme)
        for name, path in self.paths.items():
            with self.subTest(name):
                window.open(path)
                self.assertEqual(window.faults(), [])

    def test_axe_finds_nothing_serious_in_light(self):
        self.assert_no_fault("light")

    def test_axe_finds_nothing_serious_in_dark(self):
        self.assert_no_fault("dark")

    def test_axe_finds_what_is_wrong(self):
        window = self.window()
        window.open("/hold")
        window.page.evaluate("document.querySelector('main').innerHTML = '<input><img src=\"\">'")
        self.assertTrue(window.faults())

    def test_no_page_is_wider_than_a_phone(self):
        window = self.signed_in("404 (Not Found)", size=PHONE)
        for name, path in self.paths.items():
            with self.subTest(name):
                window.open(path)
                self.assertEqual(window.too_wide(), "")

    def test_without_script_all_is_there_to_be_read(self):
        window = self.signed_in("404 (Not Found)", has_script=False)
        for name, path in self.paths.items():
            with self.subTest(name):
                page = window.open(path)
                self.assertTrue(page.locator("main h1").first.inner_text())
        page = window.open(PATHS["devices"])
        page.get_by_role("link", name=mac_of(0)).click()
        self.assertIn(f"It is told {TARGET}", page.inner_text("main"))

    def test_without_script_forms_act(self):
        window = self.signed_in(has_script=False)
        page = window.open(f"/devices?text={mac_of(1)}")
        page.locator("input[name=key]").check()
        page.get_by_role("button", name="Pin", exact=True).click()
        page.locator(f"[name={PREFIX}version]").select_option(TARGET)
        page.get_by_role("button", name="Show what it reaches").click()
        page.get_by_role("button", name="Pin: 1 device").click()
        page.goto(f"/devices/default/{mac_of(1)}")
        self.assertIn("pin", page.inner_text("main"))
        page.goto("/hold")
        page.get_by_label("Why").fill("no script")
        page.get_by_role("button", name="Hold: offer nothing").click()
        page.get_by_role("alert").get_by_text("no script").wait_for()
        page.get_by_role("button", name="End the hold").click()
        self.assertEqual(page.get_by_role("alert").count(), 0)

    # By keyboard alone

    def tab_to(self, page: Any, name: str, most: int = 60) -> None:
        """Press Tab until something has the focus, by what it says or by its path."""
        for _ in range(most):
            page.keyboard.press("Tab")
            at = page.evaluate(_FOCUS)
            if at["tag"] == "body":
                continue
            self.assertTrue(at["isMarked"] and at["isThere"], f"not seen that it has focus: {at}")
            if name in (at["name"].split("\n")[0], at["path"], at["field"]):
                return
        self.fail(f"Tab does not lead to {name!r} on {page.url}; it ends at {at}")

    def test_a_device_is_found_and_pinned_by_keyboard_alone(self):
        page = self.signed_in().open("/")
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate(_FOCUS)["name"], "To the content")
        page.keyboard.press("Enter")
        self.tab_to(page, "/devices")
        page.keyboard.press("Enter")
        page.wait_for_url("**/devices*")
        page.keyboard.press("/")
        page.keyboard.type(mac_of(3))
        page.keyboard.press("Enter")
        page.wait_for_url("**text=*")
        self.tab_to(page, "key")
        page.keyboard.press("Space")
        self.tab_to(page, "Pin")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=re.compile("Pin")).wait_for()
        self.tab_to(page, f"{PREFIX}version")
        page.keyboard.type(TARGET)
        self.tab_to(page, "Show what it reaches")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Pin: 1 device").wait_for()
        self.tab_to(page, "Pin: 1 device")
        page.keyboard.press("Enter")
        page.wait_for_url("**/devices*")
        pins = (self.data_dir / "version" / "pins.json").read_text()
        self.assertIn(mac_of(3), pins)

    def test_all_is_held_and_a_rollout_paused_by_keyboard_alone(self):
        page = self.signed_in().open("/hold")
        self.tab_to(page, "reason")
        page.keyboard.type("by keyboard")
        self.tab_to(page, "Hold: offer nothing to these devices")
        page.keyboard.press("Space")
        page.get_by_role("alert").get_by_text("by keyboard").wait_for()
        self.tab_to(page, "End the hold")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Hold: offer nothing to these devices").wait_for()
        page.goto(self.paths["a rollout"])
        self.tab_to(page, "Pause")
        page.keyboard.press("Enter")
        page.wait_for_url("**/pause")
        self.tab_to(page, "Pause")
        page.keyboard.press("Enter")
        page.locator("#state").get_by_text("paused").wait_for()

    def test_an_image_is_published_and_rolled_out_by_keyboard_alone(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        image = folder / "sensor.bin"
        image.write_bytes(esp32_image("v9.0.0"))
        window = self.signed_in()
        # Said early, so that no dialog of the browser itself comes: that is asked of it by and by.
        window.page.on("filechooser", lambda _: None)
        page = window.open("/releases")
        self.tab_to(page, "image")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(image)
        page.wait_for_url("**/uploads/**")
        self.tab_to(page, "version")
        page.keyboard.type("v9.0.0")
        self.tab_to(page, PUBLISH)
        page.keyboard.press("Enter")
        page.wait_for_url("**/releases/default/v9.0.0")
        page.goto("/rollouts/new")
        self.tab_to(page, "version")
        page.keyboard.type("v9.0.0")
        self.tab_to(page, "Show what it would do")
        page.keyboard.press("Enter")
        begin = page.get_by_role("button", name=re.compile("^Begin"))
        begin.wait_for()
        self.tab_to(page, begin.inner_text())
        page.keyboard.press("Enter")
        page.wait_for_url("**/rollouts/default/*")
        page.get_by_role("heading", name=re.compile("Rollout of v9.0.0")).wait_for()
