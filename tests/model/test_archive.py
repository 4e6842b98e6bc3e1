"""Archives: which files are in them, and what is not an archive of files."""

import io
import tarfile
import unittest

from ota_server.model.archive import ArchivedFile, files_in


def tar(*entries: tuple[str, bytes | None], kind: bytes = tarfile.REGTYPE, form: int = 0) -> bytes:
    """Return a tar file, as `tar` makes it; an entry without content is a folder."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else kind
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return output.getvalue()


def found_in(content: bytes) -> dict[str, ArchivedFile]:
    """Return the files in an image."""
    return files_in(lambda offset, length: content[offset : offset + length], len(content))


class FilesInTest(unittest.TestCase):
    def test_each_file_is_found_with_its_own_bytes(self):
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
            content = tar(("boot.py", b"b" * 513), ("lib/a.py", b""), ("main.py", b"m"), form=form)
            with self.subTest(form=form):
                found = found_in(content)
                bodies = {path: content[each.start : each.stop] for path, each in found.items()}
                wanted = {"boot.py": b"b" * 513, "lib/a.py": b"", "main.py": b"m"}
                self.assertEqual(bodies, wanted)

    def test_the_entries_of_all_files_cover_the_whole_archive(self):
        content = tar(("a.py", b"a"), ("lib", None), ("lib/b.py", b"b" * 600))
        one, other = found_in(content).values()
        self.assertEqual((one.first, one.end, other.end), (0, other.first, len(content)))

    def test_empty_files_belong_to_the_entries_of_others(self):
        content = tar(("a.py", b""), ("b.py", b"b"), ("c.py", b""), ("d.py", b"d"), ("e.py", b""))
        found = found_in(content)
        b, d = found["b.py"], found["d.py"]
        self.assertEqual((b.first, b.end, d.end), (0, d.first, len(content)))

    def test_one_that_was_made_by_hand_of_a_folder_is_read(self):
        self.assertEqual([*found_in(tar(("./", None), ("./main.py", b"m")))], ["main.py"])

    def test_an_image_of_another_kind_holds_no_files(self):
        whole = tar(("main.py", b"m" * 2000))
        for name, content in {
            "firmware": b"\xe9" + bytes(2000),
            "nothing but zeros": bytes(2000),
            "empty": b"",
            "cut": whole[:1000],
            "a link": tar(("main.py", b""), kind=tarfile.SYMTYPE),
            "a device": tar(("main.py", b""), kind=tarfile.CHRTYPE),
            "a path that leads out": tar(("../main.py", b"m")),
            "an absolute path": tar(("/main.py", b"m")),
            "a file twice": tar(("main.py", b"m"), ("main.py", b"n")),
            "a bad size": whole[:124] + b"99999999999\0" + whole[136:],
        }.items():
            with self.subTest(name):
                self.assertEqual(found_in(content), {})
