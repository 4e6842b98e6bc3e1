"""What the server says at its start, where that depends on what happens meanwhile."""

import contextlib
import io
import threading

from ota_server.device_port.banner import _announce_image
from ota_server.releases.store import NotHashed, Store
from tests.support import TIMEOUT_SECONDS, DataDirCase


class AnnouncingTest(DataDirCase):
    def setUp(self):
        super().setUp()
        self.put_image("v1", b"an image")
        self.set_target("v1")
        self.store = Store(self.data_dir, settle_seconds=3600.0)
        self.addCleanup(self.store.close)

    def test_it_ends_with_a_server_that_ends_before_the_image_was_hashed(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            announcing = threading.Thread(target=_announce_image, args=(self.store,), daemon=True)
            announcing.start()
            self.store.close()
            announcing.join(TIMEOUT_SECONDS)
        self.assertFalse(announcing.is_alive())
        self.assertEqual(said.getvalue(), "")

    def test_nobody_waits_for_a_hash_that_is_wanted_after_the_end(self):
        self.store.close()
        with self.assertRaises(NotHashed) as caught:
            self.store.image("v1")
        self.assertTrue(caught.exception.hashing.done.is_set())
