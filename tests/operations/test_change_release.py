"""What a page or the API does to a release, and what it says of that."""

from ota_server.model.refusal import Refused
from ota_server.operations import change_release
from ota_server.policy.audit import entries
from ota_server.policy.targets import read_version_file
from ota_server.releases.publish_request import PublishRequest
from tests.releases.test_publish import PublishCase


def unseen(_done: int, _size: int) -> None:
    """Show no progress."""


class ChangeReleaseTest(PublishCase):
    def put(self, version: str, content: bytes | None = None) -> change_release.ReleaseChanged:
        request = PublishRequest(self.build(content or version.encode()), version)
        return change_release.publish_image(self.data_dir, request, unseen)

    def test_an_image_is_published_activated_rolled_back_withdrawn_and_removed(self):
        for version in ("v1", "v2"):
            done = self.put(version)
            self.assertIn(f"`release activate {version}`", done.lines[-1])
            done = change_release.activate_release(self.data_dir, version, unseen)
            self.assertIn(f"the target is {version}; it was", done.lines[0])
            self.assertIn("no server runs", done.warnings[-1])
        done = change_release.roll_back(self.data_dir, unseen)
        self.assertEqual(done.lines, ("the target is v1; it was v2",))
        self.assertEqual(read_version_file(self.data_dir).version, "v1")
        done = change_release.withdraw_release(self.data_dir, "v1", "<b>")
        self.assertIn("it is still the target", done.lines[1])
        done = change_release.reinstate_release(self.data_dir, "v1")
        self.assertEqual(done.lines, ("v1 is no longer withdrawn",))
        self.put("v3")
        self.assertEqual(
            change_release.remove_release(self.data_dir, "v3", unseen).lines, ("v3 was removed",)
        )
        actions = [entry["action"] for entry in entries(self.data_dir / "log")]
        self.assertEqual(len(actions), 9)

    def test_the_same_bytes_are_warned_of(self):
        self.put("v1", b"same")
        self.assertIn("v2 has the same bytes as v1", self.put("v2", b"same").warnings[0])

    def test_what_is_refused_changes_nothing(self):
        self.put("v1")
        change_release.activate_release(self.data_dir, "v1", unseen)
        before = self.snapshot()
        self.assertRaises(Refused, change_release.activate_release, self.data_dir, "v9", unseen)
        self.assertRaises(Refused, change_release.remove_release, self.data_dir, "v1", unseen)
        self.assertRaises(Refused, change_release.reinstate_release, self.data_dir, "v1")
        self.assertEqual(self.snapshot(), before)
