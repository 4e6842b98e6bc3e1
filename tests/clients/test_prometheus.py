"""A real Prometheus scrapes a real server, and its promtool checks what is in `deploy/`."""

import json
import re
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ota_server.operator_port.exposition import CONTENT_TYPE
from ota_server.operator_port.metrics import metrics_text
from tests.support import DEVICE, ROOT, TIMEOUT_SECONDS, Client, DataDirCase, Process, until
from tests.support.fleet import run_command
from tests.support.metrics import EVERYTHING
from tests.support.real_clients import needs

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
ALERTS = DEPLOY / "prometheus-alerts.yml"
# Beside the labels of the sample, what Prometheus adds.
TARGET = 'job="ota_server",instance="a:7778"'
HALTED = {
    'ota_rollout_state{state="halted",%s}': "0x10 1x60",
    "ota_rollout_waits_for_person{%s}": "0x10 1x60",
}
# Of each alert: series by which it fires after an hour, and series by which it does not. The
# interval is a minute, and `%s` stands for the labels of the target.
STORIES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "OtaRolloutHalted": (
        HALTED,
        {**HALTED, "ota_rollout_waits_for_person{%s}": "0x10 1x20 0x40"},  # somebody has answered
    ),
    "OtaRolloutWaitsForPerson": (
        {
            'ota_rollout_state{state="halted",%s}': "0x70",
            'ota_rollout_state{state="paused",%s}': "1x70",
            "ota_rollout_waits_for_person{%s}": "0x10 1x60",
        },
        HALTED,  # that is the other alert
    ),
    "OtaRolloutUnattended": (
        {
            'ota_rollout_state{state="running",product="plug",group="beta",%s}': "1x70",
            'ota_rollouts_attended{product="plug",%s}': "1x10 0x60",
            "ota_rollouts_attended{%s}": "1x70",
        },
        {
            'ota_rollout_state{state="running",%s}': "1x10 0x60",
            'ota_rollout_state{state="done",%s}': "0x10 1x60",
            "ota_rollouts_attended{%s}": "1x10 0x60",
        },
    ),
    "OtaJournalFailing": (
        {"ota_journal_failing{%s}": "0x10 1x60", "ota_journal_errors_total{%s}": "0x10 1+1x60"},
        {"ota_journal_failing{%s}": "0x10 1x5 0x60", "ota_journal_errors_total{%s}": "0x10 9x60"},
    ),
    "OtaDevicesSilent": (
        {
            'ota_devices{state="silent",%s}': "0x30 5x40",
            'ota_devices{state="away",%s}': "0x30 5x40",
            'ota_devices{state="up_to_date",%s}': "500x30 490x40",
        },
        {
            'ota_devices{state="silent",%s}': "80x30 82x40",  # as ever
            'ota_devices{state="away",%s}': "50x30 51x40",
            'ota_devices{state="up_to_date",%s}': "500x30 497x40",
        },
    ),
    "OtaNoDeviceSeen": (
        {
            "ota_last_device_seen_timestamp_seconds{%s}": "0x200",
            "ota_server_start_timestamp_seconds{%s}": "-60x200",
            "ota_known_devices{%s}": "5x200",
        },
        {
            "ota_last_device_seen_timestamp_seconds{%s}": "0+60x200",
            "ota_server_start_timestamp_seconds{%s}": "-9000x200",
            "ota_known_devices{%s}": "5x200",
        },
    ),
    "OtaServerAway": ({"ota_server_up{%s}": "1x10 0x60"}, {"ota_server_up{%s}": "1x70"}),
    "OtaControllerAway": ({"up{%s}": "1x10 0x60"}, {"up{%s}": "1x59 0x60"}),
}
# Panels of the dashboard that may have nothing to show: nothing went wrong, no rollout is on, and
# there is no limit of downloads.
MAY_BE_EMPTY = {"Answers other than 200 and 206", "State", "Download slots"}
# A server that has just begun, or knows no device, misses none.
NO_DEVICE_MISSED: tuple[Mapping[str, str], ...] = (
    {
        "ota_last_device_seen_timestamp_seconds{%s}": "0x200",
        "ota_server_start_timestamp_seconds{%s}": "3000x200",
        "ota_known_devices{%s}": "5x200",
    },
    {
        "ota_last_device_seen_timestamp_seconds{%s}": "0x200",
        "ota_server_start_timestamp_seconds{%s}": "0x200",
        "ota_known_devices{%s}": "0x200",
    },
)


