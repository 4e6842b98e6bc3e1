"""What is counted of answers: by route, status and reason, which are fixed sets."""

import threading
import unittest
from http import HTTPStatus
from unittest import mock

from ota_server.device_port.checks import Checks
from ota_server.device_port.counts import (
    CountedRoute,
    RejectReason,
    RequestCounts,
    reason_of,
    route_of,
)
from ota_server.journal.transfers import TransferEnd
from tests.support import DEVICE, Client, ServerCase, request_head, until

OK, MISSING = HTTPStatus.OK, HTTPStatus.NOT_FOUND


class RouteTest(unittest.TestCase):
    def test_each_path_has_a_route(self):
        for path, status, route in (
            (b"/version.txt", OK, CountedRoute.CHECK),
            (b"/d/00:11:22:33:44:55/v1/version.txt", OK, CountedRoute.CHECK),
            (b"/firmware.bin", OK, CountedRoute.IMAGE),
            (b"/firmware.bin", MISSING, CountedRoute.IMAGE),
            (b"/firmware.bin.gz", OK, CountedRoute.IMAGE),
            (b"/d/a/v1/firmware.bin", OK, CountedRoute.IMAGE),
            (b"/firmware-minimal.bin", OK, CountedRoute.IMAGE),
            (b"/firmware.bin.sig", OK, CountedRoute.DOCUMENT),
            (b"/firmware.bin.sha256", OK, CountedRoute.DOCUMENT),
            (b"/manifest.json", OK, CountedRoute.DOCUMENT),
            (b"/version", OK, CountedRoute.DOCUMENT),
            (b"/firmware/firmware_v1.bin", OK, CountedRoute.NAMED_IMAGE),
            (b"/lib/main.py", OK, CountedRoute.FILE),
            (b"/lib/main.py", MISSING, CountedRoute.OTHER),
            (b"/", OK, CountedRoute.OTHER),
            (b"*", OK, CountedRoute.OTHER),
            (b"/d/", OK, CountedRoute.OTHER),
            (b"/d/a", MISSING, CountedRoute.OTHER),
            (b"/\xff\xfe", MISSING, CountedRoute.OTHER),
        ):
            with self.subTest(path=path, status=status):
                self.assertIs(route_of(path, status), route)

    def test_any_status_has_a_reason(self):
        for status in HTTPStatus:
            with self.subTest(status):
                self.assertIn(reason_of(status), RejectReason)


class RequestCountsTest(unittest.TestCase):
    def test_no_count_is_lost_among_threads(self):
        counts = RequestCounts()

        def count() -> None:
            for _ in range(2000):
                counts.answered(CountedRoute.IMAGE, OK)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counts.copied(), {(CountedRoute.IMAGE, 200): 8000})


