"""An operator brings a release to 10,000 devices from the page, and sees it halt."""

import hashlib
import re
import tempfile
from pathlib import Path

from tests.support.browser_case import PastFleetCase
from tests.support.images import esp32_image
from tests.support.operators_story import (
    BAD_FAMILY,
    NOTES,
    OPERATOR,
    PUBLISH,
    RELEASE,
    OperatorsStory,
    boots,
)
from tests.support.past_fleet import TARGET, away, family_of, mac_of, pilots
from tests.support.real_browser import needs_browser
from tests.support.real_clients import LARGE, needs_images

FLASH_IMAGE = "v3.0.0"


@needs_browser
@needs_images
class StoryTest(PastFleetCase):
    TAKES_LONG = True
    DEVICES = 10_000

    def setUp(self) -> None:
        self.shop = self.window()
        self.page = self.shop.page
        self.story = OperatorsStory(self.shop, self.data_dir, self.fleet)

    def file(self, name: str, content: bytes) -> Path:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / name).write_bytes(content)
        return folder / name

    def macs(self) -> list[str]:
        """Return the devices of the table, as it shows them."""
        return self.page.locator("td[data-name=Device] a").all_inner_texts()

    def test_a_card_of_the_overview_leads_to_its_devices_which_are_sorted_and_paged(self):
        page = self.page
        self.shop.open("/")
        card = page.locator(".cards a.away")
        expected = away(self.DEVICES)
        self.assertEqual(card.locator("b").inner_text(), f"{len(expected):,}")
        card.click()
        page.get_by_text(f"{len(expected):,} devices match").wait_for()
        page.locator("th a", has_text="Device").click()
        page.locator("th[aria-sort=descending]").wait_for()
        in_order = [mac_of(each) for each in reversed(expected)]
        self.assertEqual(self.macs(), in_order[:50])
        page.get_by_role("link", name="Next →").first.click()
        page.get_by_role("link", name="← Previous").first.wait_for()
        self.assertEqual(self.macs(), in_order[50:100])

    def test_a_filter_narrows_the_table_and_stands_in_its_address(self):
        page = self.page
        self.shop.open("/devices")
        page.get_by_role("combobox", name="Version").fill(TARGET)
        page.get_by_text("More filters").click()
        page.get_by_role("combobox", name="Family").select_option("esphome")
        page.get_by_role("button", name="Filter").click()
        page.locator(".chosen").wait_for()
        self.assertIn("family=esphome", page.url)
        matching = sorted(
            each
            for each, version in self.fleet.runs.items()
            if version == TARGET and family_of(each) == "esphome"
        )
        page.get_by_text(f"{len(matching):,} devices match").wait_for()
        self.assertEqual(self.macs(), [mac_of(each) for each in matching[:50]])
        page.get_by_label("Find").fill("kitchen 12")
        page.keyboard.press("Enter")
        page.wait_for_url("**text=kitchen*")
        labels = page.locator("td[data-name=Label]").all_inner_texts()
        self.assertTrue(labels)
        self.assertTrue(all("kitchen 12" in each for each in labels), labels)

    def test_a_device_tells_why_it_gets_what_it_gets_and_what_it_did(self):
        page = self.page
        self.shop.open("/devices?text=kitchen")
        page.get_by_role("link", name=mac_of(0)).click()
        page.get_by_text(f"It is told {TARGET}: the target of the fleet.").wait_for()
        page.get_by_text("Why, in full").click()
        page.locator("pre, details dl").first.wait_for()
        history = page.locator("td[data-name=Details]").all_inner_texts()
        self.assertIn("was v1.8.2", history)

    def test_a_release_is_published_rolled_out_and_halted_and_all_is_held(self):
        story = self.story
        self.shop.open("/")
        story.sign_in()
        self.publish_by_choosing_and_by_dropping()
        story.preview_rollout()
        story.begin_rollout()
        self.watch_the_first_wave()
        self.see_the_second_wave_halt()
        self.hold_and_go_on()

    def publish_by_choosing_and_by_dropping(self) -> None:
        story, image = self.story, esp32_image(RELEASE)
        story.choose_image(self.file("sensor.bin", image))
        self.page.get_by_text("ESP32").first.wait_for()
        story.fill_in_release(RELEASE, NOTES)
        self.page.wait_for_url(f"**/releases/default/{RELEASE}")
        self.assertIn(hashlib.sha256(image).hexdigest(), self.page.inner_text("main"))
        story.drop_image(self.file("OVMF_4M.fd", LARGE.image))
        self.assertIn(hashlib.sha256(LARGE.image).hexdigest(), self.page.inner_text("main"))
        self.shop.expected.append("409 (Conflict)")
        story.fill_in_release(FLASH_IMAGE, "The flash image of a virtual machine")
        self.page.get_by_text("of an unknown format, and that of the current target is").wait_for()
        self.page.get_by_label("Publish it in spite of that").check()
        story.press(PUBLISH)
        self.page.wait_for_url(f"**/releases/default/{FLASH_IMAGE}")
        there = self.data_dir / "firmware" / f"firmware_{FLASH_IMAGE}.bin"
        self.assertEqual(there.read_bytes(), LARGE.image)

    def watch_the_first_wave(self) -> None:
        """See the bar move by itself, as devices update, and stop and go on as it is told to."""
        story, numbers = self.story, pilots()
        self.page.evaluate("window.isSamePage = true")
        half = numbers[: len(numbers) // 2]
        story.let_devices_ask(half, lambda: story.updated() >= len(half))
        self.assertTrue(self.page.evaluate("window.isSamePage"), "the page was loaded again")
        story.do_and_confirm("Pause")
        self.assertEqual(story.state(), "paused")
        self.fleet.step(numbers)
        self.assertEqual({self.fleet.runs[each] for each in numbers[len(half) :]}, {TARGET})
        story.do_and_confirm("Resume")
        story.let_devices_ask(numbers, lambda: story.updated() >= len(numbers))

    def see_the_second_wave_halt(self) -> None:
        story = self.story
        members = story.second_wave()
        story.let_devices_ask(members, lambda: story.state() == "halted")
        self.page.get_by_role("link", name=re.compile("^failed: ")).click()
        self.page.wait_for_url("**state=failed*")
        shown = self.page.locator("#devices td a").all_inner_texts()
        bad = {mac_of(each) for each in members if not boots(each)}
        self.assertTrue(shown)
        self.assertLessEqual({*shown}, bad)
        self.page.get_by_role("link", name=shown[0]).click()
        self.page.get_by_text(re.compile(BAD_FAMILY)).first.wait_for()
        story.go("Overview")
        self.page.get_by_role("link", name=shown[0]).or_(
            self.page.get_by_text("halted").first
        ).first.wait_for()

    def hold_and_go_on(self) -> None:
        story, page = self.story, self.page
        story.hold("meters run backwards")
        alert = page.get_by_role("alert")
        alert.get_by_text("meters run backwards").wait_for()
        story.go("Overview")
        page.get_by_role("alert").get_by_text("meters run backwards").wait_for()
        (told,) = self.fleet.ask([9]).values()
        self.assertEqual(told.version, self.fleet.runs[9])
        story.go("Hold")
        story.press("End the hold")
        page.get_by_role("button", name="Hold: offer nothing to these devices").wait_for()
        self.assertEqual(page.get_by_role("alert").count(), 0)
        story.go("Audit")
        log = page.inner_text("main")
        for action in ("publish", "rollout", "pause", "resume", "hold", OPERATOR):
            self.assertIn(action, log)
