"""The data directory: a folder that is not there is named, with the option that is wrong."""

from ota_server.model.refusal import Refused
from ota_server.system.data_dir import existing_folder
from tests.support import DataDirCase


class ExistingFolderTest(DataDirCase):
    def test_a_folder_that_is_there_is_returned(self):
        self.assertEqual(existing_folder(self.data_dir, "version"), self.data_dir / "version")

    def test_one_that_is_not_there_is_refused_by_its_name(self):
        with self.assertRaisesRegex(Refused, "^no none/ in .*; is --data-dir right[?]$"):
            existing_folder(self.data_dir, "none")
