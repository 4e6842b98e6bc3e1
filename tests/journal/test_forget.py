"""Requests to forget devices, where their file cannot be read."""

from ota_server.journal.forget import ForgetRequests
from tests.support import ServerCase


class UnreadableTest(ServerCase):
    def test_what_keeps_it_from_reading_them_is_not_swallowed(self):
        requests = ForgetRequests(self.data_dir, self.start().service.fleet)
        requests.look_after()
        self.stop()
        version = self.data_dir / "version"
        version.rename(self.data_dir / "moved")
        version.symlink_to("version")
        with self.assertRaisesRegex(OSError, "forget.json"):
            requests.look_after()
