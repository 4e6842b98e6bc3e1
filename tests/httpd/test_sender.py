"""Images where the system refuses sendfile: they arrive all the same, and no device is blamed."""

import errno
import os
import unittest
from unittest import mock

from ota_server.httpd.pacing import Pacing
from ota_server.httpd.transports import TRANSPORTS
from tests.support import DEVICE, ServerCase

REFUSALS = (
    *(errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES),
    *(errno.EIO, errno.ENOMEM),
)
PART = {**DEVICE, "Range": "bytes=5-"}
PARTS = {**DEVICE, "Range": "bytes=0-0,5-8"}


@unittest.skipUnless("epoll" in TRANSPORTS, "sendfile is used with epoll")
class RefusedSendfileTest(ServerCase):
    TRANSPORT = "epoll"
    IMAGE = bytes(range(256)) * 8000  # more than a socket takes at once

    def test_an_image_arrives_and_that_is_said_once(self):
        for code in REFUSALS:
            refusal = OSError(code, os.strerror(code))
            with (
                self.subTest(errno.errorcode[code]),
                mock.patch("os.sendfile", side_effect=refusal) as sendfile,
                self.assertLogs("ota_server", "INFO") as logs,
            ):
                self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)
                self.assertEqual(self.get("/firmware.bin", PART).body, self.IMAGE[5:])
                self.assertIn(self.IMAGE[5:9], self.get("/firmware.bin", PARTS).body)
                self.assertEqual(self.get("/firmware/firmware_v1.0.1.bin").body, self.IMAGE)
                self.stop()
                self.assertEqual(sendfile.call_count, 1)
                said = [line for line in logs.output if "sendfile" in line]
                self.assertEqual(len(said), 1)
                self.assertIn(os.strerror(code), said[0])
                self.assertEqual([line for line in logs.output if "left" in line], [])
        ends = self.records(event="download")
        self.assertEqual({record["complete"] for record in ends}, {True})

    def test_an_image_goes_on_where_sendfile_stopped(self):
        real = os.sendfile

        def send_a_little(out: int, source: int, offset: int, count: int) -> int:
            if offset >= 1000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(out, source, offset, min(count, 700))

        with mock.patch("os.sendfile", send_a_little):
            self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)

    def test_an_image_at_a_rate_arrives_too(self):
        self.start(pacing=Pacing(50_000_000, None))
        with mock.patch("os.sendfile", side_effect=OSError(errno.EINVAL, "Invalid argument")):
            self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)

    def test_a_connection_that_is_gone_is_not_a_refusal(self):
        gone = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        with mock.patch("os.sendfile", side_effect=gone), self.assertNoLogs("ota_server.httpd"):
            self.raw(b"GET /firmware/firmware_v1.0.1.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        with mock.patch("os.sendfile", side_effect=os.sendfile) as sendfile:
            self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)
            self.assertGreater(sendfile.call_count, 0)
