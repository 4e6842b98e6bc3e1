"""A rollout that is asked for by a form or by JSON, and the limits of one that goes on."""

import unittest
from collections.abc import Mapping

from ota_server.operations.rollout_request import RolloutRequest, read_limits, read_request
from ota_server.operations.typed_values import BadFields
from ota_server.policy.rollout_plan import RolloutPlan


class ReadTest(unittest.TestCase):
    def wrong(self, fields: Mapping[str, object]) -> set[str]:
        """Return which fields are said to be wrong."""
        with self.assertRaises(BadFields) as refused:
            read_request(fields)
        self.assertNotIn("", refused.exception.problems.values())
        return {*refused.exception.problems}

    def test_json_and_a_form_make_the_same_request(self):
        expected = RolloutRequest(
            "v1",
            waves=(1.0, 12.5, 100.0),
            first_group="canary",
            groups_too=True,
            max_failures=3.5,
            soak_seconds=90.0,
            grace_seconds=1.5,
            min_devices=7,
            wave_timeout_seconds=86400.0,
            held_unknown="target",
            count_new=True,
            is_forced=True,
            note="why",
        )
        json = {**expected.__dict__, "waves": [1, 12.5, 100]}
        form = {
            **dict.fromkeys(("groups_too", "count_new", "is_forced"), "on"),
            "version": "v1",
            "group": "",
            "waves": "1, 12.5 ,100",
            "first_group": "canary",
            "max_failures": "3.5%",
            "soak_seconds": "90s",
            "grace_seconds": "1.5s",
            "min_devices": "7",
            "wave_timeout_seconds": "1d",
            "held_unknown": "target",
            "note": " why ",
        }
        self.assertEqual(read_request(json), expected)
        self.assertEqual(read_request(form), expected)

    def test_what_is_left_out_is_as_the_plan_has_it(self):
        request = read_request({"version": "v1", "group": None, "waves": "", "note": None})
        plan = RolloutPlan("id", "v1", "", (100.0,), "2026-01-01T00:00:00Z", None)
        self.assertEqual(request.plan("id", plan.time), plan)
        self.assertIsNone(request.waves)

    def test_what_is_wrong_is_said_by_field(self):
        for fields, wrong in (
            ({}, {"version"}),
            ({"version": "a/b"}, {"version"}),
            ({"version": 1.0}, {"version"}),
            ({"version": "v1", "groups": "x"}, {"groups"}),
            ({"version": "v1", "waves": [50, 10, 100]}, {"waves"}),
            ({"version": "v1", "waves": [True, 100]}, {"waves"}),
            ({"version": "v1", "waves": [10, float("nan"), 100]}, {"waves"}),
            ({"version": "v1", "waves": [each / 2 for each in range(1, 201)]}, {"waves"}),
            ({"version": "v1", "waves": {}}, {"waves"}),
            (
                {"version": "v1", "max_failures": "2", "soak_seconds": -1},
                {"max_failures", "soak_seconds"},
            ),
            ({"version": "v1", "max_failures": 100}, {"max_failures"}),
            ({"version": "v1", "soak_seconds": 1e300}, {"soak_seconds"}),
            ({"version": "v1", "soak_seconds": True}, {"soak_seconds"}),
            ({"version": "v1", "min_devices": 0}, {"min_devices"}),
            ({"version": "v1", "min_devices": 1.5}, {"min_devices"}),
            ({"version": "v1", "held_unknown": "drop"}, {"held_unknown"}),
            ({"version": "v1", "count_new": "maybe"}, {"count_new"}),
            ({"version": "v1", "note": "x" * 501, "group": "9"}, {"note", "group"}),
            ({"version": "v1", "note": "\x1b[31m"}, {"note"}),
            ({"version": "v1", "group": "beta", "groups_too": True}, {"groups_too"}),
        ):
            with self.subTest(fields):
                self.assertEqual(self.wrong(fields), wrong)

    def test_limits_are_read_alone(self):
        self.assertEqual(
            read_limits({"max_failures": "3%", "soak_seconds": "", "grace_seconds": 60}),
            {"max_failures": 3.0, "grace_seconds": 60.0},
        )
        self.assertRaises(BadFields, read_limits, {"soak_seconds": ""})
        self.assertRaises(BadFields, read_limits, {"min_devices": "7"})
