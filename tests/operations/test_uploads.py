"""Images that wait to be published: how long, how many, and what becomes of them."""

from collections.abc import Iterator

from ota_server.model.refusal import Refused
from ota_server.operations.uploads import KEPT_SECONDS, MOST_KEPT, Upload, Uploads
from ota_server.system.locks import Busy
from tests.support import DataDirCase


class UploadsTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.uploads = Uploads(lambda: self.now)
        self.addCleanup(self.uploads.close)

    def send(self, content: bytes = b"image") -> Upload:
        return self.uploads.receive(self.data_dir, "app.bin", 5, lambda: iter([content]))

    def files(self) -> list[str]:
        return [each.name for each in (self.data_dir / "firmware").iterdir()]

    def test_one_that_nobody_publishes_goes_after_an_hour(self):
        upload = self.send()
        self.now = KEPT_SECONDS - 1
        self.uploads.look_after()
        self.assertEqual(upload.path.read_bytes(), b"image")
        self.now = KEPT_SECONDS
        self.uploads.look_after()
        self.assertEqual(self.files(), [])
        with self.assertRaisesRegex(Refused, "not there any longer"), self.using(upload):
            pass

    def using(self, upload: Upload):
        return self.uploads.using(upload.id, upload.data_dir)

    def test_one_that_is_being_published_stays_until_that_is_over(self):
        upload = self.send()
        with self.using(upload):
            self.now = KEPT_SECONDS
            self.uploads.look_after()
            self.uploads.discard(upload.id)
            self.assertTrue(upload.path.exists())
        self.uploads.look_after()
        self.assertEqual(self.files(), [])

    def test_one_is_known_in_its_product_alone(self):
        upload = self.send()
        other = self.data_dir / "products" / "plug"
        self.assertEqual(self.uploads.waiting(self.data_dir), [upload])
        self.assertEqual(self.uploads.waiting(other), [])
        with self.assertRaises(Refused), self.uploads.using(upload.id, other):
            pass

    def test_what_breaks_off_leaves_nothing_and_takes_no_slot(self):
        def pieces() -> Iterator[bytes]:
            yield b"some"
            raise ConnectionError("gone")

        for _ in range(10):
            with self.assertRaises(ConnectionError):
                self.uploads.receive(self.data_dir, "app.bin", 5, pieces)
        self.assertEqual(self.files(), [])

    def test_so_many_may_wait(self):
        for _ in range(MOST_KEPT):
            self.send()
        with self.assertRaisesRegex(Busy, "publish or discard"):
            self.send()
        self.uploads.discard(self.uploads.waiting(self.data_dir)[0].id)
        self.send()
