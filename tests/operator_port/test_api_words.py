"""Refusals of the API name its fields and operations, not those of the command line."""

import json
import unittest
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from ota_server.operator_port.api import OPERATIONS
from ota_server.operator_port.api_words import in_api_words
from tests.model.test_image_header import mcuboot
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import OperatorsCase, some_devices

_DEFAULT = "/api/v1/releases/default"
_ROLLOUTS = "/api/v1/rollouts/default"


class WordsTest(unittest.TestCase):
    def test_options_are_fields(self):
        for said, meant in (
            ("it is lost; --force does it anyway", "it is lost; `force` does it anyway"),
            ("count them too (--count-new)", "count them too (`count_new`)"),
            ("try --waves 10,100", "try `waves` 10,100"),
            ("give --apply-grace", "give `grace_seconds`"),
            ("the server runs with --development", "the server runs with --development"),
            ("'--force' is not a version", "'--force' is not a version"),
            ("--forced", "--forced"),
        ):
            with self.subTest(said):
                self.assertEqual(in_api_words(said), meant)

    def test_only_to_start_a_rollout_force_has_another_name(self):
        for path, name in (
            (b"/api/v1/rollouts/default", "is_forced"),
            (b"/api/v1/rollouts/default/preview", "is_forced"),
            (b"/api/v1/rollouts/default/3f9a/revert", "force"),
        ):
            self.assertEqual(in_api_words("; --force does it", path), f"; `{name}` does it")

    def test_commands_are_operations(self):
        for said, meant in (
            ("`release list` shows all", "`listReleases` shows all"),
            ("`release publish FILE --version v1` adds one", "`publishRelease` adds one"),
            ("`rollout abort --revert --group x` goes back", "`revertRollout` goes back"),
            ("`unpin beta` first", "`unpinGroup` first"),
            ("`pin beta v1` does it", "`pinGroup` does it"),
            ("`unpin 02:00:00:00:00:01` first", "`unpinDevice` first"),
            ("`serve --max-devices N`", "`serve --max-devices N`"),
            ("abort it without --revert", "abort it by `abortRollout`"),
        ):
            with self.subTest(said):
                self.assertEqual(in_api_words(said), meant)

    def test_each_operation_that_is_named_is_there(self):
        commands = (
            *("release publish", "release withdraw --undo v1", "release withdraw v1", "retry MAC"),
            *("release activate v1", "release rollback", "release remove v1", "release show v1"),
            *("release list", "rollout start v1", "rollout abort", "rollout abort --revert"),
            *("rollout pause", "rollout resume", "rollout promote", "rollout change --soak 1h"),
            *("rollout devices", "rollout history", "rollout status", "group list", "group add x"),
            *("group remove x", "group delete x", "device forget MAC", "device label MAC x"),
            *(
                "devices",
                "pin MAC v1",
                "pin x v1",
                "unpin WHO",
                "unpin x",
                "why MAC",
                "hold",
                "unhold",
            ),
            *("audit", "status"),
        )
        names = {each.name for each in OPERATIONS}
        for command in commands:
            with self.subTest(command):
                self.assertIn(in_api_words(f"`{command}`").strip("`"), names)


class RefusalsTest(OperatorsCase):
    """What the API refuses, one after another; each changes what the next ones find."""

    @classmethod
    def prepare(cls) -> None:
        version: Path = cls.data_dir / "version"
        (version / "groups").mkdir()
        for name, members in (("beta", [1, 2]), ("none", []), ("own", [3])):
            text = "".join(f"{mac_of(each)}\n" for each in members)
            (version / "groups" / f"{name}.txt").write_text(text)
        (version / "pins.json").write_text(json.dumps({"groups": {"beta": {"version": OLD}}}))
        (version / "targets.json").write_text(json.dumps({"own": OLD}))

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(12))
        cls.await_devices(12)

    def publish(self, version: str, image: bytes, **query: str) -> str:
        """Return why an image is refused."""
        path = f"{_DEFAULT}/{version}?{urlencode(query)}"
        fields = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        answer = self.operators.ask("PUT", path, image, fields)
        self.assertGreaterEqual(answer.status, 400, path)
        return str(json.loads(answer.body)["detail"])

    def refused(self, method: str, path: str, content: object = None) -> str:
        """Return why something is refused."""
        status, said = self.operators.json(method, path, content)
        self.assertGreaterEqual(status, 400, (path, said))
        return str(said["detail"])

    def of_releases(self) -> Iterator[str]:
        """Yield why releases are not published or changed."""
        yield self.publish("v3", b"image" * 100, direct_from="v1.*")
        yield self.publish("v3", b"image" * 100, via="v9")
        yield self.publish("v3", mcuboot())
        yield self.publish(NEW, b"other bytes" * 100)
        yield self.refused("DELETE", f"{_DEFAULT}/{OLD}")
        yield self.refused("POST", f"{_DEFAULT}/{NEW}/reinstate")
        yield self.refused("POST", f"{_DEFAULT}/v9/activate", {})
        yield self.refused("POST", "/api/v1/products/default/rollback", {})

    def of_groups(self) -> Iterator[str]:
        """Yield why groups and pins are not changed."""
        groups = "/api/v1/groups/default"
        yield self.refused("DELETE", f"{groups}/beta")
        yield self.refused("DELETE", f"{groups}/own")
        yield self.refused("DELETE", f"{groups}/other")
        yield self.refused("PUT", f"{groups}/none/pin", {"version": "v9"})
        device = f"/api/v1/devices/default/{mac_of(1)}"
        yield self.refused("PUT", f"{device}/pin", {"version": "v9"})

    def of_rollouts(self) -> Iterator[str]:
        """Yield why rollouts do not begin or change."""
        for fields in (
            {},
            {"version": "v9"},
            {"group": "none"},
            {"group": "own", "groups_too": True},
            {"first_group": "none", "count_new": True},
            {"waves": [0.1, 100], "count_new": True},
            {"waves": [50, 10]},
            {"group": "own", "first_group": "beta", "count_new": True},
        ):
            yield self.refused("POST", _ROLLOUTS, {"version": NEW, **fields})
        status, rollout = self.operators.json(
            "POST", _ROLLOUTS, {"version": NEW, "count_new": True, "waves": [50, 100]}
        )
        self.assertEqual(status, 201, rollout)
        yield self.refused("POST", _ROLLOUTS, {"version": NEW, "count_new": True})
        yield self.refused("POST", f"{_DEFAULT}/{OLD}/activate", {})
        yield self.refused("POST", f"{_DEFAULT}/{NEW}/activate", {})
        yield self.refused("DELETE", f"{_DEFAULT}/{NEW}")
        yield self.refused("POST", f"{rollout['url']}/resume")
        self.operators.json("POST", f"{rollout['url']}/revert", {})
        revert = self.operators.json("GET", "/api/v1/rollouts?limit=1")[1]["rollouts"][0]
        yield self.refused("POST", f"{revert['url']}/revert", {})

    def test_no_refusal_speaks_of_the_command_line(self):
        details = [*self.of_releases(), *self.of_groups(), *self.of_rollouts()]
        for detail in details:
            with self.subTest(detail):
                self.assertNotIn(" --", f" {detail}")
                self.assertNotRegex(detail, "`(?:release|rollout|group|device|pin|unpin|why)\\b")
        self.assertTrue(any("`force`" in each for each in details), details)
        self.assertTrue(any("`reports_as`" in each for each in details), details)


if __name__ == "__main__":
    unittest.main()
