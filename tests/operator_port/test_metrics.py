"""The page of metrics as a whole: what it has, and that it does not grow."""

import json
import re
import unittest

from ota_server.operator_port.metrics import metric_families, metrics_text
from ota_server.operator_port.metrics_input import FleetFigures, ProductFigures
from ota_server.policy.device_state import Condition
from tests.support import ROOT
from tests.support.metrics import EVERYTHING, read_metrics

# What the issue of this page names, so that nobody renames it unseen.
PROMISED = (
    *("ota_requests_total", "ota_request_duration_seconds", "ota_downloads_in_progress"),
    *("ota_sent_bytes_total", "ota_downloads_total", "ota_devices", "ota_devices_by_version"),
    *("ota_journal_records_total", "ota_journal_errors_total", "ota_rollout_state"),
    *("ota_rollout_devices", "ota_connections", "ota_rejected_requests_total", "ota_hold"),
    *("ota_build_info", "process_cpu_seconds_total", "process_resident_memory_bytes"),
)
NAMES = {family.name: family for family in metric_families(EVERYTHING)}
_NAME = re.compile(r"\b(?:ota|process)_[a-z_]+\b")


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression of PromQL names, a histogram without its suffix."""
    without_text = re.sub(r'"[^"]*"', "", expression)
    return {re.sub(r"(_seconds)_bucket$", r"\1", name) for name in _NAME.findall(without_text)}


class MetricsTest(unittest.TestCase):
    def test_what_was_promised_is_there(self):
        self.assertLessEqual({*PROMISED}, {*NAMES})

    def test_every_metric_has_a_sample_when_all_is_there(self):
        found = read_metrics(metrics_text(EVERYTHING))
        for name in NAMES:
            with self.subTest(name):
                self.assertTrue({name, f"{name}_bucket"} & {*found})

    def test_a_counter_and_nothing_else_ends_in_total(self):
        for name, family in NAMES.items():
            with self.subTest(name):
                self.assertEqual(name.endswith("_total"), family.kind == "counter")

    def test_every_metric_says_in_one_sentence_what_it_is(self):
        for name, family in NAMES.items():
            with self.subTest(name):
                self.assertRegex(family.about, r"\A[A-Z][^\n]+\.\Z")

    def test_it_does_not_grow_with_devices(self):
        def lines(devices: int) -> int:
            versions = {f"v{number}": 1 for number in range(devices)}
            fleet = FleetFigures({Condition.BEHIND: devices}, versions)
            given = EVERYTHING._replace(products=(ProductFigures(fleet=fleet),))
            return len(metrics_text(given).splitlines())

        self.assertEqual(lines(10), lines(10_000))

    def test_without_a_server_it_is_still_whole(self):
        found = read_metrics(metrics_text(EVERYTHING._replace(server=None)))
        self.assertEqual(found["ota_server_up"], {(): 0})
        self.assertIn("ota_rollout_state", found)
        self.assertNotIn("ota_requests_total", found)


class DeployedTest(unittest.TestCase):
    def test_the_dashboard_names_only_metrics_that_there_are(self):
        dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text("utf-8"))
        expressions = [
            target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
        ]
        queries = [each.get("definition", "") for each in dashboard["templating"]["list"]]
        self.assertGreater(len(expressions), 20)
        for expression in (*expressions, *queries):
            with self.subTest(expression):
                self.assertLessEqual(names_in(expression), {*NAMES})

    def test_the_alerts_name_only_metrics_that_there_are(self):
        rules = (ROOT / "deploy" / "prometheus-alerts.yml").read_text("utf-8")
        without_comments = re.sub(r"#.*|name: ota_server|job=\S+", "", rules)
        self.assertLessEqual(names_in(without_comments), {*NAMES})

    def test_the_page_of_the_documentation_names_each_metric_and_no_other(self):
        page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
        tables = "\n".join(re.findall(r"^\| `(?:ota|process)_.*", page, re.MULTILINE))
        named = re.findall(r"^\| `([a-z_]+)", tables, re.MULTILINE)
        self.assertEqual(sorted(named), sorted(NAMES))

    def test_the_alerts_are_all_documented(self):
        page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
        rules = (ROOT / "deploy" / "prometheus-alerts.yml").read_text("utf-8")
        alerts = re.findall(r"- alert: (\w+)", rules)
        self.assertEqual(re.findall(r"^\| `(Ota\w+)`", page, re.MULTILINE), alerts)
