"""Make the pictures of the pages for operators again: `python screenshots/pages.py`.

Each view is made in light and in dark. They come from the story that the tests tell
(`tests/browser/`): 10,000 devices with a month behind them, on a real server; a release is
published and rolled out, and halts in its second wave.

Needs Chromium, and the packages playwright and axe-playwright-python in the folder that
OTA_SERVER_TEST_CLIENTS names. Makes page-*.png.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from small_png import make_small  # noqa: E402

from tests.support.client import Client  # noqa: E402
from tests.support.images import esp32_image  # noqa: E402
from tests.support.operators import await_indexed  # noqa: E402
from tests.support.operators_story import NOTES, RELEASE, OperatorsStory, boots  # noqa: E402
from tests.support.past_fleet import (  # noqa: E402
    ARGUMENTS,
    PastFleet,
    live_through,
    mac_of,
    pilots,
    prepare_past,
)
from tests.support.real_browser import (  # noqa: E402
    HAS_PLAYWRIGHT,
    PHONE,
    RealBrowser,
    Window,
)
from tests.support.server import Process  # noqa: E402

DEVICES = 10_000
SHOWN_FOLDER = "/srv/ota"
_SHOW_OTHER_FOLDER = """([folder, shown]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data =
    texts.currentNode.data.replace(new RegExp(folder + "/\\\\S+", "g"), shown);
}"""
_TALLEST = 1000


def main() -> int:
    """Make all pictures; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not HAS_PLAYWRIGHT:
        print("screenshots/pages.py needs playwright", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        prepare_past(data_dir)
        runs = live_through(data_dir, DEVICES)
        server = Process("--data-dir", str(data_dir), "--admin", "127.0.0.1:0", *ARGUMENTS)
        fleet, browser = PastFleet(server.port, runs), RealBrowser()
        try:
            await_indexed(data_dir, DEVICES)
            tell(browser, data_dir, fleet, f"http://127.0.0.1:{server.admin_port}", server.port)
        finally:
            browser.close()
            fleet.close()
            server.end()
    # At the end, since it takes seconds: meanwhile devices would fall silent.
    for path in sorted(HERE.glob("page-*.png")):
        path.write_bytes(make_small(path.read_bytes()))
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


def tell(
    browser: RealBrowser, data_dir: Path, fleet: PastFleet, origin: str, devices_port: int
) -> None:
    """Tell the story, and make a picture of each page when it shows most."""
    window = browser.window(origin)
    story = OperatorsStory(window, data_dir, fleet)
    window.open("/")
    story.sign_in()
    build = data_dir / "sensor.bin"
    build.write_bytes(esp32_image(RELEASE))
    story.choose_image(build)
    story.fill_in_release(RELEASE, NOTES)
    story.preview_rollout()
    story.begin_rollout()
    story.let_devices_ask(pilots(), lambda: story.updated() >= len(pilots()))
    members = story.second_wave()
    cookies = window.context.cookies()
    dark = browser.window(origin, scheme="dark", cookies=cookies)
    phone = browser.window(origin, size=PHONE, cookies=cookies)
    both = (window, dark)
    # Those that cannot boot it have it by now, and are not heard from yet.
    good = [each for each in members if boots(each)][: len(members) // 2]
    story.let_devices_ask(good, lambda: story.updated() >= len(pilots()) + len(good) // 2)
    for each in both:
        each.open("/?span=30d")
        each.page.get_by_text("No download runs now").wait_for()
        shoot(each, "overview", tallest=1600)
        fleet.step(good)
    phone.open("/?span=30d")
    shoot(phone, "phone")
    window.open(story.rollout_path)
    story.let_devices_ask(members, lambda: story.state() == "halted")
    dark.open(story.rollout_path)
    for each in both:
        each.page.locator("#devices td a").first.wait_for()
        shoot(each, "rollout")
        each.open("/devices?text=hall")
        each.page.locator("input[name=key]").nth(1).check()
        each.page.locator("input[name=key]").nth(2).check()
        shoot(each, "devices")
    send_what_is_rejected(devices_port)
    bad = next(each for each in members if fleet.runs[each] != RELEASE)
    paths = {"device": f"/devices/default/{mac_of(bad)}", "releases": "/releases"}
    paths |= {name: f"/{name}" for name in ("groups", "rollouts", "rejected", "audit")}
    shoot_all(both, paths)
    story.hold("meters run backwards since v2.0.0")
    shoot_all(both, {"hold": "/hold"})
    problems = [*window.close(), *dark.close(), *phone.close()]
    assert not problems, problems


def send_what_is_rejected(port: int) -> None:
    """Ask as devices that do not say who they are in a way that can be understood."""
    for mac in ("sensor 17", "24:0a:c4:00:00"):
        with Client(port) as client:
            lines = f"_br_mac_: {mac}\r\n_br_fwv_: v1.9.4\r\nX-Forwarded-For: 198.18.0.9\r\n"
            client.send(f"GET /version.txt HTTP/1.1\r\nHost: ota\r\n{lines}\r\n".encode("ascii"))
            assert client.answer().status == 401


def shoot_all(windows: Iterable[Window], paths: Mapping[str, str]) -> None:
    """Make a picture of each page in each window."""
    for window in windows:
        for name, path in paths.items():
            window.open(path)
            shoot(window, name)


def shoot(window: Window, name: str, tallest: int = _TALLEST) -> None:
    """Make a picture of a page, down to the end of its content or to a height."""
    page = window.page
    page.wait_for_load_state("load")
    # The temporary one of this run says nothing to anybody.
    page.evaluate(_SHOW_OTHER_FOLDER, [tempfile.gettempdir(), SHOWN_FOLDER])
    width = window.page.viewport_size["width"]
    height = min(tallest, bottom_of(page))
    # What stays at the bottom of the window has to be at the bottom of the picture.
    page.set_viewport_size({"width": width, "height": height})
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    path = HERE / f"page-{name}{'-dark' if is_dark else ''}.png"
    page.screenshot(
        path=path,
        full_page=True,
        clip={"x": 0, "y": 0, "width": width, "height": height},
        animations="disabled",
    )


def bottom_of(page: Any) -> int:
    """Return where the content of a page ends."""
    script = "document.querySelector('main').lastElementChild.getBoundingClientRect().bottom"
    return int(page.evaluate(f"Math.ceil({script} + scrollY)")) + 24


if __name__ == "__main__":
    sys.exit(main())