class CountedTest(ServerCase):
    def counted(self, count: int) -> dict[tuple[str, int], int]:
        """Return what was counted, once that is so many answers."""
        counts = self.server.service.counts
        self.assertTrue(until(lambda: sum(counts.copied().values()) >= count))
        return {(str(route), status): each for (route, status), each in counts.copied().items()}

    def test_each_answer_is_counted_under_its_route_and_status(self):
        self.start()
        for path, fields in (
            ("/firmware.bin", DEVICE),
            ("/firmware.bin", {**DEVICE, "Range": "bytes=0-9"}),
            ("/firmware.bin", {}),
            ("/healthz", {}),
            ("/firmware/firmware_v1.0.0.bin", {}),
            ("/version.txt", {}),
            ("/nowhere.at/all", DEVICE),
            ("/default/controller/v1/gateway-1", {}),
        ):
            self.get(path, fields)
        self.assertEqual(
            self.counted(8),
            {
                ("firmware.bin", 200): 1,
                ("firmware.bin", 206): 1,
                ("firmware.bin", 401): 1,
                ("healthz", 200): 1,
                ("named_image", 200): 1,
                ("version.txt", 401): 1,
                ("other", 404): 1,
                ("ddi", 200): 1,
            },
        )

    def test_a_path_of_a_product_has_the_route_that_it_has_within_it(self):
        (self.data_dir / "products" / "plug" / "version").mkdir(parents=True)
        self.start()
        for path in ("/plug/version.txt", "/plug/firmware.bin", "/none/version.txt"):
            self.get(path, DEVICE)
        self.assertEqual(
            self.counted(3),
            {("version.txt", 503): 1, ("firmware.bin", 503): 1, ("other", 404): 1},
        )

    def test_a_request_that_waits_for_an_image_is_counted_once(self):
        self.start(service={"settle_seconds": 0.3})
        self.assertEqual(self.get("/firmware.bin").status, 200)
        self.assertEqual(self.counted(1), {("firmware.bin", 200): 1})

    def test_hostile_paths_and_methods_make_no_further_counts(self):
        self.start()
        with Client(self.port) as client:
            for number in range(50):
                client.request(f"/x{number}/%22%0A{number}", DEVICE, "DELETE")
                client.answer()
        self.assertLessEqual(len(self.counted(50)), 3)

    def test_a_request_that_breaks_http_is_counted_as_malformed(self):
        self.start()
        self.raw(b"GET /version.txt HTTP/1.1\r\n\r\n")
        self.raw(b"GET /version.txt HTTP/3.0\r\nHost: h\r\n\r\n")
        self.assertEqual(self.counted(2), {("malformed", 400): 1, ("malformed", 505): 1})
        rejected = self.server.service.counts.rejected
        self.assertEqual(rejected[RejectReason.MALFORMED], 1)
        self.assertEqual(rejected[RejectReason.NOT_SUPPORTED], 1)

    def test_a_rejected_request_is_counted_by_its_reason(self):
        self.start()
        self.get("/version.txt", {})
        self.get("/nowhere", DEVICE)
        rejected = self.server.service.counts.rejected
        self.assertEqual(rejected[RejectReason.UNIDENTIFIED], 1)
        self.assertEqual(rejected[RejectReason.NOT_FOUND], 1)
        self.assertEqual(sum(rejected.values()), 2)

    def test_a_common_check_that_fails_by_a_bug_is_counted_as_500(self):
        self.start()
        counts = self.server.service.counts
        with (
            mock.patch.object(Checks, "answer_quickly", side_effect=ValueError("a bug")),
            self.assertLogs("ota_server.device_port.service", "ERROR") as logs,
        ):
            self.assertEqual(self.get("/version.txt").status, 500)
        logs.records.clear()
        self.assertEqual(counts.copied(), {(CountedRoute.CHECK, 500): 1})
        self.assertEqual(counts.quick_failures, 1)


class TransferEndsTest(ServerCase):
    def ends(self) -> dict[str, int]:
        """Return how transfers have ended, once none is running."""
        self.await_ends()
        transfers = self.server.service.fleet.transfers
        self.assertTrue(until(lambda: not transfers.running))
        return {str(end): count for end, count in transfers.ends.items() if count}

    def test_a_whole_image_is_complete(self):
        self.get("/firmware.bin")
        self.assertEqual(self.ends(), {"complete": 1})
        self.assertEqual(self.server.service.fleet.transfers.sent_bytes, len(self.IMAGE))

    def test_a_range_with_the_end_of_the_image_is_complete_and_another_one_a_part(self):
        self.get("/firmware.bin", {**DEVICE, "Range": "bytes=0-99"})
        self.get("/firmware.bin", {**DEVICE, "Range": "bytes=100-"})
        self.assertEqual(self.ends(), {"complete": 1, "part": 1})
        self.assertEqual(self.server.service.fleet.transfers.sent_bytes, len(self.IMAGE))

    def test_a_download_that_a_client_left_is_incomplete(self):
        self.put_image("v1.0.1", bytes(8 * 1024 * 1024))
        self.start()
        with Client(self.port) as client:
            client.send(request_head("/firmware.bin"))
            client.sock.recv(100)
            self.assertEqual(self.server.service.fleet.transfers.running, 1)
        self.assertEqual(self.ends(), {"incomplete": 1})
        self.assertLess(self.server.service.fleet.transfers.sent_bytes, 8 * 1024 * 1024)

    def test_each_end_is_a_word(self):
        self.assertEqual([*TransferEnd], ["complete", "part", "incomplete"])
