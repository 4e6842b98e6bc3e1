"""The benchmarks: the figures are what they say, and the clients do what they are counted for."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from benchmarks import bounds, device_index, figures, pollers, report, wrk
from benchmarks.command import main
from benchmarks.figures import OURS, Failure, Measurement, Results
from benchmarks.metrics import METRICS, WORKLOADS
from benchmarks.peers import PEERS
from benchmarks.progress import Progress
from benchmarks.side_by_side import esp32_load
from tests.support import ROOT, ServerCase

WRK_OUTPUT = """\
Running 1s test @ http://127.0.0.1:1/
  1 threads and 16 connections
{"requests":2000,"bytes":500000,"seconds":1.01,"connect":0,"read":%d,"write":0,"status":%d,\
"timeout":0,"p50_ms":0.5,"p99_ms":2.5}
"""
ABOUT = {"rounds": 3, "date": "2026-11-24", "machine": "2 x Z80"}


def results(workload: str, **values_of_peers: list[dict[str, float]]) -> Results:
    """Return results of one case, for each peer the values of its rounds."""
    found = Results(ABOUT)
    for peer, rounds in values_of_peers.items():
        found.measurements += [
            Measurement(workload, "a case", peer, number, values)
            for number, values in enumerate(rounds)
        ]
    return found


def verdict(found: Results, what: str) -> bounds.Verdict:
    """Return what became of the first bound of this name."""
    return next(one for one in bounds.judge(found) if one.bound.what == what)


class FiguresTest(unittest.TestCase):
    def test_a_ratio_is_the_median_of_the_ratios_within_each_round(self):
        # The machine was half as fast in the second round, for both.
        ours = {0: 90.0, 1: 50.0, 2: 110.0}
        theirs = {0: 100.0, 1: 50.0, 2: 100.0}
        self.assertEqual(figures.ratio(ours, theirs), 1.0)

    def test_a_round_that_one_of_both_missed_does_not_count(self):
        self.assertEqual(figures.ratio({0: 1.0, 1: 9.0}, {0: 2.0}), 0.5)
        self.assertIsNone(figures.ratio({0: 1.0}, {1: 2.0}))

    def test_a_percentile_is_a_value_that_was_measured(self):
        values = [float(value) for value in range(1, 201)]
        for percent, wanted in ((0, 1), (50, 100), (99, 198), (100, 200)):
            with self.subTest(percent):
                self.assertEqual(figures.percentile(values[::-1], percent), wanted)

    def test_each_round_begins_with_another_peer(self):
        names = ["a", "b", "c"]
        rounds = [figures.turns(names, number) for number in range(4)]
        self.assertEqual(rounds[:2], [["a", "b", "c"], ["b", "c", "a"]])
        self.assertEqual(rounds[3], rounds[0])

    def test_results_survive_their_way_through_json(self):
        found = results("check-new", nginx=[{"rate": 1.5}])
        found.failures.append(Failure("idle", "a case", "nginx", 0, "it left"))
        found.left_out["aiohttp"] = "not installed"
        again = Results.from_json(json.loads(json.dumps(found.to_json())))
        self.assertEqual(again, found)


class WrkTest(unittest.TestCase):
    def test_the_last_line_of_its_output_is_what_it_did(self):
        outcome = wrk.parse(WRK_OUTPUT % (1, 0))
        self.assertEqual((outcome.requests, outcome.bytes, outcome.p99_ms), (2000, 500000, 2.5))

    def test_more_than_a_trace_of_errors_is_no_measurement(self):
        for read, status in ((3, 0), (0, 2000)):
            with self.subTest(read=read, status=status), self.assertRaises(figures.Broken):
                wrk.parse(WRK_OUTPUT % (read, status))

    def test_output_without_that_line_is_no_measurement(self):
        with self.assertRaisesRegex(figures.Broken, "unable to connect"):
            wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")

    def test_a_request_on_a_connection_of_its_own_says_so(self):
        head = (
            "GET /version.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n_br_mac_: @:\r\n_br_fwv_: v1.0.1\r\n"
        )
        for close, wanted in ((False, "\r\n"), (True, "Connection: close\r\n\r\n")):
            with self.subTest(close=close):
                load = wrk.Load("/version.txt", 1, 1, close=close)
                self.assertEqual(load.template, head + wanted)


class DevicesTest(ServerCase):
    def test_an_esp32_that_is_up_to_date_is_told_so(self):
        load = esp32_load(PEERS[OURS], self.port, 1)
        self.assertEqual(wrk.status_of(self.port, load), 304)
        self.stop()
        self.assertEqual([line["family"] for line in self.records(event="check")], ["esp32"])

    def test_an_esp32_is_not_told_so_where_there_is_another_release(self):
        self.set_target("v1.0.0")
        self.assertEqual(wrk.status_of(self.port, esp32_load(PEERS[OURS], self.port, 1)), 200)

    def test_pollers_are_known_with_what_they_run(self):
        pollers.introduce(self.port, pollers.PATH, range(1, 4))
        self.stop()
        newest = {line["id"]: line["firmware_version"] for line in self.records()}
        self.assertEqual(newest, {f"gw-02000000000{number}": "1.0.1" for number in (1, 2, 3)})

    def test_pollers_that_are_to_update_are_no_measurement(self):
        self.set_target("v1.0.0")
        with self.assertRaisesRegex(figures.Broken, "deploymentBase"):
            pollers.introduce(self.port, pollers.PATH, (1,))

    def test_a_server_without_the_api_of_pollers_is_no_measurement(self):
        with self.assertRaisesRegex(figures.Broken, "401"):
            pollers.introduce(self.port, "/nothing/here/@", (1,))


class BoundsTest(unittest.TestCase):
    def test_a_ratio_is_met_missed_or_not_measured(self):
        name = "check, new connection: rate, to nginx"
        for ours, met in ((90.0, True), (89.0, False)):
            rounds = {OURS: [{"rate": ours}], "nginx": [{"rate": 100.0}]}
            with self.subTest(ours):
                self.assertEqual(verdict(results("check-new", **rounds), name).met, met)
        self.assertIsNone(verdict(Results(), name).met)

    def test_of_several_cases_the_worst_counts(self):
        found = results("download-1m", **{OURS: [{"mb_per_s": 2.0}], "nginx": [{"mb_per_s": 1.0}]})
        slower = [(OURS, 0.5), ("nginx", 1.0)]
        found.measurements += [
            Measurement("download-1m", "256 clients", peer, 0, {"mb_per_s": value})
            for peer, value in slower
        ]
        name = "download of 1 MiB, the worst of 1, 16 and 256 clients: rate, to nginx"
        self.assertEqual(verdict(found, name).figure, 0.5)

    def test_a_bound_at_16_clients_looks_at_no_other_case(self):
        found = Results()
        for case, ours in (("1 client", 0.5), ("16 clients", 0.8), ("256 clients", 0.6)):
            found.measurements += [
                Measurement("download-1m-new", case, peer, 0, {"mb_per_s": value})
                for peer, value in ((OURS, ours), ("nginx", 1.0))
            ]
        name = "download of 1 MiB, new connection, 16 clients: rate, to nginx"
        self.assertEqual(verdict(found, name).figure, 0.8)

    def test_memory_is_that_of_the_worst_round(self):
        found = results("idle", **{OURS: [{"rss_mb": 30.0}, {"rss_mb": 41.0}, {"rss_mb": 30.0}]})
        self.assertEqual(verdict(found, "10,000 idle connections: RSS").figure, 41.0)
        self.assertEqual(len(bounds.broken_gates(found, {"idle"})), 1)

    def test_a_workload_that_was_not_wanted_breaks_no_gate(self):
        self.assertEqual(bounds.broken_gates(Results(), {"check-new"}), [])

    def test_a_gate_without_a_figure_is_broken(self):
        self.assertEqual(len(bounds.broken_gates(Results(), {"slow-downloads"})), 2)

    def test_the_memory_of_pollers_is_a_gate(self):
        for most, broken in ((8.0, 0), (8.1, 1)):
            with self.subTest(most):
                rounds = [{"mb_per_10k": 6.0}, {"mb_per_10k": most}]
                found = results("ddi-polling", **{OURS: rounds})
                self.assertEqual(len(bounds.broken_gates(found, {"ddi-polling"})), broken)

    def test_a_peer_that_was_weighed_in_one_round_alone_has_a_rate_in_all(self):
        rounds = {
            OURS: [{"rate": 9000.0, "mb_per_10k": 6.0}, {"rate": 8000.0, "mb_per_10k": 6.0}],
            "goosebit": [{"rate": 300.0, "mb_per_10k": 20.0}, {"rate": 200.0}],
        }
        found = results("ddi-polling", **rounds)
        name = "polls of hawkBit's DDI, keep-alive: rate, to gooseBit"
        self.assertEqual(verdict(found, name).figure, 35.0)
        text = report.markdown(found)
        self.assertRegex(text, r"(?m)\| 250 \(200 to 300\) \| 35 \|.*\| 20.0 \| 0.3 \|$")

    def test_ratios_are_no_gates(self):
        rounds = {OURS: [{"rate": 1.0}], "nginx": [{"rate": 100.0}]}
        found = results("check-new", **rounds)
        self.assertEqual(bounds.broken_gates(found, {"check-new"}), [])


class ReportTest(unittest.TestCase):
    def test_a_table_has_medians_spreads_and_ratios(self):
        rounds = {
            OURS: [{"rate": 10.0}, {"rate": 30.0}, {"rate": 20.0}],
            "nginx": [{"rate": 10.0}, {"rate": 10.0}, {"rate": 40.0}],
        }
        text = report.markdown(results("check-new", **rounds))
        self.assertIn("| this server | 20 (10 to 30) |  |", text)
        self.assertIn("| nginx, one worker | 10 (10 to 40) | 1 |", text)

    def test_a_bound_of_a_workload_is_named_by_results_that_know_it(self):
        failed = Results(failures=[Failure("ddi-polling", "a case", OURS, 0, "no port")])
        left_out = Results(left_out={"workload ddi-polling": figures.NOT_ASKED})
        for found, named in ((Results(), False), (failed, True), (left_out, True)):
            with self.subTest(found):
                self.assertEqual("gooseBit | ≥ 20 x | not" in report.bounds_table(found), named)

    def test_the_summary_has_a_column_for_what_was_measured(self):
        found = Results(ABOUT)
        self.assertIn("| peer |\n", report.summary(found))
        values = {"rate": 9000.0, "mb_per_10k": 6.0}
        found.measurements.append(Measurement("ddi-polling", "16 connections", OURS, 0, values))
        table = report.summary(found)
        self.assertIn("| peer | DDI polls/s, keep-alive | MB for 10,000 DDI pollers |", table)
        self.assertIn("| this server | 9,000 | 6.0 |", table)

    def test_what_was_left_out_or_failed_is_named(self):
        found = Results(ABOUT, left_out={"aiohttp": "aiohttp is not installed"})
        found.failures.append(Failure("idle", "10,000 clients", "nginx", 0, "exit code 1: no port"))
        text = report.markdown(found)
        self.assertIn("- aiohttp: aiohttp is not installed", text)
        self.assertIn("- idle, 10,000 clients, nginx, round 1: exit code 1: no port", text)

    def test_the_pages_and_the_report_show_the_results_of_the_json(self):
        text = (ROOT / "benchmarks" / "results.json").read_text("utf-8")
        found = Results.from_json(json.loads(text))
        shown = (ROOT / "benchmarks" / "results.md").read_text("utf-8")
        self.assertEqual(report.markdown(found), shown)
        page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
        self.assertEqual(report.with_tables(page, found), page)
        self.assertIn(report.summary(found), page)
        self.assertIn(report.bounds_table(found), page)
        readme = (ROOT / "README.md").read_text("utf-8")
        self.assertEqual(report.with_tables(readme, found), readme)
        self.assertIn(report.figures(found), readme)

    def test_every_workload_names_peers_and_metrics_that_there_are(self):
        for workload in WORKLOADS.values():
            with self.subTest(workload.name):
                self.assertLessEqual(set(workload.peers), set(PEERS))
                self.assertLessEqual(set(workload.metrics), set(METRICS))
                self.assertEqual(workload.peers[0], OURS)


class CommandTest(unittest.TestCase):
    def test_the_list_names_every_workload_and_peer(self):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(main(["--list", "--venv", os.devnull]), 0)
        for name in (*WORKLOADS, *PEERS):
            self.assertRegex(output.getvalue(), rf"(?m)^{name} ")
        self.assertRegex(output.getvalue(), r"(?m)^goosebit +goosebit is not installed$")

    def test_progress_is_plain_lines_where_there_is_no_terminal(self):
        stream = io.StringIO()
        progress = Progress(2, stream)
        progress.begin("check-new")
        progress.end("rate 1.00")
        self.assertEqual(stream.getvalue(), "   1/2 check-new: rate 1.00\n")


@unittest.skipUnless(sys.platform == "linux", "addresses 127.0.0.2 and on, and epoll")
class SlowClientsTest(ServerCase):
    CLIENTS = 50

    def crowd(self, *options: str) -> list[dict]:
        """Run the slow clients for a second and return what they say."""
        command = [sys.executable, "-m", "benchmarks.slow_clients", "--port", str(self.port)]
        command += ["--clients", str(self.CLIENTS), "--seconds", "1"]
        command += ["--settle-seconds", "0.2", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_each_gets_the_image_at_its_own_pace(self):
        image = Path(self.data_dir / "firmware" / "firmware_v1.0.1.bin")
        options = ("--path", "/firmware.bin", "--expect", str(image))
        first, last = self.crowd(*options, "--bytes-a-second", "2048")
        self.assertEqual((first["answered"], last["answered"]), (self.CLIENTS, self.CLIENTS))
        self.assertAlmostEqual(last["delivery"], 1.0, delta=0.2)
        self.stop()
        self.assertEqual(len({record["mac"] for record in self.records()}), self.CLIENTS)

    def test_bytes_that_are_not_the_image_are_no_answer(self):
        other = self.data_dir / "other.bin"
        other.write_bytes(b"other bytes")
        first, last = self.crowd("--path", "/firmware.bin", "--expect", str(other))
        self.assertEqual(first["answered"], 0)
        self.assertEqual(last["errors"], {"other bytes than the image has": self.CLIENTS})

    def test_idle_ones_are_there_until_the_server_closes_them(self):
        for idle_seconds, answered in ((30.0, self.CLIENTS), (0.3, 0)):
            self.start(idle_seconds=idle_seconds)
            with self.subTest(idle_seconds):
                last = self.crowd("--path", "/version.txt", "--bytes-a-second", "0")[-1]
                self.assertEqual(last["answered"], answered)
            self.stop()


class RolloutSimTest(unittest.TestCase):
    TAKES_LONG = True

    @unittest.skipUnless(sys.platform == "linux", "gives each device an address of its own")
    def test_a_good_release_reaches_a_simulated_fleet(self):
        command = [sys.executable, "-m", "benchmarks.rollout_sim", "--scenario", "good"]
        # Devices that are late for as long as the soak are silent. Beside other tests they may be
        # seconds late, so the soak is long; nearly all of it is waiting.
        options = ["--devices", "60", "--slowest", "2", "--soak", "8", "--most", "240"]
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("60 of 60 had it", done.stdout)


class DeviceIndexTest(unittest.TestCase):
    def test_the_benchmark_of_the_index_measures_what_it_says(self):
        printed = io.StringIO()
        arguments = ["device_index", "--devices", "300"]
        with contextlib.redirect_stdout(printed), mock.patch("sys.argv", arguments):
            device_index.main()
        lines = printed.getvalue().splitlines()
        self.assertRegex(lines[0], r"journal of 300 devices +\d+ MB")
        self.assertRegex(lines[-1], r"the worst of all +\d+ ms, \d+ by the clock")
        self.assertTrue(any("versions=('v1.10.0',)" in line for line in lines))


@unittest.skipUnless(sys.platform == "linux", "epoll, and /proc")
class OperatorsTest(unittest.TestCase):
    TAKES_LONG = True

    def run_it(self, folder: str) -> list[str]:
        """Ask a server of few devices once; return the lines that were printed."""
        command = [sys.executable, "-m", "benchmarks.operators", "--devices", "300"]
        command += ["--rounds", "1", "--rate", "50", "--dir", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def test_pages_are_asked_while_devices_check_also_on_a_folder_that_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            made = self.run_it(folder)
            again = self.run_it(folder)
        self.assertRegex(made[0], r"^index made from the journal +[\d.]+ s after the start$")
        self.assertRegex(again[0], r"^index that was there is current ")
        printed = "\n".join(made)
        three_parts = r"( +\d+ \d+){3} +\d+ \d+$"
        self.assertRegex(printed, rf"(?m)^/devices\?sort=seen&order=desc{three_parts}")
        self.assertRegex(printed, rf"(?m)^/devices\?version=v1\.10\.0{three_parts}")
        for when in ("alone", "beside operators"):
            self.assertRegex(printed, rf"(?m)^checks {when} +50th [\d.]+ ms, 99th [\d.]+ ms, ")
