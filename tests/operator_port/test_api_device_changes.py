"""Changes of devices by the API, of one and of many."""

import json

from tests.support import until
from tests.support.operators import OperatorsCase, make_token, some_devices

ONE = "/api/v1/devices/default/02:00:00:00:00:00"
BULK = "/api/v1/devices/actions"


class ApiDeviceChangesTest(OperatorsCase):
    TAKES_LONG = True

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(20))
        cls.await_devices(20)

    def policy(self, name: str) -> dict[str, object]:
        path = self.data_dir / "version" / name
        return json.loads(path.read_text()) if path.exists() else {}

    def audit(self) -> list[dict[str, object]]:
        return self.operators.json("GET", "/api/v1/audit")[1]["entries"]

    def test_a_pin_is_set_and_ended_by_whoever_has_the_token(self):
        body = {"version": "v2.0.0", "until": "2999-01-31T00:00:00Z"}
        status, done = self.operators.json("PUT", f"{ONE}/pin", body)
        self.assertEqual((status, done["changed"], done["is_done"]), (200, 1, True))
        pins = self.policy("pins.json")["devices"]
        self.assertEqual(pins, {"02:00:00:00:00:00": body})
        entry = self.audit()[0]
        self.assertEqual((entry["action"], entry["user"], entry["is_made"]), ("pin", "ann", True))
        _, listed = self.operators.json("GET", "/api/v1/pins")
        self.assertEqual(listed["pins"][0]["version"], "v2.0.0")
        for _ in range(2):  # the second time it is so already
            self.assertEqual(self.operators.json("DELETE", f"{ONE}/pin"), (204, None))
        self.assertEqual(self.policy("pins.json")["devices"], {})

    def test_what_was_changed_shows_at_once(self):
        def shown() -> tuple[object, ...]:
            device = self.operators.json("GET", ONE)[1]
            return device["pinned"], device["release"], device["label"]

        before = shown()[1]
        for version in ("v2.0.0", "v1.0.0"):
            self.operators.json("PUT", f"{ONE}/pin", {"version": version})
            self.assertEqual(shown()[:2], (True, version))
        self.operators.json("PUT", f"{ONE}/label", {"label": "shown"})
        self.assertEqual(shown()[2], "shown")
        self.operators.json("DELETE", f"{ONE}/label")
        self.operators.json("DELETE", f"{ONE}/pin")
        self.assertEqual(shown()[:2], (False, before))
        change = {"action": "group add", "group": "seen", "filter": {"product": "default"}}
        self.operators.json("POST", BULK, {**change, "expected": 20})
        listed = self.operators.json("GET", "/api/v1/devices?group=seen")[1]
        self.assertEqual(len(listed["devices"]), 20)

    def test_a_pin_to_what_is_not_there_is_a_conflict(self):
        status, problem = self.operators.json("PUT", f"{ONE}/pin", {"version": "v7"})
        self.assertEqual(status, 409)
        self.assertTrue(problem["detail"].startswith("v7 is not a release here"), problem)

    def test_a_label_is_given_and_removed(self):
        label = "<b>=1+1 ü"
        status, _ = self.operators.json("PUT", f"{ONE}/label", {"label": label})
        self.assertEqual(status, 200)
        _, listed = self.operators.json("GET", "/api/v1/labels?product=default")
        self.assertEqual([each["label"] for each in listed["labels"]], [label])
        for bad in (" x", "a\nb", "00:11:22:33:44:55"):
            status, _ = self.operators.json("PUT", f"{ONE}/label", {"label": bad})
            self.assertIn(status, (200, 409), bad)
        self.assertEqual(self.operators.json("DELETE", f"{ONE}/label"), (204, None))
        self.assertEqual(self.policy("labels.json"), {})

    def test_a_device_may_try_again(self):
        self.assertEqual(self.operators.json("POST", f"{ONE}/retry")[0], 200)
        self.assertEqual([*self.policy("retries.json")], ["02:00:00:00:00:00"])

    def test_a_device_that_is_forgotten_is_not_there_any_longer(self):
        mac = "02:00:00:00:99:99"
        self.check_in({mac: "v1.0.0"})
        url = f"/api/v1/devices/default/{mac}"
        self.assertTrue(until(lambda: self.operators.json("GET", url)[0] == 200))
        status, _ = self.operators.json("DELETE", url)
        self.assertEqual(status, 204)
        self.assertEqual(self.operators.json("GET", url)[0], 404)
        self.assertEqual(self.operators.json("DELETE", url)[0], 404)

    def test_an_action_by_a_filter_changes_all_that_it_chooses(self):
        chosen = {"version": ["v2.0.0"], "product": "default"}
        change = {"action": "group add", "group": "beta", "filter": chosen}
        _, shown = self.operators.json("POST", f"{BULK}/preview", change)
        self.assertEqual((shown["named"], shown["changing"], shown["already"]), (10, 10, 0))
        self.assertFalse((self.data_dir / "version" / "groups" / "beta.txt").exists())
        status, done = self.operators.json("POST", BULK, {**change, "expected": 10})
        self.assertEqual((status, done["changed"]), (200, 10))
        _, group = self.operators.json("GET", "/api/v1/groups/default/beta")
        self.assertEqual(group["devices"], 10)
        _, again = self.operators.json("POST", BULK, {**change, "expected": 10})
        self.assertEqual((again["changed"], again["already"]), (0, 10))

    def test_an_action_that_would_reach_another_number_than_expected_changes_nothing(self):
        change = {"action": "pin", "version": "v1.0.0", "filter": {"version": ["v1.0.0"]}}
        for more, said in (
            ({"expected": 9}, "10 devices would be changed, and 9 are expected"),
            ({}, "`expected` is missing"),
        ):
            with self.subTest(more):
                status, problem = self.operators.json("POST", BULK, {**change, **more})
                self.assertEqual(status, 409)
                self.assertIn(said, problem["detail"])
        self.assertEqual(self.policy("pins.json").get("devices", {}), {})

    def test_an_action_by_keys_changes_those(self):
        keys = ["02:00:00:00:00:05", "02:00:00:00:00:06"]
        status, done = self.operators.json(
            "POST", BULK, {"action": "label", "label": "two of them", "keys": keys}
        )
        self.assertEqual((status, done["changed"]), (200, 2))
        self.assertIn("several devices are called that", " ".join(done["warnings"]))

    def test_fields_that_do_not_go_together_are_a_conflict(self):
        key = "02:00:00:00:00:05"
        for change in (
            {"action": "retry"},
            {"action": "retry", "keys": [key], "filter": {}},
            {"action": "pin", "keys": [key]},
            {"action": "label", "keys": [key]},
            {"action": "retry", "keys": [key], "product": "plug"},
            {"action": "retry", "keys": [key, f"plug/{key}"]},
            {"action": "retry", "keys": ["00:00:00:00:00:00"]},
            {"action": "retry", "filter": {"product": "default"}, "product": "plug"},
        ):
            with self.subTest(change):
                self.assertEqual(self.operators.json("POST", BULK, change)[0], 409)

    def test_a_token_that_may_only_read_changes_nothing(self):
        token = make_token(self.data_dir, "reader", may_act=False)
        before, self.operators.token = self.operators.token, token
        self.addCleanup(setattr, self.operators, "token", before)
        self.assertEqual(self.operators.json("POST", f"{ONE}/retry")[0], 403)
        self.assertEqual(self.operators.json("GET", ONE)[0], 200)
