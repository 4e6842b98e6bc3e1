"""What the server's log says of devices."""

import logging

from ota_server.journal.device_log import VersionLog
from tests.support import DEVICE, MAC, ServerCase, until

OTHER = "a0:b1:c2:d3:e4:f5"
LOGGER = "ota_server.journal.device_log"


class QuietTest(ServerCase):
    def test_a_new_version_is_logged_and_a_check_is_not(self):
        self.start()
        with self.assertLogs(LOGGER, logging.INFO) as log:
            for version in ("v1.0.0", "v1.0.0", "v1.0.1", "1.0.1"):
                self.get("/version.txt", {**DEVICE, "_br_fwv_": version})
            self.stop()
        self.assertEqual(
            [record.getMessage() for record in log.records],
            [f"{MAC} runs v1.0.1, and ran v1.0.0 before"],
        )

    def test_a_new_version_in_a_request_for_the_image_is_logged_too(self):
        self.start()
        self.get("/version.txt")
        for path in ("/firmware.bin", "/firmware.bin.sig"):
            with self.subTest(path), self.assertLogs(LOGGER, logging.INFO) as log:
                self.get(path, {**DEVICE, "_br_fwv_": f"v7{path[-4:]}"})
            self.assertIn(f"runs v7{path[-4:]}", log.output[0])

    def test_a_device_that_changes_it_all_the_time_does_not_fill_the_log(self):
        said = VersionLog()
        with self.assertLogs(LOGGER, logging.INFO) as log:
            for number in range(1000):
                said.say(MAC, f"v{number}", "v1")
        self.assertEqual(len(log.output), 60)

    def test_what_was_left_out_is_counted_in_the_next_line(self):
        said = VersionLog()
        said._left_out = 17
        with self.assertLogs(LOGGER, logging.INFO) as log:
            said.say(MAC, "v2", "v1")
        self.assertIn("(17 more changes of devices were not logged)", log.output[0])


class VerboseTest(ServerCase):
    def test_each_check_and_download_is_logged(self):
        self.start(service={"is_verbose": True})
        with self.assertLogs(LOGGER, logging.INFO) as log:
            self.get("/version.txt")
            self.get("/firmware.bin", {**DEVICE, "Range": "bytes=70000-"})
            self.assertTrue(until(lambda: any("has all" in line for line in log.output)))
            self.get("/firmware.bin", method="HEAD")
            self.set_target("v9")
            self.get("/firmware.bin", {**DEVICE, "_br_mac_": OTHER})
        said = "\n".join(record.getMessage() for record in log.records)
        for words in (
            f"{MAC} at 127.0.0.1 runs v1.0.0, is told v1.0.1\n",
            f"{MAC} at 127.0.0.1 runs v1.0.0, begins to fetch v1.0.1, 76800 bytes from byte 70000",
            f"{MAC} has all 6800 bytes of v1.0.1 from byte 70000, after 0",
            f"{MAC} at 127.0.0.1 runs v1.0.0, asks for the size of v1.0.1, 76800 bytes",
        ):
            with self.subTest(words):
                self.assertIn(words, said)

    def test_who_gets_no_image_is_logged_with_the_answer(self):
        self.set_target("v9")
        self.start(service={"is_verbose": True})
        with self.assertLogs(LOGGER, logging.INFO) as log:
            self.get("/firmware.bin")
            self.get("/version.txt")
        self.assertIn(
            f"{MAC} at 127.0.0.1 runs v1.0.0, asks for an image and is answered 404", log.output[0]
        )

    def test_a_snapshot_is_no_request(self):
        self.start(service={"is_verbose": True})
        self.get("/version.txt")
        with self.assertNoLogs(LOGGER, logging.INFO):
            self.stop()
            self.start(service={"is_verbose": True})
            self.assertTrue(until(lambda: bool(self.records(event="snapshot"))))
