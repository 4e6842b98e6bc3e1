"""What whoever is not signed in, or may only read, sees in place of what they may not do."""

import unittest

from ota_server.operator_port.pieces import device_url
from tests.support.fleet import NEW, mac_of
from tests.support.operators import FORM_TYPE, Operators, OperatorsCase, make_token
from tests.support.pages import PageReader

# Where whoever may act finds a button, a form that acts, or a link to one.
_PAGES = (
    "/devices",
    device_url("", mac_of(1)),
    "/releases",
    f"/releases/default/{NEW}",
    f"/releases/default/{NEW}/activate",
    "/rollouts",
    "/rollouts/new",
    f"/rollouts/preview?version={NEW}&count_new=on",
    "/hold",
)
_TO_ACT = ("/rollouts/new", "/releases/rollback", f"/releases/default/{NEW}/activate")


class ViewerTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(1): NEW})
        cls.await_devices(1)
        token = make_token(cls.data_dir, "bob", may_act=False)
        cls.viewers = (
            Operators(cls.server.admin_port),
            Operators(cls.server.admin_port, token),
        )

    def in_main(self, who: Operators, path: str) -> PageReader:
        """Return what is inside a page."""
        return PageReader(who.get(path, X_Fragment="1").body.decode("utf-8"))

    def test_one_sentence_leads_to_the_sign_in(self):
        for at, who in enumerate(self.viewers):
            for path in _PAGES:
                with self.subTest(viewer=at, path=path):
                    page = self.in_main(who, path)
                    self.assertEqual(page.links.count(("/login", "sign in")), 1)

    def test_nothing_is_offered_that_they_may_not_do(self):
        for at, who in enumerate(self.viewers):
            for path in ("/", "/audit", "/rejected", *_PAGES):
                with self.subTest(viewer=at, path=path):
                    page = self.in_main(who, path)
                    ways = {url.partition("?")[0] for url, _ in page.links}
                    self.assertFalse(ways & {*_TO_ACT} - {path.partition("?")[0]})
                    self.assertEqual(page.all("form", method="post"), [])

    def test_who_may_act_finds_all_of_that(self):
        found = set()
        for path in _PAGES:
            page = self.operators.page(path)
            self.assertNotIn(("/login", "sign in"), page.links)
            found |= {url.partition("?")[0] for url, _ in page.links}
        self.assertLess({*_TO_ACT} - {"/releases/rollback"}, found)

    def test_the_head_of_a_page_says_that_a_session_may_only_look(self):
        for may_act in (True, False):
            who = Operators(self.server.admin_port)
            who.sign_in(self.data_dir, may_act)
            head = who.get("/hold").body.decode("utf-8").partition("<header")[2]
            said = head.partition("</header>")[0].count(" (may only look)</span>")
            with self.subTest(may_act=may_act):
                self.assertEqual(said, int(not may_act))

    def test_a_page_that_is_refused_leads_to_the_sign_in(self):
        form = {"Content-Type": FORM_TYPE, "Accept": "text/html"}
        for who, status in zip(self.viewers, (401, 403), strict=True):
            answer = who.ask("POST", "/hold", b"product=", form)
            self.assertEqual(answer.status, status)
            page = self.in_main_of(answer.body)
            self.assertIn(("/login", "Sign in"), page.links)

    def test_a_page_that_no_sign_in_would_open_does_not_lead_there(self):
        answer = self.operators.ask("POST", "/nowhere", b"", {"Accept": "text/html"})
        self.assertEqual(answer.status, 404)
        self.assertNotIn(("/login", "Sign in"), self.in_main_of(answer.body).links)

    def in_main_of(self, body: bytes) -> PageReader:
        """Return what is inside <main> of a whole page."""
        return PageReader(body.decode("utf-8").partition("<main")[2].partition(">")[2])


if __name__ == "__main__":
    unittest.main()
