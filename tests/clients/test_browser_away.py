"""A real Chromium shows a page whose server goes away, and comes back on the same port."""

from tests.support.browser import Browser, needs_chromium
from tests.support.operators import OperatorsCase
from tests.support.server import Process


@needs_chromium
class BrowserAwayTest(OperatorsCase):
    def said(self, text: str) -> str:
        return f"document.getElementById('said').innerText.includes('{text}')"

    def test_a_page_says_that_its_server_is_away_until_it_is_back(self):
        browser = Browser(self)
        port = self.server.admin_port
        browser.open(f"http://127.0.0.1:{port}/hold")
        browser.wait_for("document.querySelector('#holds') !== null")
        self.assertFalse(browser.run(self.said("does not answer")))
        self.server.end()
        browser.wait_for(self.said("The server does not answer: this page is as it was"))
        again = Process("--data-dir", str(self.data_dir), "--admin", f"127.0.0.1:{port}")
        self.addCleanup(again.end)
        browser.wait_for("document.getElementById('said').innerText === ''")
