"""What a publication has left that was killed between its manifest and its image."""

from ota_server.releases.leftovers import clear_leftovers
from ota_server.system.locks import acquire
from tests.support import DataDirCase


class LeftoversTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.firmware = self.data_dir / "firmware"

    def put(self, *names: str) -> None:
        for name in names:
            (self.firmware / name).write_bytes(b"{}")

    def left(self) -> list[str]:
        clear_leftovers(self.firmware)
        return sorted(path.name for path in self.firmware.iterdir())

    def test_its_manifest_goes_with_its_copy(self):
        self.put(".firmware_v2.bin.7.new", "firmware_v2.json", "firmware_v2.bin.sig")
        self.assertEqual(self.left(), [])

    def test_a_release_that_was_there_stays(self):
        self.put(".firmware_v2.bin.7.new", "firmware_v2.json", "firmware_v2.bin")
        self.assertEqual(self.left(), ["firmware_v2.bin", "firmware_v2.json"])

    def test_so_does_one_that_is_the_same_in_another_spelling(self):
        self.put(".firmware_v2.bin.7.new", "firmware_v2.json", "firmware_2.bin")
        self.assertEqual(self.left(), ["firmware_2.bin", "firmware_v2.json"])

    def test_a_manifest_that_somebody_has_put_there_stays(self):
        self.put(".firmware_v2.bin.7.new", "firmware_v3.json", ".firmware_upload_v3.7.new")
        self.assertEqual(self.left(), ["firmware_v3.json"])

    def test_a_publication_that_goes_on_keeps_both(self):
        self.put(".firmware_v2.bin.7.new", "firmware_v2.json")
        with open(self.firmware / ".firmware_v2.bin.7.new", "rb") as copy:
            self.assertTrue(acquire(copy.fileno()))
            self.assertEqual(self.left(), [".firmware_v2.bin.7.new", "firmware_v2.json"])
