"""Rollouts by their pages, from the form to the end, with devices that update and that fail."""

import json

from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.rollout_listing import LiveRollouts
from ota_server.operator_port.page_rollout_devices import DeviceLists
from ota_server.system.clock import now_ms
from tests.support import until
from tests.support.fleet import NEW, Fleet, read_progress
from tests.support.operators import Operators, OperatorsCase, make_token

NOW_MS = now_ms()
HOSTILE = "<script>alert(1)</script> \"'&` =1+1"
QUICK = {
    "version": NEW,
    "waves": "20,100",
    "count_new": "on",
    "soak_seconds": "0s",
    "grace_seconds": "1s",
    "min_devices": "3",
    "max_failures": "50%",
}


class RolloutPageCase(OperatorsCase):
    SIZE = 30

    @classmethod
    def come(cls) -> None:
        cls.fleet = Fleet(cls.SIZE)
        cls.fleet.ask(cls.server.port)
        cls.await_devices(cls.SIZE)

    def begin(self, **changes: str) -> str:
        """Begin a rollout; return its page."""
        answer = self.operators.post("/rollouts/new", {**QUICK, **changes})
        self.assertEqual(answer.status, 303, answer.body)
        return answer.fields["location"]

    def state(self) -> str:
        return str(read_progress(self.data_dir).get("state"))

    def plan(self) -> dict[str, object]:
        return json.loads((self.data_dir / "version" / "rollout.json").read_bytes())


class RolloutPageTest(RolloutPageCase):
    def test_a_rollout_goes_its_way_by_the_page(self):
        url = self.begin(note=HOSTILE)
        self.assertEqual(self.plan()["waves"], [20.0, 100.0])
        page = self.operators.page(url)
        self.assertIn("<script>alert(1)</script> \"'&` =1+1", page.text)
        self.assertEqual(len(page.all("script")), 1)

        self.check_pause_and_resume(url)
        self.check_age_of_list(url)
        self.check_limits(url)
        self.check_promote(url)
        self.check_nothing_to_take_back(url)
        self.check_abort(url)
        self.check_list(url)

    def check_pause_and_resume(self, url: str) -> None:
        self.assertTrue(until(lambda: self.state() == "running"))
        for action, wanted in (("pause", "pause"), ("resume", "run")):
            asked = self.operators.page(f"{url}/{action}")
            self.assertRegex(asked.text, r"\d+ devices")
            self.assertNotEqual(self.plan()["wanted"], wanted)
            answer = self.operators.post(f"{url}/{action}", {})
            self.assertEqual((answer.status, answer.fields["location"]), (303, url))
            self.assertEqual(self.plan()["wanted"], wanted)
        # Until the controller has taken it up, it may be said again.
        again = until(lambda: self.operators.post(f"{url}/resume", {}).status == 409)
        self.assertTrue(again, read_progress(self.data_dir))

    def check_age_of_list(self, url: str) -> None:
        """Check that a list that was found before says when that was."""
        lists, rollout_id = DeviceLists(), url.rpartition("/")[2]
        index = DeviceIndex(self.data_dir)
        self.addCleanup(index.close)
        live = LiveRollouts(None, index)
        found = lists.of(self.data_dir, rollout_id, "running", NOW_MS, live)
        self.assertEqual(found.as_of_ms, NOW_MS)
        again = lists.of(self.data_dir, rollout_id, "running", NOW_MS + 60_000, live)
        self.assertEqual(again, found)

    def check_limits(self, url: str) -> None:
        page = self.operators.page(f"{url}/change")
        values = {each["name"]: each["value"] for each in page.all("input", type="text")}
        self.assertEqual(values["max_failures"], "50%")
        answer = self.operators.post(f"{url}/change", {**values, "soak_seconds": "7s"})
        self.assertEqual(answer.status, 303, answer.body)
        self.assertEqual(self.plan()["soak_seconds"], 7.0)
        bad = self.operators.post(f"{url}/change", {**values, "max_failures": "2"})
        self.assertEqual(bad.status, 400)

    def check_promote(self, url: str) -> None:
        self.assertRegex(self.operators.page(f"{url}/promote").text, r"Wave 2 of 2 .* \d+ devices")
        self.assertEqual(self.operators.post(f"{url}/promote", {}).status, 303)
        self.assertTrue(until(lambda: read_progress(self.data_dir)["wave"] == 1))

    def check_nothing_to_take_back(self, url: str) -> None:
        page = self.operators.page(f"{url}/revert")
        self.assertIn("There is nothing to take back.", page.text)
        self.assertEqual(page.all("button", class_="danger"), [])

    def check_abort(self, url: str) -> None:
        self.assertIn("do not get it", self.operators.page(f"{url}/abort").text)
        self.assertEqual(self.operators.post(f"{url}/abort", {}).status, 303)
        self.assertIn("aborted", self.operators.page(url).text)
        self.assertEqual(self.operators.get(f"{url}/pause").status, 409)
        self.assertIn("no device runs", self.operators.page(f"{url}/revert").text.casefold())

    def check_list(self, url: str) -> None:
        page = self.operators.page("/rollouts")
        self.assertIn(url, [each["href"] for each in page.all("a")])
        self.assertIn("aborted by an operator", page.text)
        log = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in log]
        users = {line["action"]: line["user"] for line in lines if "rollout" in line["action"]}
        ours = ("start", "pause", "resume", "change", "promote", "abort")
        self.assertEqual({f"rollout {each}": "ann" for each in ours}.items() - users.items(), set())


