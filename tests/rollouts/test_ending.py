"""What keeps a rollout from going on, in the words that an operator reads."""

import os

from ota_server.policy.policy import Policy
from ota_server.rollouts.ending import image_problem
from tests.commands.test_rollout import CommandCase
from tests.support import NOBODY
from tests.support.fleet import NEW


class ImageTest(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.image = self.data_dir / "firmware" / f"firmware_{NEW}.bin"
        self.hint = f"`chmod a+r {self.image}`"

    def test_one_that_the_server_may_not_read_is_named_with_what_to_do(self):
        with self.unreadable(self.image):
            said = image_problem(self.data_dir / "firmware", NEW, Policy())
        self.assertIn(f"the image of {NEW} cannot be read: Permission denied ({self.hint})", said)
        self.assertNotIn("Errno", said)

    def test_root_does_not_resume_with_one_that_the_servers_user_may_not_read(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("paused", reason="it cannot be read", is_blocked=True)
        self.image.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(self.data_dir / "log", NOBODY, NOBODY)
            self.assertIn("it would pause again: the server's user", self.refused("resume"))
            self.assertIn(self.hint, self.refused("resume"))
        self.image.chmod(0o644)
        self.assertEqual(self.run_it("resume")[0], 0)