def promtool(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Return what came of promtool."""
    return subprocess.run(
        ["promtool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS * 3,
    )


def alert_test(alert: str, series: Mapping[str, str], fires: bool) -> dict[str, Any]:
    """Return a test of an alert after an hour, as promtool reads it."""
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "interval": "1m",
        "input_series": [
            {"series": name % TARGET, "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": "61m",
                "exp_samples": expected,
            }
        ],
    }


def panel_expressions() -> list[tuple[str, str]]:
    """Return the expressions of the dashboard, each with the title of its panel."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [
        (panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())
    ]


@needs("promtool")
class PromtoolTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def assert_passes(self, *arguments: str, given: str = "") -> None:
        """Fail unless promtool finds nothing wrong, not even the style."""
        done = promtool(*arguments, given=given)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}")
        self.assertEqual(done.stderr, "")

    def test_the_rules_and_the_configuration_are_valid(self):
        self.assert_passes("check", "rules", str(ALERTS))
        self.assert_passes("check", "config", str(DEPLOY / "prometheus.yml"))

    def test_all_metrics_at_once_are_valid(self):
        self.assert_passes("check", "metrics", given=metrics_text(EVERYTHING))

    def test_each_alert_fires_and_does_not_fire(self):
        alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8"))
        self.assertEqual([*STORIES], alerts)
        tests = [
            alert_test(alert, series, fires)
            for alert, stories in STORIES.items()
            for series, fires in zip(stories, (True, False), strict=True)
        ]
        tests += [alert_test("OtaNoDeviceSeen", each, False) for each in NO_DEVICE_MISSED]
        self.check_tests(tests)

    def test_without_trouble_no_alert_fires(self):
        quiet = {
            'ota_rollout_state{state="running",%s}': "1x70",
            'ota_rollout_state{state="halted",%s}': "0x70",
            "ota_rollout_waits_for_person{%s}": "0x70",
            "ota_rollouts_attended{%s}": "1x70",
            "ota_journal_failing{%s}": "0x70",
            "ota_journal_errors_total{%s}": "0x70",
            'ota_devices{state="silent",%s}': "1x70",
            'ota_devices{state="up_to_date",%s}': "100x70",
            "ota_last_device_seen_timestamp_seconds{%s}": "0+60x70",
            "ota_server_start_timestamp_seconds{%s}": "0x70",
            "ota_known_devices{%s}": "101x70",
            "ota_server_up{%s}": "1x70",
            "up{%s}": "1x70",
        }
        self.check_tests([alert_test(alert, quiet, False) for alert in STORIES])

    def check_tests(self, tests: list[dict[str, Any]]) -> None:
        """Have promtool run tests of the alerts. JSON is YAML too."""
        path = self.folder / "tests.yml"
        path.write_text(
            json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
        )
        done = promtool("test", "rules", str(path))
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}")

    def test_every_expression_of_the_dashboard_is_valid(self):
        expressions = [each.replace("$__rate_interval", "5m") for _, each in panel_expressions()]
        rules = [{"record": f"r{n}", "expr": each} for n, each in enumerate(expressions)]
        path = self.folder / "rules.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        self.assert_passes("check", "rules", "--lint=none", str(path))


