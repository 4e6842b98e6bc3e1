"""What metrics are made from is found on file and at the server that runs."""

import os
from pathlib import Path
from typing import Any

from ota_server.model.timestamp import format_time
from ota_server.operator_port.metrics import metrics_text
from ota_server.operator_port.metrics_gather import gather_metrics
from ota_server.operator_port.metrics_input import FleetFigures, ProductFigures, RolloutFigures
from ota_server.policy.device_state import Condition
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    format_plan,
    plan_name,
    progress_name,
)
from ota_server.system import clock
from tests.support import Client, DataDirCase, Process, until
from tests.support.metrics import read_metrics

OLD, NEW = "v1.0.0", "v1.0.1"
PLAN = RolloutPlan("1", NEW, "", (50.0, 100.0), format_time(0), OLD)


class GatherCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.set_target(OLD)

    def roll_out(
        self, state: RolloutState | None, plan: RolloutPlan = PLAN, folder: Path | None = None
    ) -> None:
        """Write a rollout and how far it is; None: it has not begun."""
        version = (folder or self.data_dir) / "version"
        (version / plan_name(plan.group)).write_bytes(format_plan(plan))
        if state is not None:
            progress = RolloutProgress("1", state, 1, format_time(0), counts={"updated": 4})
            (version / progress_name(plan.group)).write_bytes(format_plan(progress))

    def products(self, **fleets: FleetFigures) -> tuple[ProductFigures, ...]:
        """Return what is found of the products."""
        return gather_metrics(self.data_dir, fleets, clock.now_ms()).products

    def rollout(self) -> RolloutFigures:
        """Return what is found of the only rollout."""
        ((rollout,),) = (each.rollouts for each in self.products())
        return rollout


class OnFileTest(GatherCase):
    def test_an_empty_folder_is_one_product_with_nothing(self):
        self.assertEqual(self.products(), (ProductFigures(),))

    def test_the_devices_of_a_product_are_those_that_were_given(self):
        fleet = FleetFigures({Condition.BEHIND: 3}, {OLD: 3})
        (product,) = gather_metrics(self.data_dir, {"": fleet}, 0).products
        self.assertEqual(product.fleet, fleet)

    def test_each_product_is_found(self):
        plug = self.data_dir / "products" / "plug"
        (plug / "version").mkdir(parents=True)
        self.roll_out(RolloutState.RUNNING, folder=plug)
        (plug / "version" / "hold.json").write_text("{}")
        default, found = self.products()
        self.assertEqual((default.name, default.is_held, default.rollouts), ("", False, ()))
        self.assertEqual((found.name, found.is_held, len(found.rollouts)), ("plug", True, 1))

    def test_a_hold_says_since_when_whatever_is_in_its_file(self):
        hold = self.data_dir / "version" / "hold.json"
        for content, since_ms in (
            ('{"time": "2026-11-23T12:00:00Z", "user": "x", "reason": "y"}', 1795435200000),
            ("", 0),
            ("{broken", 0),
            ('{"time": "yesterday"}', 0),
        ):
            with self.subTest(content):
                hold.write_text(content)
                (product,) = self.products()
                self.assertEqual((product.is_held, product.held_since_ms), (True, since_ms))

    def test_a_rollout_is_found_in_each_of_its_states(self):
        for state, wish, said in (
            (None, RolloutWish.RUN, "waiting"),
            (RolloutState.RUNNING, RolloutWish.RUN, "running"),
            (RolloutState.RUNNING, RolloutWish.PAUSE, "paused"),
            (RolloutState.PAUSED, RolloutWish.RUN, "paused"),
            (RolloutState.HALTED, RolloutWish.RUN, "halted"),
            (RolloutState.DONE, RolloutWish.RUN, "done"),
            (RolloutState.RUNNING, RolloutWish.ABORT, "aborted"),
            (RolloutState.ABORTED, RolloutWish.ABORT, "aborted"),
        ):
            with self.subTest(state=state, wish=wish):
                self.roll_out(state, PLAN._replace(wanted=wish))
                self.assertEqual(self.rollout().state, said)

    def test_a_rollout_that_was_told_to_go_on_is_paused_until_it_does(self):
        self.roll_out(RolloutState.PAUSED, PLAN._replace(resumed=1))
        self.assertEqual(self.rollout().state, "paused")

    def test_a_rollout_has_its_wave_and_counts(self):
        self.roll_out(RolloutState.RUNNING)
        found = self.rollout()
        self.assertEqual((found.version, found.wave, found.waves), (NEW, 2, 2))
        self.assertEqual(found.outcomes, {"updated": 4})
        changed = os.stat(self.data_dir / "version" / "progress.json").st_mtime_ns // 1_000_000
        self.assertLessEqual(abs(found.changed_ms - changed), 1000)

    def test_a_halted_rollout_waits_for_a_person_until_there_is_another_target(self):
        self.roll_out(RolloutState.HALTED)
        self.assertTrue(self.rollout().waits_for_person)
        self.set_target("v0.9.0")
        self.assertFalse(self.rollout().waits_for_person)

    def test_rollouts_that_are_on_come_first(self):
        self.roll_out(RolloutState.DONE)
        self.roll_out(RolloutState.RUNNING, PLAN._replace(group="beta"))
        (product,) = self.products()
        self.assertEqual([each.group for each in product.rollouts], ["beta", ""])

    def test_a_broken_plan_is_no_failure(self):
        (self.data_dir / "version" / "rollout.json").write_text("{")
        (product,) = self.products()
        self.assertIsNone(product.rollouts)

    def test_counts_that_somebody_edited_are_left_out(self):
        self.roll_out(RolloutState.RUNNING)
        path = self.data_dir / "version" / "progress.json"
        path.write_text(path.read_text().replace('"updated": 4', '"updated": "x", "failed": 1'))
        outcomes: dict[str, Any] = dict(self.rollout().outcomes)
        self.assertIn(outcomes, ({"failed": 1}, {}))

    def test_without_a_server_there_are_no_figures_of_one(self):
        found = gather_metrics(self.data_dir, {}, 0)
        self.assertEqual((found.server, found.server_process), (None, None))


class ServerTest(GatherCase):
    def test_a_server_that_runs_is_seen_with_its_process(self):
        self.put_image(OLD, b"image")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        with Client(server.port) as client:
            client.request("/version.txt")
            client.answer()

        def is_counted() -> bool:
            found = read_metrics(metrics_text(gather_metrics(self.data_dir, {}, clock.now_ms())))
            checks = found.get("ota_requests_total", {})
            return checks.get((("route", "version.txt"), ("code", "200"))) == 1

        self.assertTrue(until(is_counted))
        found = gather_metrics(self.data_dir, {}, clock.now_ms())
        self.assertEqual(found.server.pid, server.process.pid)
        if os.path.isdir("/proc/self"):
            self.assertGreater(found.server_process.resident_bytes, 1_000_000)
