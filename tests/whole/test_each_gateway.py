"""Each updater that speaks hawkBit's API, as one that takes and refuses what the real one does.

`FieldTest` has what users of these updaters met; the names of its tests say what would go wrong.
"""

import hashlib
import json
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.policy import edits
from tests.support import Answer, Client, ServerCase, request_head, until
from tests.support.data_dir import DataDirCase
from tests.support.fleet import read_progress, run_command, start_server
from tests.support.hawkbit_updaters import Gateway, OlderZephyr, RaucUpdater, Zephyr
from tests.support.updaters import Ending

NAME = "gateway-1"
BASE = f"/DEFAULT/controller/v1/{NAME}"
KINDS: tuple[type[Gateway], ...] = (RaucUpdater, Zephyr, OlderZephyr)


def bundle(version: str, size: int = 20_000) -> bytes:
    """Return an image of a release."""
    text = f"the image {version} ".encode()
    return (text * (size // len(text) + 1))[:size]


class GatewaysCase(ServerCase):
    def target(self, version: str) -> bytes:
        """Make an image the target, as an operator does who copies it in."""
        image = bundle(version)
        self.put_image(version, image)
        self.set_target(version)
        return image

    def device(self, kind: type[Gateway] = RaucUpdater, name: str = NAME) -> Any:
        """Return a device that runs v1.0.0."""
        return kind(self.port, name, bundle("v1.0.0"))

    def known(self, kind: type[Gateway] = RaucUpdater, name: str = NAME) -> Any:
        """Return one that has said of itself what it was asked for, while there was no update."""
        edits.hold(self.data_dir, "night")
        device = self.device(kind, name)
        self.assertEqual(device.update(), Ending.NOTHING, device.problem)
        edits.unhold(self.data_dir)
        return device

    def ask(
        self,
        path: str,
        fields: dict[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        """Send one request."""
        length = {"Content-Length": str(len(body))} if body else {}
        with Client(self.port) as client:
            client.send(request_head(path, {**(fields or {}), **length}, method) + body)
            return client.answer(method)

    def links(self, fields: dict[str, str] | None = None, base: str = BASE) -> dict[str, str]:
        """Poll; return the links."""
        answer = self.ask(base, fields)
        self.assertEqual(answer.status, 200)
        return {name: each["href"] for name, each in json.loads(answer.body)["_links"].items()}

    def newest(self, device: Gateway) -> dict[str, Any]:
        """Return the newest line of a device."""
        self.server.service.flush()
        return [each for each in self.records() if each.get("id") == device.name][-1]


class UpdateTest(GatewaysCase):
    def test_each_updates_to_the_target_and_back_and_then_has_nothing_to_do(self):
        for kind in KINDS:
            self.target("v1.0.0")
            device = self.known(kind, f"up-{kind.__name__}")
            for version in ("v2.0.0", "v1.5.0"):
                with self.subTest(kind.__name__, version=version):
                    image = self.target(version)
                    self.assertEqual(device.update(), Ending.UPDATED, device.problem)
                    self.assertEqual(device.runs, image)
                    for _ in range(2):
                        self.assertEqual(device.update(), Ending.NOTHING, device.problem)
                    line = self.newest(device)
                    self.assertEqual(line["action_state"], "succeeded")
                    self.assertEqual(line["firmware_version"], version)
            self.assertLessEqual(set(device.statuses), {200})

    def test_each_that_is_held_back_stays_as_it_is(self):
        self.target("v2.0.0")
        edits.hold(self.data_dir, "night")
        for kind in KINDS:
            with self.subTest(kind.__name__):
                device = self.device(kind, f"held-{kind.__name__}")
                for _ in range(3):
                    self.assertEqual(device.update(), Ending.NOTHING, device.problem)
                self.assertNotIn("action_state", self.newest(device))

    def test_each_that_was_told_to_cancel_gets_the_release_that_came_instead(self):
        for kind in KINDS:
            with self.subTest(kind.__name__):
                self.target("v2.0.0")
                device = self.known(kind, f"cancel-{kind.__name__}")
                links = self.links(base=device.base)
                self.assertEqual(links.keys(), {"deploymentBase"})
                image = self.target("v3.0.0")
                endings = [device.update() for _ in range(2)]
                self.assertIn(Ending.UPDATED, endings, device.problem)
                self.assertEqual(device.runs, image)

    def test_an_installation_that_fails_is_on_record_with_the_reason(self):
        self.target("v2.0.0")
        device = self.known()
        device.boots = False
        self.assertEqual(device.update(), Ending.FAILED)
        line = self.newest(device)
        self.assertEqual((line["action_state"], line["firmware_version"]), ("failed", "-"))
        self.assertIn("Failed to install software bundle.", line["detail"])

    def test_a_download_that_was_cut_is_gone_on_with(self):
        image = self.target("v2.0.0")
        for cut_at in (1, 9000, len(image) - 1):
            device = self.known(name=f"cut-{cut_at}")
            device.cut_at = cut_at
            self.assertEqual(device.update(), Ending.UPDATED, device.problem)
            self.assertEqual(device.fetched, image)


class FieldTest(GatewaysCase):
    """What happened to others, and must not happen here."""

    FORWARDED = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "ota.example:8443",
    }

    def hrefs(self, fields: dict[str, str], source: str | None = None) -> list[str]:
        """Return all links that a device meets from its first poll to an installed update."""

        def say(path: str, method: str = "GET", body: bytes = b"") -> Any:
            length = {"Content-Length": str(len(body))} if body else {}
            with Client(self.port, source=source) as client:
                client.send(request_head(path, {**fields, **length}, method) + body)
                answer = client.answer()
            self.assertEqual(answer.status, 200, path)
            return json.loads(answer.body or b"{}")

        found = []

        def follow(message: Any) -> str:
            links = [each["href"] for each in message["_links"].values()]
            self.assertTrue(links)
            found.extend(links)
            return re.sub("^https?://[^/]*", "", links[0])

        self.target("v2.0.0")
        self.assertTrue(follow(say(BASE)).endswith("/configData"))
        deployment = follow(say(BASE))
        told = say(deployment)
        follow(told["deployment"]["chunks"][0]["artifacts"][0])
        self.target("v3.0.0")
        order = follow(say(BASE))
        closed = b'{"status":{"execution":"closed","result":{"finished":"success"}}}'
        say(f"{order}/feedback", "POST", closed)
        number = say(follow(say(BASE)))["id"]
        say(f"{BASE}/deploymentBase/{number}/feedback", "POST", closed)
        self.assertIn("installedBase", follow(say(BASE)))
        self.assertEqual(len(found), 9)
        return found

    def test_links_lead_to_http_or_to_an_inner_host_behind_a_tls_proxy(self):
        self.start(proxies=TrustedProxies([ip_network("127.0.0.1")]))
        for href in self.hrefs(self.FORWARDED):
            self.assertTrue(href.startswith(f"https://ota.example:8443{BASE}/"), href)

    def test_anybody_says_where_the_links_of_devices_lead(self):
        for proxies in (TrustedProxies([ip_network("127.0.0.1")]), None):
            self.stop()
            (self.data_dir / "log" / "devices.jsonl").unlink(missing_ok=True)
            self.start(**({} if proxies is None else {"proxies": proxies}))
            for href in self.hrefs(self.FORWARDED, source="127.0.0.2"):
                self.assertTrue(href.startswith(f"http://ota{BASE}/"), href)

    def test_what_is_no_host_or_scheme_gets_into_links(self):
        self.start(proxies=TrustedProxies([ip_network("127.0.0.1")]))
        for number, (fields, origin) in enumerate(
            (
                ({"X-Forwarded-Proto": "HTTPS"}, "https://ota"),
                ({"X-Forwarded-Proto": "https, http"}, "https://ota"),
                ({"X-Forwarded-Proto": "javascript"}, "http://ota"),
                ({"X-Forwarded-Proto": "https://evil.example/"}, "http://ota"),
                ({"X-Forwarded-Proto": ""}, "http://ota"),
                ({"X-Forwarded-Host": "a.example, b.example"}, "http://a.example"),
                ({"X-Forwarded-Host": "[2001:db8::7]:8443"}, "http://[2001:db8::7]:8443"),
                ({"X-Forwarded-Host": "evil.example/x"}, "http://ota"),
                ({"X-Forwarded-Host": "user@evil.example"}, "http://ota"),
                ({"X-Forwarded-Host": "a.example:99999"}, "http://ota"),
                ({"X-Forwarded-Host": 'a"b'}, "http://ota"),
                ({"X-Forwarded-Host": "a.example\xe4"}, "http://ota"),
                ({"X-Forwarded-Host": "", "X-Forwarded-Port": "8443"}, "http://ota"),
                ({"X-Forwarded-Prefix": "/other"}, "http://ota"),
                ({"Forwarded": "proto=https;host=evil.example"}, "http://ota"),
            )
        ):
            with self.subTest(fields):
                base = f"/DEFAULT/controller/v1/odd-{number}"
                links = self.links(fields, base)
                self.assertEqual(links, {"configData": f"{origin}{base}/configData"})

    def test_after_many_messages_the_end_is_refused_and_the_update_stays_open(self):
        self.target("v2.0.0")
        device = self.known()
        device.messages = [f"{number} ‰ installing" for number in range(1000)]
        self.assertEqual(device.update(), Ending.UPDATED, device.problem)
        self.assertEqual(set(device.statuses), {200})
        self.assertEqual(self.newest(device)["action_state"], "succeeded")
        self.assertEqual(device.update(), Ending.NOTHING, device.problem)
        self.assertLess((self.data_dir / "log" / "devices.jsonl").stat().st_size, 10_000)

    def test_an_order_to_cancel_that_is_refused_or_fails_stays_for_ever(self):
        for number, status in enumerate(
            (
                {"execution": "closed", "result": {"finished": "success"}},
                {"execution": "closed", "result": {"finished": "failure"}},
                {"execution": "rejected", "result": {"finished": "success"}},
                {"execution": "canceled", "result": {"finished": "none"}},
            )
        ):
            with self.subTest(status):
                self.target("v2.0.0")
                device = self.known(name=f"order-{number}")
                self.links(base=device.base)
                self.target("v3.0.0")
                order = self.links(base=device.base)["cancelAction"].removeprefix("http://ota")
                body = json.dumps({"status": status}).encode()
                self.assertEqual(self.ask(f"{order}/feedback", {}, "POST", body).status, 200)
                self.assertEqual(device.update(), Ending.UPDATED, device.problem)
                self.assertEqual(device.version, "v3.0.0")

    def test_an_order_to_cancel_that_comes_too_late_loses_the_success(self):
        self.target("v2.0.0")
        device = self.known()

        def change_the_target() -> None:
            self.target("v3.0.0")
            device.refuse_to_cancel()

        device.while_installing = change_the_target
        self.assertEqual(device.update(), Ending.UPDATED, device.problem)
        self.assertEqual(self.newest(device)["firmware_version"], "v2.0.0")
        device.while_installing = lambda: None
        self.assertEqual(device.update(), Ending.UPDATED, device.problem)
        self.assertEqual(device.version, "v3.0.0")

    def test_a_device_is_shown_several_updates_after_several_changes_of_the_target(self):
        self.target("v2.0.0")
        device = self.known()
        for number, poll in enumerate((True, True, False, True, False, False)):
            self.target(f"v3.{number}.0")
            for _ in range(2 if poll else 0):
                self.assertEqual(len(self.links(base=device.base)), 1)
        endings = [device.update() for _ in range(3)]
        self.assertEqual(endings.count(Ending.UPDATED), 1, device.problem)
        self.assertEqual(device.version, "v3.5.0")
        self.assertEqual(self.links(base=device.base).keys(), {"installedBase"})

    def test_an_update_is_another_one_after_a_restart_and_its_success_is_lost(self):
        for kind in (Zephyr, OlderZephyr):
            with self.subTest(kind.__name__):
                self.target("v1.0.0")
                device = self.known(kind, f"restart-{kind.__name__}")
                self.target("v2.0.0")
                self.assertEqual(device.update(), Ending.UPDATED, device.problem)
                number = device.installed
                for _ in range(2):
                    self.stop()
                    device.port = self.port
                    (link,) = self.links(base=device.base).values()
                    self.assertIn(f"deploymentBase/{number}?", link)
                self.assertEqual(device.update(), Ending.NOTHING, device.problem)
                line = self.newest(device)
                self.assertEqual(line["action_state"], "succeeded")
                self.assertEqual(line["firmware_version"], "v2.0.0")

    def test_an_update_has_several_parts_or_digests_of_other_bytes(self):
        self.target("v2.0.0")
        self.links()
        told = json.loads(self.ask(self.links()["deploymentBase"].removeprefix("http://ota")).body)
        (chunk,) = told["deployment"]["chunks"]
        (artifact,) = chunk["artifacts"]
        # Somebody builds the release once more, and copies that over the first build.
        for replace in (False, True):
            if replace:
                self.put_image("v2.0.0", bundle("v2.0.0-again"))
            for name in ("download", "download-http"):
                path = artifact["_links"][name]["href"].removeprefix("http://ota")
                answer = self.ask(path)
                if replace and answer.status == 404:
                    continue
                self.assertEqual(answer.status, 200)
                self.assertEqual(len(answer.body), artifact["size"])
                for kind, digest in artifact["hashes"].items():
                    self.assertEqual(hashlib.new(kind, answer.body).hexdigest(), digest)
                self.assertEqual(artifact["hashes"].keys(), {"sha1", "md5", "sha256"})

    def test_zephyr_finds_no_tenant_in_a_link_or_has_no_room_for_it(self):
        for kind, board in (
            (Zephyr, "nrf52840dk_nrf52840"),
            (OlderZephyr, "nrf52840dk_nrf52840"),
            (OlderZephyr, "a_board_with_a_name_that_takes_all_the_room__"),
        ):
            for version in ("v2.0.0", "v3.0.0-rc.1+build.20261129.abcdef0"):
                with self.subTest(kind.__name__, board=board, version=version):
                    self.target("v1.0.0")
                    device = self.device(kind, f"{kind.__name__}-{board}-{version}")
                    device.BOARD = board
                    self.target(version)
                    endings = [device.update() for _ in range(2)]
                    self.assertIn(Ending.UPDATED, endings, device.problem)

    def test_zephyr_polls_again_and_again_without_a_pause(self):
        self.target("v2.0.0")
        device = self.device(Zephyr)
        self.assertEqual(device.update(), Ending.UPDATED, device.problem)
        self.assertEqual(device.asks, 2)  # to be asked for its attributes, and for the update
        self.assertEqual(device.update(), Ending.NOTHING, device.problem)
        self.assertEqual(device.asks, 2)  # to say that it has it, and to find that this was all

    def test_zephyr_that_cannot_keep_an_image_fetches_it_at_each_poll_for_ever(self):
        for kind in (Zephyr, OlderZephyr):
            with self.subTest(kind.__name__):
                self.target("v1.0.0")
                device = self.known(kind, f"worn-{kind.__name__}")
                self.target("v2.0.0")
                device.is_worn = True
                endings = []
                for _ in range(8):
                    endings.append(device.update())
                    self.await_ends()
                self.assertLess(endings.count(Ending.FAILED), 5, endings)
                self.assertEqual(endings[-1], Ending.NOTHING)


class CommandTest(DataDirCase):
    def test_links_lead_to_http_though_the_command_names_the_proxy(self):
        said = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ota.example"}
        for options, origin in (
            (("--trusted-proxy", "127.0.0.1"), "https://ota.example"),
            ((), "http://ota"),
        ):
            server = start_server(self, self.data_dir, *options)
            name = f"{BASE}{len(options)}"
            with Client(server.port) as client:
                client.request(name, said)
                links = json.loads(client.answer().body)["_links"]
            self.assertEqual(links["configData"]["href"], f"{origin}{name}/configData")
            server.end()


class RolloutTest(DataDirCase):
    """A fleet of gateways under a rollout."""

    COUNT = 20
    LIMITS = ("--waves", "50,100", "--soak", "0s", "--apply-grace", "1s", "--count-new")

    def setUp(self) -> None:
        super().setUp()
        self.port = start_server(self, self.data_dir).port
        self.publish("v1.0.0")
        self.operate("release", "activate", "v1.0.0")
        self.publish("v2.0.0")
        self.devices: list[Any] = []

    def operate(self, *arguments: str) -> str:
        code, out, err = run_command(self.data_dir, *arguments)
        self.assertEqual(code, 0, err)
        return out

    def publish(self, version: str) -> None:
        path = self.data_dir / "bundle"
        path.write_bytes(bundle(version))
        self.operate("release", "publish", str(path), "--version", version)

    def update_all(self) -> None:
        for device in self.devices:
            device.update()

    def roll_out(
        self, *kinds: type[Gateway], spoil: Callable[[Any], None] = lambda device: None
    ) -> str:
        """Return how a rollout to devices ends that run the first release, and have said so.

        Args:
            spoil: makes a device one that the release does not suit.
        """
        for number in range(self.COUNT):
            kind = kinds[number % len(kinds)]
            self.devices.append(kind(self.port, f"gw-{number}", bundle("v0.9.0")))
        for _ in range(3):
            self.update_all()
        self.assertEqual({device.version for device in self.devices}, {"v1.0.0"})
        for device in self.devices:
            spoil(device)
        self.operate("rollout", "start", "v2.0.0", *self.LIMITS)

        def is_over() -> bool:
            self.update_all()
            return read_progress(self.data_dir).get("state") in ("done", "halted")

        self.assertTrue(until(is_over, 60.0), read_progress(self.data_dir))
        return str(read_progress(self.data_dir)["state"])

    def test_what_gateways_report_as_installed_moves_a_rollout_on(self):
        self.assertEqual(self.roll_out(RaucUpdater, Zephyr, OlderZephyr), "done")
        for _ in range(2):
            self.update_all()
        self.assertEqual({device.version for device in self.devices}, {"v2.0.0"})
        self.assertIn(f"{self.COUNT} ", self.operate("devices", "--version", "v2.0.0"))

    def test_a_release_that_no_gateway_can_keep_halts_a_rollout_though_none_says_so(self):
        def wear(device: Any) -> None:
            device.is_worn = True

        self.assertEqual(self.roll_out(Zephyr, OlderZephyr, spoil=wear), "halted")

    def test_what_gateways_report_as_failed_halts_a_rollout(self):
        def spoil(device: Any) -> None:
            device.boots = False

        self.assertEqual(self.roll_out(RaucUpdater, spoil=spoil), "halted")
        self.assertEqual({device.version for device in self.devices}, {"v1.0.0"})
        failed = self.operate("rollout", "devices", "--failed")
        self.assertGreaterEqual(failed.count("id:gw-"), 2)
        self.assertLessEqual(failed.count("id:gw-"), self.COUNT // 2)
        # Nobody is offered it any longer.
        for device in self.devices:
            device.update()
            self.assertEqual(device.update(), Ending.NOTHING, device.problem)
