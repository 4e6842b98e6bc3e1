"""The audit log by its page: newest first, page by page, with who."""

import json
import re

from tests.support.operators import OperatorsCase

HOSTILE = '<i title="x">\u202e & `why`'


def line(minute: int, action: str, what: str, **more: str) -> str:
    time = f"2026-01-02T{minute // 60:02}:{minute % 60:02}:00.000Z"
    return json.dumps(
        {"time": time, "user": "bo", "host": "h", "action": action, "what": what} | more
    )


class AuditPageTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        for name in ("version", "firmware", "log"):
            (cls.data_dir / "products" / "plug" / name).mkdir(parents=True)
        lines = [line(2 * at, "pin", f"n{2 * at:03}") for at in range(100)]
        (cls.data_dir / "log" / "audit.jsonl").write_text("\n".join(lines) + "\n")
        lines = [line(2 * at + 1, "pin", f"n{2 * at + 1:03}") for at in range(30)]
        lines.append(line(400, "withdraw", "v1", reason=HOSTILE))
        lines += [line(401, "hold", "n/a"), line(401, "not done", "n/a", of="hold")]
        path = cls.data_dir / "products" / "plug" / "log" / "audit.jsonl"
        path.write_text("\n".join(lines) + "\n")

    def shown(self, url: str) -> tuple[list[str], str]:
        """Return what the entries of a page are about, and the URL of the next one."""
        page = self.operators.page(url)
        links = [each["href"] for each in page.all("a", class_="button")]
        after = [each for each in links if "before" in each]
        return re.findall(r"\bn\d{3}\b", page.text), after[0] if after else ""

    def test_paging_shows_each_entry_of_all_products_once_the_newest_first(self):
        found, url = self.shown("/audit")
        while url:
            more, url = self.shown(url)
            found += more
        expected = {f"n{2 * at:03}" for at in range(100)} | {
            f"n{2 * at + 1:03}" for at in range(30)
        }
        self.assertEqual(found, sorted(expected, reverse=True))

    def test_one_product_is_shown_alone(self):
        found, url = self.shown("/audit?product=plug")
        self.assertEqual(found, [f"n{2 * at + 1:03}" for at in reversed(range(30))])
        self.assertEqual(url, "")

    def test_a_change_that_was_not_made_says_so(self):
        self.assertIn("not done : hold", self.operators.page("/audit?product=plug").text)

    def test_who_acts_by_the_port_is_named(self):
        self.operators.post("/hold", {"product": "", "reason": "audit test"})
        text = self.operators.page("/audit").text
        self.assertRegex(text, r"UTC now default ann \(admin port\) hold everything audit test")

    def test_hostile_reasons_are_text(self):
        page = self.operators.page("/audit?product=plug")
        self.assertIn('<i title="x">\\u202e &', page.text)
        self.assertEqual(page.all("i"), [])

    def test_a_place_that_was_not_given_here_is_refused(self):
        for place in ("x", "default", "default.x", "none.1", "default.1~", "default.-1"):
            with self.subTest(place):
                self.assertEqual(self.operators.get(f"/audit?before={place}").status, 400)
        self.assertEqual(self.operators.get("/audit?product=none").status, 404)