@needs("prometheus", "promtool")
class PrometheusTest(DataDirCase):
    TAKES_LONG = True
    VERSIONS = {"v1.0.0": 3, "v1.0.1": 5, 'ver"sion\\ {x="y"}': 1}

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", b"an image" * 1000)
        self.set_target("v1.0.1")
        self.server = Process("--data-dir", str(self.data_dir), "--admin", "127.0.0.1:0")
        self.addCleanup(self.server.kill)
        self.addCleanup(self.server.end)
        number = 0
        for version, count in self.VERSIONS.items():
            for _ in range(count):
                number += 1
                self.ask("/version.txt", f"02:00:00:00:00:{number:02x}", version)
        self.ask("/firmware.bin", "02:00:00:00:00:01", "v1.0.0")

    def ask(self, path: str, mac: str, version: str) -> None:
        """Ask as a device does."""
        with Client(self.server.port) as client:
            client.request(path, {**DEVICE, "_br_mac_": mac, "_br_fwv_": version})
            self.assertEqual(client.answer().status, 200)

    def start_prometheus(self, metrics: int) -> int:
        """Start it on the configuration in `deploy/`, with its own port; return that."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        configuration = (DEPLOY / "prometheus.yml").read_text("utf-8")
        configuration = configuration.replace("127.0.0.1:7778", f"127.0.0.1:{metrics}")
        configuration = configuration.replace("15s", "200ms")
        (Path(folder.name) / "prometheus.yml").write_text(configuration)
        (Path(folder.name) / ALERTS.name).write_text(ALERTS.read_text("utf-8"))
        log = Path(folder.name) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder.name}/prometheus.yml",
                    f"--storage.tsdb.path={folder.name}/data",
                    "--web.listen-address=127.0.0.1:0",
                    "--log.level=info",
                ],
                stdout=output,
                stderr=output,
            )
        self.addCleanup(process.wait, TIMEOUT_SECONDS)
        self.addCleanup(process.kill)
        found: list[str] = []

        def is_listening() -> bool:
            found[:] = re.findall(r'Listening on" address=127\.0\.0\.1:(\d+)', log.read_text())
            return bool(found)

        self.assertTrue(until(is_listening, TIMEOUT_SECONDS), log.read_text())
        return int(found[0])

    def query(self, port: int, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus answers to a query; nothing while it is not ready."""
        url = f"http://127.0.0.1:{port}/api/v1/query?"
        url += urllib.parse.urlencode({"query": expression})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return []

    def test_a_real_prometheus_scrapes_it_and_knows_the_devices_by_version(self):
        port = self.start_prometheus(self.server.admin_port)
        found: dict[str, int] = {}

        def is_scraped() -> bool:
            found.clear()
            for each in self.query(port, "ota_devices_by_version"):
                found[each["metric"]["version"]] = int(each["value"][1])
            return found == {**self.VERSIONS, "other": 0}

        self.assertTrue(until(is_scraped, TIMEOUT_SECONDS), found)
        for expression, value in (
            ("up", 1),
            ("ota_server_up", 1),
            ("sum(ota_devices)", 9),
            ('ota_requests_total{route="version.txt",code="200"}', 9),
            ("sum(ota_request_duration_seconds_count) >= 10", None),
            ('ota_downloads_total{end="complete"}', 1),
            ("ota_sent_bytes_total", 8000),
            ("process_resident_memory_bytes > 1e6", None),
            ('ota_rollout_state{state="none"}', 1),
            ("time() - ota_last_device_seen_timestamp_seconds < 600", None),
        ):
            with self.subTest(expression):
                self.assertTrue(until(lambda e=expression: self.query(port, e)), expression)

                def is_so(expression=expression, value=value) -> bool:
                    found = self.query(port, expression)  # nothing while a scrape is late
                    return bool(found) and (value is None or float(found[0]["value"][1]) == value)

                self.assertTrue(until(is_so, TIMEOUT_SECONDS), self.query(port, expression))
        self.assertEqual(self.query(port, 'ALERTS{alertstate="firing"}'), [])

    def shown(self, port: int, expression: str) -> list[float]:
        """Return what a panel shows of all servers and products; nothing where that is an error."""
        for variable, value in (
            ("$instance", ".*"),
            ("$product", ".*"),
            ("$__rate_interval", "1m"),
        ):
            expression = expression.replace(variable, value)
        return [float(each["value"][1]) for each in self.query(port, expression)]

    def test_each_panel_of_the_dashboard_has_something_to_show(self):
        port = self.start_prometheus(self.server.admin_port)
        for title, expression in panel_expressions():
            with self.subTest(title, expression=expression):
                if title not in MAY_BE_EMPTY:
                    found = until(lambda e=expression: self.shown(port, e), TIMEOUT_SECONDS)
                    self.assertTrue(found, expression)

    def test_a_pinned_device_is_not_in_the_share_of_those_that_are_up_to_date(self):
        (expression,) = (each for title, each in panel_expressions() if title == "Up to date")
        port = self.start_prometheus(self.server.admin_port)
        for share in (5 / 9, 4 / 8):
            found = until(lambda s=share: self.shown(port, expression) == [s], TIMEOUT_SECONDS)
            self.assertTrue(found, self.shown(port, expression))
            run_command(self.data_dir, "pin", "02:00:00:00:00:04", "v1.0.1")  # it runs that

    def test_what_a_real_server_says_is_valid(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.server.admin_port}/metrics") as answer:
            self.assertEqual(answer.headers["Content-Type"], CONTENT_TYPE)
            text = answer.read().decode("utf-8")
        done = promtool("check", "metrics", given=text)
        self.assertEqual((done.returncode, done.stderr, done.stdout), (0, "", ""))
