"""Who was refused, by its page."""

import json

from tests.support import until
from tests.support.operators import OperatorsCase

HOSTILE = '<b onclick=x>\u202e"&'


class RejectedPageTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        time = "2026-01-02T03:04:05.000Z"
        entry = {"address": "192.0.2.7", "reason": HOSTILE, "mac": None, "first_time": time}
        other = {**entry, "address": "192.0.2.8", "count": 1, "time": "soon"}
        lines = [{**entry, "count": 1234, "time": time}, other]
        path = cls.data_dir / "log" / "rejected.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))

    def test_clients_without_a_valid_mac_are_listed_with_the_reason(self):
        self.check_in({"no-mac": "v1.0.0"})
        self.assertTrue(
            until(lambda: "127.0.0.1" in self.operators.page("/rejected?text=127.0.0.1").text)
        )
        page = self.operators.page("/rejected")
        self.assertLess(page.text.index("127.0.0.1"), page.text.index("192.0.2.7"))

    def test_what_is_on_record_is_text_whatever_it_holds(self):
        page = self.operators.page("/rejected")
        self.assertIn('<b onclick=x>\\u202e"& 192.0.2.7 - 1,234', page.text)
        self.assertEqual(page.all("b"), [])

    def test_a_filter_chooses_and_says_so(self):
        page = self.operators.page("/rejected?text=%3CB+ONCLICK")
        self.assertRegex(page.text, r"2 of \d kinds")
        self.assertIn("Nobody was refused", self.operators.page("/rejected?text=zzz").text)
