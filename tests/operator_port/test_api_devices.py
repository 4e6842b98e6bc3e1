"""Devices by the API: lists in parts, filters, one device with its history."""

import json

from ota_server.model.timestamp import parse_time
from ota_server.operator_port.api_devices import device_url
from tests.support.operators import OperatorsCase, some_devices

COUNT = 30


class ApiDevicesTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        groups = cls.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("02:00:00:00:00:00\n02:00:00:00:00:03\n")

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(COUNT))
        for _ in range(3):
            cls.check_in(some_devices(1, ["v2.0.0"]))
        cls.await_devices(COUNT)

    def listed(self, query: str = "") -> list[str]:
        """Return the names of the devices that a list has, in its order, part by part."""
        names: list[str] = []
        url = f"/api/v1/devices{query}"
        while url:
            answer = self.operators.ask("GET", url, fields={"Accept": "application/json"})
            self.assertEqual(answer.status, 200, answer.body)
            page = json.loads(answer.body)
            names += [each["mac"] for each in page["devices"]]
            links = dict(
                reversed(link.split("; rel="))
                for link in answer.fields.get("link", "").split(", ")
                if link
            )
            self.assertEqual('"next"' in links, page["next"] is not None)
            url = links.get('"next"', "").strip("<>")
        return names

    def test_page_by_page_each_device_is_visited_once(self):
        expected = sorted(some_devices(COUNT))
        for query in ("?limit=7", "?limit=1", "?limit=500", ""):
            with self.subTest(query):
                self.assertEqual(self.listed(query), expected)
        backward = self.listed("?limit=4&sort=mac&order=desc")
        self.assertEqual(backward, expected[::-1])

    def test_the_part_before_is_linked_as_well(self):
        _, first = self.operators.json("GET", "/api/v1/devices?limit=10")
        self.assertIsNone(first["previous"])
        _, second = self.operators.json("GET", f"/api/v1/devices?limit=10&cursor={first['next']}")
        url = f"/api/v1/devices?limit=10&cursor={second['previous']}"
        self.assertEqual(self.operators.json("GET", url)[1]["devices"], first["devices"])

    def test_it_was_first_seen_in_a_full_hour(self):
        _, page = self.operators.json("GET", "/api/v1/devices?limit=1")
        (device,) = page["devices"]
        self.assertRegex(device["first_seen_time"], r":00:00\.000Z$")
        age_ms = parse_time(device["last_seen_time"]) - parse_time(device["first_seen_time"])
        self.assertTrue(0 < age_ms <= 3_600_000, age_ms)

    def test_a_filter_chooses_as_its_name_says(self):
        for query, wanted in (
            ("?version=v2.0.0", lambda at: at % 2 == 1 or at == 0),
            ("?version=2.0.0&version=v9", lambda at: at % 2 == 1 or at == 0),
            ("?not_version=v2.0.0", lambda at: at % 2 == 0 and at != 0),
            ("?group=beta", lambda at: at in (0, 3)),
            ("?text=00:00:0a", lambda at: at == 10),
            ("?address=127.0.0.0/8", lambda _: True),
            ("?address=192.0.2.1", lambda _: False),
            ("?state=up_to_date", lambda at: at % 2 == 0 and at != 0),
            ("?state=up_to_date&state=behind", lambda _: True),
            ("?outdated=true&group=beta", lambda at: at in (0, 3)),
            ("?outdated=false", lambda _: True),
            ("?product=default&not_seen=1d", lambda _: False),
            ("?family=br", lambda _: True),
            ("?label=x", lambda _: False),
            ("?target=v1.0.0", lambda _: True),
            ("?target=v2.0.0", lambda _: False),
            ("?apart=counted", lambda _: True),
            ("?apart=pinned", lambda _: False),
        ):
            with self.subTest(query):
                expected = [mac for at, mac in enumerate(sorted(some_devices(COUNT))) if wanted(at)]
                self.assertEqual(self.listed(query), expected)
                _, page = self.operators.json("GET", f"/api/v1/devices{query}")
                self.assertEqual((page["total"], page["total_is_exact"]), (len(expected), True))

    def test_a_filter_chooses_the_same_devices_on_the_page(self):
        for query in (
            "?version=v2.0.0&sort=seen&order=desc",
            "?group=beta&state=behind",
            "?text=0a",
            "?outdated=true",
            "?stage=told&sort=version",
            "?stage=reports_it&sort=address",
        ):
            with self.subTest(query):
                sheet = self.operators.get(f"/devices.csv{query}&columns=mac")
                self.assertEqual(sheet.status, 200, sheet.body)
                rows = sheet.body.decode("utf-8-sig").split()[1:]
                self.assertEqual(self.listed(query), rows)

    def test_a_device_that_calls_itself_by_a_name_with_a_slash_is_one_device(self):
        url = "/api/v1/devices/default/id:a%2Fb%3F%20c"
        self.assertEqual(self.operators.json("PUT", f"{url}/label", {"label": "x"})[0], 200)
        _, listed = self.operators.json("GET", "/api/v1/labels")
        self.assertEqual([each["mac"] for each in listed["labels"]], ["id:a/b? c"])
        self.assertEqual(device_url("", "id:a/b? c"), url)
        self.assertEqual(self.operators.json("DELETE", f"{url}/label")[0], 204)

    def test_a_device_is_shown_with_why_it_gets_what_it_gets(self):
        _, device = self.operators.json("GET", "/api/v1/devices/default/02-00-00-00-00-03")
        self.assertEqual(device["mac"], "02:00:00:00:00:03")
        self.assertEqual(device["firmware_version"], "v2.0.0")
        self.assertEqual(device["target_version"], "v1.0.0")
        self.assertEqual(device["groups"], ["beta"])
        self.assertEqual(device["state"], "behind")
        self.assertEqual(device["explanation"]["target_version"], "v1.0.0")
        self.assertEqual(device["explanation"]["rule"], "target")
        self.assertIn("it is told v1.0.0", device["explanation"]["sentence"])
        self.assertEqual(self.operators.json("GET", device["url"])[1], device)

    def test_the_history_of_a_device_comes_in_parts_the_newest_first(self):
        url = "/api/v1/devices/default/02:00:00:00:00:00/history"
        _, whole = self.operators.json("GET", url)
        entries = whole["entries"]
        self.assertEqual([each["checks"] for each in entries], [2, 1, 1])
        self.assertEqual([each["what"] for each in entries], ["", "was v1.0.0", ""])
        self.assertIsNone(whole["next"])
        _, first = self.operators.json("GET", f"{url}?limit=1")
        _, second = self.operators.json("GET", f"{url}?limit=1&cursor={first['next']}")
        self.assertEqual(first["entries"] + second["entries"], entries[:2])

    def test_the_rollouts_of_a_device_are_listed(self):
        url = "/api/v1/devices/default/02:00:00:00:00:00/rollouts"
        self.assertEqual(self.operators.json("GET", url), (200, {"rollouts": []}))
