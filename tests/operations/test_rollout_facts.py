"""Rollouts as data: those that are on, and those that are over."""

from ota_server.commands.rollout_view import status_lines
from ota_server.device_port.window import Standing
from ota_server.operations.rollout_facts import current_rollouts, ended, rollout_of
from ota_server.operations.rollout_words import remarks_of
from tests.commands.test_rollout import NOW_MS, CommandCase
from tests.support.fleet import NEW


class RolloutFactsTest(CommandCase):
    def begin(self) -> None:
        self.know(100)
        self.run_it("start", NEW, "--waves", "10,50,100", "--note", "<b>")

    def can(self) -> set[str]:
        """Return what may be done about the rollout to the fleet."""
        detail = rollout_of(self.data_dir, "", NOW_MS)
        assert detail is not None
        return {*detail.can}

    def test_one_that_is_on_has_its_waves_with_their_counts(self):
        self.begin()
        counts = {"reach": 10, "active": 10, "updated": 7, "failed": 1}
        self.come_to("running", 1, before=({"reach": 4, "updated": 4},), counts=counts)
        (detail,) = current_rollouts(self.data_dir, NOW_MS)
        self.assertEqual([wave.state for wave in detail.waves], ["done", "open", "to come"])
        self.assertEqual([wave.share for wave in detail.waves], [1.0, 0.7, 0.0])
        self.assertEqual(tuple(wave.added for wave in detail.waves), detail.plan.counted)
        self.assertEqual((detail.state, detail.end_time), ("running", None))
        self.assertEqual((detail.counts, detail.plan.note), (counts, "<b>"))
        self.assertIn("no server runs", detail.advice[0])

    def test_limits_and_warnings_are_told_apart_from_remarks_however_these_begin(self):
        self.begin()
        notes = ("limits: none were met", "WARNING: a note")
        self.come_to("running", counts={"reach": 10, "too_new": 3}, notes=notes)
        detail = rollout_of(self.data_dir, "", NOW_MS)
        assert detail is not None
        self.assertRegex(detail.limits, "^soak 1h, apply-grace 15m, max-failures 2%")
        self.assertRegex(detail.remarks[0], "^3 known for less than a day")
        self.assertEqual((detail.remarks[1:], detail.warnings), (notes, ()))
        standing = Standing(window="02:00-03:00", unmet=2, proxy_sign="they come by a proxy")
        said = remarks_of(detail.plan, detail.progress, "", standing)
        self.assertEqual((said.limits, said.warnings), (detail.limits, ("they come by a proxy",)))
        self.assertRegex(said.others[-1], "^2 never ask within the window")
        shown = status_lines(detail.plan, detail.progress, NOW_MS, standing=standing)
        self.assertIn(f"  limits: {detail.limits}", shown)
        self.assertEqual(shown[-1], "  WARNING: they come by a proxy")

    def test_one_that_is_over_has_neither_limits_nor_a_warning_of_a_proxy(self):
        self.begin()
        self.come_to("done", counts={"reach": 10, "updated": 10})
        detail = rollout_of(self.data_dir, "", NOW_MS)
        assert detail is not None
        said = remarks_of(detail.plan, detail.progress, "", Standing(proxy_sign="a proxy"))
        self.assertEqual((said.limits, said.warnings), ("", ()))

    def test_what_may_be_done_is_what_the_commands_let_be_done(self):
        parts = {
            "pause": ("pause",),
            "resume": ("resume",),
            "promote": ("promote",),
            "change": ("change", "--soak", "7s"),
            "abort": ("abort",),
            "revert": ("abort", "--revert"),
        }
        steps = (
            lambda: None,
            lambda: self.come_to("running"),
            lambda: self.run_it("pause"),
            lambda: self.come_to("paused", reason="a wave's time"),
            lambda: self.come_to("paused", reason="it lifts", lifts=True),
            lambda: self.come_to("halted", reason="too many"),
            lambda: self.come_to("done"),
            lambda: self.run_it("abort"),
        )
        for number in range(len(steps)):
            for part, arguments in parts.items():
                with self.subTest(step=number, part=part):
                    for path in (self.data_dir / "version").glob("*.json"):
                        path.unlink()
                    (self.data_dir / "log" / "devices.jsonl").unlink(missing_ok=True)
                    self.begin()
                    self.know(1, version=NEW, first=300)
                    steps[number]()
                    can = self.can()
                    code, _, err = self.run_it(*arguments)
                    self.assertEqual(part in can, code == 0, err)

    def test_one_that_never_was_is_none(self):
        self.assertIsNone(rollout_of(self.data_dir, "", NOW_MS))
        self.assertEqual(current_rollouts(self.data_dir, NOW_MS), [])
        self.assertEqual(ended(self.data_dir, NOW_MS), [])

    def test_those_that_are_over_come_with_duration_and_result_the_newest_first(self):
        for _ in range(2):
            self.begin()
            self.come_to("running", counts={"reach": 10, "updated": 3})
            self.run_it("abort")
        newest, oldest = ended(self.data_dir, NOW_MS + 60_000)
        self.assertGreaterEqual(newest.start_time, oldest.end_time)
        self.assertEqual((newest.state, newest.note), ("aborted", "<b>"))
        self.assertEqual(newest.whom, "to the fleet")
        self.assertEqual(
            newest.came, "wave 1 of 3, 3 of 10 updated, 10 not heard from since it opened"
        )
        self.assertGreaterEqual(newest.duration_seconds, 0)
        self.assertEqual(len(ended(self.data_dir, NOW_MS, "", limit=1)), 1)
        self.assertEqual(ended(self.data_dir, NOW_MS, "beta"), [])
