"""A real Chromium sends an image: by the script of the page, and by the plain form without it."""

import os
import tempfile
from pathlib import Path

from tests.support.browser import Browser, needs_chromium
from tests.support.operators import Operators, OperatorsCase


@needs_chromium
class BrowserUploadTest(OperatorsCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / 'an "image" <b>.bin'
        self.file.write_bytes(os.urandom(3_000_000))
        self.url = f"http://127.0.0.1:{self.server.admin_port}"
        self.browser = Browser(self)
        signed_in = Operators(self.server.admin_port)
        signed_in.sign_in(self.data_dir)
        self.browser.set_cookie(self.url, signed_in.cookie)

    def publish(self, version: str) -> None:
        """Fill in the form of the page of the upload, and send it."""
        browser = self.browser
        browser.wait_for("location.pathname.startsWith('/uploads/')")
        self.assertIn(
            'an "image" <b>.bin', browser.wait_for("document.querySelector('dl').innerText")
        )
        browser.run(f"document.querySelector('[name=version]').value = '{version}'")
        browser.run("document.querySelector('form[action$=publish] button').click()")
        browser.wait_for(f"location.pathname === '/releases/default/{version}'")
        image = self.data_dir / "firmware" / f"firmware_{version}.bin"
        self.assertEqual(image.read_bytes(), self.file.read_bytes())
        self.assertEqual(browser.errors, [])

    def test_a_file_that_is_chosen_is_sent_by_the_script(self):
        self.browser.open(f"{self.url}/releases")
        self.browser.choose_file("input[type=file]", self.file)
        self.publish("v3.0.0")

    def test_a_file_that_is_dropped_is_sent_by_the_script(self):
        browser = self.browser
        browser.open(f"{self.url}/releases")
        # What a drop of a file does, with a file that is in the field of another form.
        browser.run("document.body.insertAdjacentHTML('beforeend', '<input id=other type=file>')")
        browser.choose_file("#other", self.file)
        browser.run(
            """
            const given = new DataTransfer();
            given.items.add(document.getElementById("other").files[0]);
            document.querySelector(".drop").dispatchEvent(
              new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
            """
        )
        self.publish("v3.1.0")

    def test_without_script_the_plain_form_sends_it(self):
        browser = self.browser
        browser.disable_scripts()
        browser.open(f"{self.url}/releases")
        browser.choose_file("input[type=file]", self.file)
        browser.run("document.querySelector('form[enctype] button').click()")
        self.publish("v3.2.0")
