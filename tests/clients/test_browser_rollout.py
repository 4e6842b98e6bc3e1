"""A real Chromium begins a rollout, and sees it move to its end without a reload, on a phone."""

import threading

from tests.support.browser import Browser, needs_chromium
from tests.support.fleet import NEW, Fleet, read_progress
from tests.support.operators import Operators, OperatorsCase

_PAUSE_SECONDS = 0.2


@needs_chromium
class BrowserRolloutTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.fleet = Fleet(30)
        cls.fleet.ask(cls.server.port)
        cls.await_devices(30)

    def setUp(self) -> None:
        self.browser = Browser(self, width=390, height=844)
        self.url = f"http://127.0.0.1:{self.server.admin_port}"
        signed_in = Operators(self.server.admin_port)
        signed_in.sign_in(self.data_dir)
        self.browser.set_cookie(self.url, signed_in.cookie)
        self.stopping = threading.Event()

    def poll(self) -> None:
        """Have the fleet ask again and again."""
        while not self.stopping.wait(_PAUSE_SECONDS):
            self.fleet.ask(self.server.port)

    def test_a_rollout_is_begun_and_seen_to_move_until_it_is_done(self):
        browser = self.browser
        browser.open(f"{self.url}/rollouts/new")
        # It waits for each device that has the image, however slow this machine is.
        typed = {"waves": "20,100", "soak_seconds": "0s", "grace_seconds": "5m"}
        typed |= {"min_devices": "3", "max_failures": "3%", "version": NEW}
        for name, value in typed.items():
            browser.run(f"document.querySelector('[name={name}]').value = '{value}'")
        browser.run("document.querySelector('[name=count_new]').checked = true")
        browser.run("document.querySelector('form[action$=preview] button').click()")
        browser.wait_for("document.querySelector('h1')?.innerText === 'Roll out v2.0.0?'")
        browser.run("document.querySelector('main form button').click()")
        browser.wait_for("document.getElementById('waves')?.innerText.includes('open')")
        browser.run("window.stays = true")

        asking = threading.Thread(target=self.poll)
        asking.start()
        self.addCleanup(asking.join)
        self.addCleanup(self.stopping.set)
        browser.wait_for("document.querySelector('#waves rect.good') !== null")
        browser.wait_for("document.getElementById('state')?.innerText.includes('done')")
        self.assertTrue(browser.run("window.stays"), "the page was loaded again")
        self.assertIn("30 of 30 updated", browser.run("document.getElementById('waves').innerText"))
        browser.wait_for("document.getElementById('devices').innerText.includes('none')")
        self.assertEqual(read_progress(self.data_dir)["state"], "done")
        wide = browser.run("document.documentElement.scrollWidth")
        self.assertLessEqual(wide, browser.run("window.innerWidth"))
        self.assertEqual(browser.errors, [])
