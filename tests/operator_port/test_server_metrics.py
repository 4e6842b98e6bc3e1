"""Metrics of the processes: each figure under its name, and zeros from the start."""

import unittest

from ota_server.device_port.counts import CountedRoute, RejectReason
from ota_server.device_port.live_figures import JournalFigures, LiveFigures
from ota_server.httpd.turn_counts import BUCKET_SECONDS
from ota_server.journal.transfers import TransferEnd
from ota_server.operator_port.exposition import exposition
from ota_server.operator_port.server_metrics import process_families, server_families
from tests.support.metrics import EVERYTHING, read_metrics


def of_server(**figures):
    """Return the metrics of a server with these figures."""
    return read_metrics(exposition(server_families(LiveFigures(**figures))))


class ServerFamiliesTest(unittest.TestCase):
    def test_each_label_value_of_a_fixed_set_has_a_zero_from_the_start(self):
        found = of_server()
        routes = {dict(labels)["route"] for labels in found["ota_requests_total"]}
        self.assertEqual(routes, {*CountedRoute})
        for name, label, values in (
            ("ota_rejected_requests_total", "reason", RejectReason),
            ("ota_downloads_total", "end", TransferEnd),
        ):
            with self.subTest(name):
                self.assertEqual(found[name], {((label, each),): 0 for each in values})
        self.assertEqual(set(found["ota_requests_total"].values()), {0})

    def test_requests_are_told_by_route_and_status(self):
        found = of_server(requests={"version.txt": {"200": 7}, "firmware.bin": {"418": 2}})
        requests = found["ota_requests_total"]
        self.assertEqual(requests[("route", "version.txt"), ("code", "200")], 7)
        self.assertEqual(requests[("route", "firmware.bin"), ("code", "418")], 2)

    def test_durations_are_a_histogram(self):
        durations = (0, 3, *(0,) * (len(BUCKET_SECONDS) - 2), 1)
        found = of_server(durations=durations, duration_seconds=9.5)
        buckets = found["ota_request_duration_seconds_bucket"]
        self.assertEqual(buckets[(("le", "0.00025"),)], 3)
        self.assertEqual(buckets[(("le", "+Inf"),)], 4)
        self.assertEqual(found["ota_request_duration_seconds_sum"], {(): 9.5})

    def test_times_are_seconds_since_the_epoch(self):
        journal = JournalFigures(written_ms=1500)
        found = of_server(since_ms=2500, last_request_ms=3500, journal=journal)
        self.assertEqual(found["ota_journal_last_write_timestamp_seconds"], {(): 1.5})
        self.assertEqual(found["ota_server_start_timestamp_seconds"], {(): 2.5})
        self.assertEqual(found["ota_last_device_seen_timestamp_seconds"], {(): 3.5})

    def test_a_journal_that_fails_is_one(self):
        journal = JournalFigures(5, 2, 1, True, 3)
        found = of_server(journal=journal)
        for name, value in (
            ("ota_journal_records_total", 5),
            ("ota_journal_errors_total", 2),
            ("ota_journal_outages_total", 1),
            ("ota_journal_failing", 1),
            ("ota_journal_unrecorded_devices", 3),
        ):
            with self.subTest(name):
                self.assertEqual(found[name], {(): value})

    def test_without_a_limit_there_are_no_slots(self):
        self.assertNotIn("ota_download_slots", of_server())


class ProcessFamiliesTest(unittest.TestCase):
    def test_a_server_that_does_not_answer_is_down_and_has_no_figures(self):
        gone = EVERYTHING._replace(server=None, server_process=None)
        found = read_metrics(exposition(process_families(gone)))
        self.assertEqual(found["ota_server_up"], {(): 0})
        self.assertNotIn("process_cpu_seconds_total", found)
        self.assertIn("ota_controller_cpu_seconds_total", found)

    def test_the_figures_of_a_process_have_the_names_that_prometheus_knows(self):
        found = read_metrics(exposition(process_families(EVERYTHING)))
        self.assertEqual(found["process_cpu_seconds_total"], {(): 1.5})
        self.assertEqual(found["process_start_time_seconds"], {(): 6})
        self.assertEqual(found["ota_server_up"], {(): 1})
        self.assertEqual(found["ota_build_info"], {(("version", "0.1.0"), ("python", "3.11.7")): 1})