class FailedDeviceTest(RolloutPageCase):
    SIZE = 60

    def test_devices_that_fail_are_named_with_their_reason_and_taken_back(self):
        bad = [*self.fleet.versions][3:23]
        url = self.begin(waves="100", max_failures="5%")

        def is_over() -> bool:
            self.fleet.ask(self.server.port, boots=lambda mac: mac not in bad)
            return self.state() == "halted"

        self.assertTrue(until(is_over, 60, 0.1), read_progress(self.data_dir))
        page = self.operators.page(url)
        for mac in bad:
            self.assertIn(f"/devices/default/{mac}", [each["href"] for each in page.all("a")])
        # It halts as soon as enough of them have failed.
        self.assertRegex(page.text, r"\d+ devices: it had the whole image, ")
        self.assertIn("halted", page.text)
        only = self.operators.page(f"{url}?state=failed")
        # The others had not reported yet when it was halted.
        failed = {mac for mac in self.fleet.versions if mac in only.text}
        self.assertTrue(failed)
        self.assertLessEqual(failed, {*bad})
        self.assertRegex(self.operators.page(f"{url}/revert").text, r"\d+ devices on v2.0.0 to")
        answer = self.operators.post(f"{url}/revert", {})
        self.assertEqual(answer.status, 303, answer.body)
        self.assertEqual(self.plan()["reverts"], NEW)
        # The page of the one that was halted stays, with its devices.
        over = self.operators.page(url)
        self.assertIn(bad[0], over.text)
        self.assertEqual(self.operators.post(f"{url}/abort", {}).status, 409)


class WhoMayTest(RolloutPageCase):
    SIZE = 3

    def test_only_who_may_act_changes_a_rollout(self):
        url = self.begin()
        nobody = Operators(self.server.admin_port)
        reader = Operators(self.server.admin_port, make_token(self.data_dir, "reader", False))
        browser = Operators(self.server.admin_port)
        browser.sign_in(self.data_dir)
        paths = ["/rollouts/new"]
        paths += [
            f"{url}/{each}" for each in ("pause", "resume", "promote", "change", "abort", "revert")
        ]
        before = self.plan()
        for path in paths:
            for who, form, status in (
                (nobody, QUICK, 401),
                (reader, QUICK, 403),
                (browser, {**QUICK, "form_token": "wrong"}, 403),
                (browser, {**QUICK, "form_token": ""}, 403),
            ):
                with self.subTest(path=path, status=status):
                    self.assertEqual(who.post(path, form).status, status)
        self.assertEqual(self.plan(), before)
        self.assertEqual(browser.post(f"{url}/pause", {}).status, 303)
        self.assertEqual(self.plan()["wanted"], "pause")

    def test_a_rollout_that_never_was_is_not_found(self):
        for url in ("/rollouts/default/x", "/rollouts/none/x", "/rollouts/default/x%2Fy"):
            with self.subTest(url):
                self.assertEqual(self.operators.get(url).status, 404)
        self.assertEqual(self.operators.get("/rollouts?from=x").status, 400)
