"""What killed processes have left goes at the next start, and nothing else does."""

import shutil

from ota_server.operations.killed import clear_killed
from ota_server.operations.uploads import Uploads
from ota_server.system.locks import locked
from tests.support import DataDirCase


class KilledTest(DataDirCase):
    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.data_dir))
            for folder in ("version", "firmware")
            for path in (self.data_dir / folder).rglob("*")
            if path.is_file() and path.name != ".lock"
        }

    def test_an_edit_that_was_not_finished_goes_and_what_is_in_force_stays(self):
        version = self.data_dir / "version"
        (version / "groups").mkdir()
        names = ("labels.json", "pins.json", "version.txt", "rollout.json", "rollout-beta.json")
        for name in (*names, "groups/beta.txt", "groups/new.txt"):
            path = version / name
            path.with_name(f".{path.name}.new").write_bytes(b"half")
        kept = {"version/labels.json", "version/groups/beta.txt", "version/.spare_1"}
        for name in kept:
            (self.data_dir / name).write_bytes(b"whole")
        clear_killed(self.data_dir)
        self.assertEqual(self.files(), kept)

    def test_an_upload_of_a_killed_process_goes_and_that_of_a_living_one_stays(self):
        uploads = Uploads()
        self.addCleanup(uploads.close)
        upload = uploads.receive(self.data_dir, "app.bin", 5, lambda: iter([b"image"]))
        (self.data_dir / "firmware" / ".firmware_upload_x.1.new").write_bytes(b"half")
        clear_killed(self.data_dir)
        self.assertEqual(self.files(), {f"firmware/{upload.path.name}"})

    def test_while_somebody_edits_nothing_goes(self):
        path = self.data_dir / "version" / ".labels.json.new"
        path.write_bytes(b"half")
        with locked(self.data_dir):
            clear_killed(self.data_dir)
        self.assertTrue(path.exists())

    def test_a_folder_that_is_missing_has_no_leftovers(self):
        for name in ("firmware", "version"):
            shutil.rmtree(self.data_dir / name)
            clear_killed(self.data_dir)
