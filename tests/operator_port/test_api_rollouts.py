"""Rollouts by the API: previewed, begun, moved and ended by whoever has a token."""

from tests.support import until
from tests.support.operators import OperatorsCase, some_devices

URL = "/api/v1/rollouts/default"
REQUEST = {"version": "v2.0.0", "count_new": True, "waves": [50, 100], "note": "a <note>"}


class ApiRolloutsTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(30, ["v1.0.0"]))
        cls.await_devices(30)

    def tearDown(self):
        for each in self.operators.json("GET", "/api/v1/rollouts")[1]["rollouts"]:
            if each["end_time"] is None:
                self.operators.json("POST", f"{each['url']}/abort")

    def start(self) -> dict:
        status, rollout = self.operators.json("POST", URL, REQUEST)
        self.assertEqual(status, 201, rollout)
        return rollout

    def test_before_a_wave_opens_it_has_no_number_of_devices(self):
        for wave in self.start()["waves"]:
            self.assertEqual(wave["devices"] is None, not wave["counts"], wave)

    def test_a_preview_says_what_each_wave_would_hold_and_changes_nothing(self):
        status, shown = self.operators.json("POST", f"{URL}/preview", REQUEST)
        self.assertEqual(status, 200, shown)
        self.assertEqual(sum(wave["added"] for wave in shown["waves"]), 30)
        self.assertEqual([wave["percent"] for wave in shown["waves"]], [50, 100])
        self.assertTrue(shown["waits_for"])
        on = [
            each
            for each in self.operators.json("GET", "/api/v1/rollouts")[1]["rollouts"]
            if each["end_time"] is None
        ]
        self.assertEqual(on, [])

    def test_a_rollout_can_be_read_where_it_is_said_to_be(self):
        answer = self.operators.ask(
            "POST",
            URL,
            b'{"version": "v2.0.0", "count_new": true}',
            {"Content-Type": "application/json", "Accept": "application/json"},
        )
        self.assertEqual(answer.status, 201)
        status, rollout = self.operators.json("GET", answer.fields["location"])
        self.assertEqual((status, rollout["version"], rollout["is_on"]), (200, "v2.0.0", True))
        self.assertIn("pause", rollout["can"])
        _, listed = self.operators.json("GET", "/api/v1/rollouts?limit=1")
        self.assertEqual(listed["rollouts"][0]["url"], answer.fields["location"])

    def test_a_rollout_is_paused_changed_resumed_promoted_and_aborted(self):
        rollout = self.start()
        self.assertEqual((rollout["note"], rollout["group"]), ("a <note>", ""))
        url = rollout["url"]
        self.assertTrue(until(lambda: self.operators.json("GET", url)[1]["state"] == "running", 10))
        for method, more, body in (
            ("POST", "/pause", None),
            ("POST", "/resume", None),
            ("PATCH", "", {"max_failures": 5, "soak_seconds": 60}),
            ("POST", "/promote", None),
            ("POST", "/abort", None),
        ):
            with self.subTest(more or method):
                status, said = self.operators.json(method, f"{url}{more}", body)
                self.assertEqual(status, 200, said)
                self.assertTrue(said["text"])
        _, over = self.operators.json("GET", url)
        self.assertEqual((over["state"], over["is_on"]), ("aborted", False))
        self.assertEqual(self.operators.json("POST", f"{url}/pause")[0], 409)
        self.assertEqual(self.operators.json("GET", f"{url}/devices")[0], 200)

    def test_a_second_rollout_to_the_same_devices_is_a_conflict(self):
        self.start()
        self.assertEqual(self.operators.json("POST", URL, REQUEST)[0], 409)

    def test_a_request_that_does_not_fit_is_refused(self):
        for body, status in (
            ({}, 422),
            ({"version": "v2.0.0", "waves": []}, 422),
            ({"version": "v2.0.0", "waves": [0]}, 422),
            ({"version": "v2.0.0", "max_failures": 100}, 422),
            ({"version": "v2.0.0", "note": "x" * 2000}, 422),
            ({"version": "v2.0.0", "wave": [1]}, 422),
            ({"version": "v2.0.0", "waves": [50, 10]}, 409),
            ({"version": "v9.0.0"}, 409),
            ({"version": "v2.0.0", "group": "beta", "groups_too": True}, 409),
        ):
            with self.subTest(body):
                found, problem = self.operators.json("POST", URL, body)
                self.assertEqual(found, status, problem)

    def test_a_rollout_that_another_one_has_replaced_cannot_be_changed(self):
        first = self.start()["url"]
        self.operators.json("POST", f"{first}/abort")
        self.start()
        status, problem = self.operators.json("POST", f"{first}/pause")
        self.assertEqual(status, 409, problem)
        self.assertEqual(self.operators.json("GET", first)[1]["state"], "aborted")


class ApiRevertTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(5, ["v1.0.0"]))
        cls.await_devices(5)

    def test_devices_that_have_it_are_taken_back_and_without_any_that_is_a_conflict(self):
        status, rollout = self.operators.json("POST", URL, {**REQUEST, "waves": [100]})
        self.assertEqual(status, 201, rollout)
        url = rollout["url"]
        self.assertTrue(until(lambda: self.operators.json("GET", url)[1]["state"] == "running", 10))
        status, problem = self.operators.json("POST", f"{url}/revert")
        self.assertEqual(status, 409)
        self.assertIn("nothing to take back", problem["detail"])
        self.check_in(some_devices(5, ["v1.0.0"]))
        self.check_in(some_devices(5, ["v2.0.0"]))
        status, done = self.operators.json("POST", f"{url}/revert", {"force": True})
        self.assertEqual(status, 200, done)
        self.assertIn("back to v1.0.0", done["text"])
        _, listed = self.operators.json("GET", "/api/v1/rollouts?limit=1")
        self.assertEqual(listed["rollouts"][0]["version"], "v1.0.0")
