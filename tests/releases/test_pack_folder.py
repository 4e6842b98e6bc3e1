"""Publishing a folder: which files become a release of several, and what is refused."""

import hashlib
import os
from pathlib import Path

from ota_server.model.archive import files_in
from ota_server.model.manifest import parse_manifest
from ota_server.model.refusal import Refused
from ota_server.releases.inventory import get_release, problem_with
from ota_server.releases.publish import Published, publish
from ota_server.releases.publish_request import PublishRequest
from tests.releases.test_publish import NOW_MS, PublishCase


class PackFolderTest(PublishCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = self.builds / "app"
        self.put("main.py", b"print(1)\n")
        self.put("lib/net.py", b"import socket\n")

    def put(self, path: str, content: bytes = b"x") -> Path:
        """Write a file of the build."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def publish_folder(self, version: str = "v1", **options: object) -> Published:
        """Publish the build."""
        request = PublishRequest(str(self.folder), version, **options)
        return publish(self.data_dir, request, NOW_MS, lambda *_: None)

    def why_refused(self, **options: object) -> str:
        """Return why the build is refused."""
        before = self.snapshot()
        with self.assertRaises(Refused) as caught:
            self.publish_folder(**options)
        self.assertEqual(self.snapshot(), before)
        return str(caught.exception)

    def files_of(self, version: str = "v1") -> dict[str, bytes]:
        """Return the files in the image of a release."""
        image = self.image_of(version)
        found = files_in(lambda at, length: image[at : at + length], len(image))
        return {path: image[each.start : each.stop] for path, each in found.items()}

    def test_its_files_are_in_the_image_and_on_record(self):
        self.publish_folder()
        files = {"lib/net.py": b"import socket\n", "main.py": b"print(1)\n"}
        self.assertEqual(self.files_of(), files)
        self.assertEqual(
            self.manifest_of("v1")["files"],
            [
                {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
                for path, content in files.items()
            ],
        )
        self.assertEqual(problem_with(get_release(self.data_dir, "v1"), lambda *_: None), "")

    def test_the_manifest_is_one_that_the_server_reads(self):
        self.put("empty.txt", b"")
        published = self.publish_folder()
        content = (self.firmware / "firmware_v1.json").read_bytes()
        self.assertEqual(parse_manifest(content, "v1"), published.manifest)

    def test_the_same_files_are_the_same_release_whatever_their_times(self):
        self.publish_folder()
        os.utime(self.folder / "main.py", (1, 1))
        (self.folder / "main.py").chmod(0o700)
        self.assertEqual(self.publish_folder().outcome, "there")

    def test_other_files_need_another_version(self):
        self.publish_folder()
        self.put("main.py", b"print(2)\n")
        self.assertIn("with other bytes", self.why_refused())

    def test_hidden_files_and_folders_are_left_out(self):
        self.put(".git/config")
        self.put(".DS_Store")
        self.publish_folder()
        self.assertEqual([*self.files_of()], ["lib/net.py", "main.py"])

    def test_what_no_device_could_ask_for_is_refused(self):
        for path, wanted in {
            "a b.py": "a path is",
            "-x.py": "a path is",
            "ü.py": "a path is",
            "x" * 101: "a path is",
            "version": "the server answers that path",
            "d/a.py": "the server answers that path",
        }.items():
            file = self.put(path)
            with self.subTest(path):
                self.assertIn(wanted, self.why_refused())
            file.unlink()

    def test_links_and_pipes_are_refused(self):
        link = self.folder / "link.py"
        for target in ("main.py", "/etc/passwd", "lib", "nowhere"):
            link.symlink_to(target)
            with self.subTest(target):
                self.assertIn("neither a file nor a folder", self.why_refused())
            link.unlink()
        os.mkfifo(self.folder / "pipe")
        self.assertIn("neither a file nor a folder", self.why_refused())

    def test_too_many_files_are_refused(self):
        for number in range(199):
            self.put(f"f{number}.py", b"")
        self.assertIn("over 200 files", self.why_refused())

    def test_a_signature_is_refused(self):
        signature = self.build(b"sig", "app.sig")
        self.assertIn("--signature is for the file", self.why_refused(signature=signature))
