"""Products, status, and what is on record, by the API."""

import json
import re

from tests.support import until
from tests.support.operators import OperatorsCase, ask_all, some_devices


class ApiFleetTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(6))
        cls.await_devices(6)

    def test_products_have_their_targets_and_devices(self):
        _, said = self.operators.json("GET", "/api/v1/products")
        default = {"product": "default", "target": "v1.0.0", "releases": 2, "devices": 6}
        self.assertEqual(said, {"products": [default]})

    def test_the_status_says_how_devices_are_and_what_needs_a_person(self):
        status, said = self.operators.json("GET", "/api/v1/status")
        self.assertEqual(status, 200)
        (product,) = said["products"]
        self.assertTrue(product["server"]["runs"])
        self.assertEqual(product["devices"]["total"], 6)
        self.assertEqual(sum(product["devices"]["conditions"].values()), 6)
        self.assertEqual(product["devices"]["versions"], {"v1.0.0": 3, "v2.0.0": 3})
        self.assertEqual(said["needs_person"], any(w["needs_person"] for w in product["warnings"]))

    def test_a_state_has_one_word_in_filters_in_answers_and_in_metrics(self):
        words = {"silent", "failed", "away", "undecided", "held_back", "behind", "up_to_date"}
        (product,) = self.operators.json("GET", "/api/v1/status")[1]["products"]
        self.assertEqual({*product["devices"]["conditions"]}, words)
        metrics = self.operators.ask("GET", "/metrics").body.decode()
        self.assertEqual({*re.findall(r'ota_devices\{.*state="(\w+)"', metrics)}, words)
        found = []
        for word in words:
            _, page = self.operators.json("GET", f"/api/v1/devices?state={word}")
            found += [(each["state"], word) for each in page["devices"]]
        self.assertEqual(len(found), 6)
        self.assertTrue(all(state == word for state, word in found), found)

    def test_who_was_refused_is_listed(self):
        ask_all(self.server.port, {"no mac": "v1"})

        def found() -> list[dict]:
            return self.operators.json("GET", "/api/v1/rejected")[1]["entries"]

        self.assertTrue(until(lambda: bool(found())))
        self.assertEqual((found()[0]["count"], found()[0]["mac"]), (1, None))

    def test_the_audit_log_comes_in_parts_the_newest_first(self):
        for at in range(5):
            mac = f"02:00:00:00:00:0{at}"
            self.operators.json("PUT", f"/api/v1/devices/default/{mac}/label", {"label": f"l{at}"})
        seen: list[str] = []
        url = "/api/v1/audit?limit=2"
        while url:
            answer = self.operators.ask("GET", url, fields={"Accept": "application/json"})
            page = json.loads(answer.body)
            seen += [each["to"] for each in page["entries"] if each["action"] == "label"]
            url = answer.fields.get("link", "").partition(">")[0].strip("<")
        self.assertEqual(seen, [f"l{at}" for at in reversed(range(5))])
