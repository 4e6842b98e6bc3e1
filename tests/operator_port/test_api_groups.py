"""Groups by the API."""

import json
import shutil

from tests.support.operators import OperatorsCase, some_devices

URL = "/api/v1/groups/default/beta"


class ApiGroupsTest(OperatorsCase):
    TAKES_LONG = True

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(5))
        cls.await_devices(5)

    def setUp(self):
        for mac in some_devices(5):
            status, done = self.operators.json("PUT", f"{URL}/devices/{mac}")
            self.assertEqual((status, done["changed"] + done["already"]), (200, 1))

    def test_the_devices_of_a_group_come_in_parts(self):
        members: list[str] = []
        cursor = ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            _, group = self.operators.json("GET", f"{URL}?limit=2{more}")
            self.assertEqual(group["devices"], 5)
            members += group["members"]
            cursor = group["next"]
        self.assertEqual(members, sorted(some_devices(5)))

    def test_a_device_is_taken_out_once_and_is_out_the_second_time(self):
        for _ in range(2):
            url = f"{URL}/devices/02:00:00:00:00:01"
            self.assertEqual(self.operators.json("DELETE", url), (204, None))
        _, group = self.operators.json("GET", URL)
        self.assertNotIn("02:00:00:00:00:01", group["members"])
        none = "/api/v1/groups/default/none/devices/02:00:00:00:00:01"
        self.assertEqual(self.operators.json("DELETE", none)[0], 404)

    def test_a_group_that_is_pinned_is_not_deleted(self):
        status, pin = self.operators.json("PUT", f"{URL}/pin", {"version": "v2.0.0"})
        self.assertEqual((status, pin["group"], pin["mac"]), (200, "beta", None))
        _, listed = self.operators.json("GET", "/api/v1/groups?product=default")
        self.assertEqual([each["pin"] for each in listed["groups"]], ["v2.0.0"])
        _, pins = self.operators.json("GET", "/api/v1/pins")
        self.assertEqual([{**each, "warnings": []} for each in pins["pins"]], [pin])
        self.assertEqual(self.operators.json("DELETE", URL)[0], 409)
        for _ in range(2):
            self.assertEqual(self.operators.json("DELETE", f"{URL}/pin")[0], 204)
        self.assertEqual(self.operators.json("DELETE", URL)[0], 204)
        self.assertEqual(self.operators.json("GET", URL)[0], 404)

    def test_a_file_that_cannot_be_used_is_named_and_stays_as_it_is(self):
        path = self.data_dir / "version" / "groups" / "broken.txt"
        path.write_text("no mac\n")
        self.addCleanup(path.unlink)
        _, listed = self.operators.json("GET", "/api/v1/groups")
        self.assertIn("broken.txt", listed["problems"][0])
        for method, more in (("GET", ""), ("PUT", "/devices/02:00:00:00:00:01")):
            status, problem = self.operators.json(method, f"/api/v1/groups/default/broken{more}")
            self.assertEqual(status, 409)
            self.assertIn("broken.txt", problem["detail"])
        self.assertEqual(path.read_text(), "no mac\n")

    def visited(self, path: str, name: str) -> list[dict]:
        """Return all of a list, two at a time, by the links to its next parts."""
        found, url = [], f"/api/v1/{path}?limit=2"
        while url:
            answer = self.operators.ask("GET", url, fields={"Accept": "application/json"})
            self.assertEqual(answer.status, 200, answer.body)
            part = json.loads(answer.body)
            self.assertLessEqual(len(part[name]), 2)
            self.assertEqual(part["next"] is None, "link" not in answer.fields)
            found += part[name]
            url = answer.fields.get("link", "").partition(">")[0].strip("<")
        return found

    def test_labels_and_pins_come_in_parts_with_links(self):
        url, macs = "/api/v1/devices/default", sorted(some_devices(5))
        plug = self.data_dir / "products" / "plug" / "version"
        plug.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, plug.parent)
        (plug / "labels.json").write_text(json.dumps({macs[0]: "of a plug"}))
        for mac in macs:
            self.operators.json("PUT", f"{url}/{mac}/label", {"label": f"label {mac}"})
            self.operators.json("PUT", f"{url}/{mac}/pin", {"version": "v1.0.0"})
        self.operators.json("PUT", f"{URL}/pin", {"version": "v1.0.0"})
        self.addCleanup(self.operators.json, "DELETE", f"{URL}/pin")
        labels = [(each["product"], each["mac"]) for each in self.visited("labels", "labels")]
        self.assertEqual(labels, [*(("default", mac) for mac in macs), ("plug", macs[0])])
        pins = [each["mac"] or each["group"] for each in self.visited("pins", "pins")]
        self.assertEqual(pins, ["beta", *macs])
        status, problem = self.operators.json("GET", "/api/v1/labels?cursor=xx")
        self.assertEqual(status, 409, problem)
        for mac in macs:
            self.operators.json("DELETE", f"{url}/{mac}/pin")
