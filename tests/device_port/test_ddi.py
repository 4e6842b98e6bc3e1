"""hawkBit's DDI over real sockets, with requests as its clients send them."""

import hashlib
import json
import re
import signal
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.releases.withdraw import withdraw
from ota_server.system.clock import now_ms
from tests.support import Answer, Client, DataDirCase, Process, ServerCase, request_head, until
from tests.support.fleet import run_command

BASE = "/DEFAULT/controller/v1/gw-1"
SWUPDATE = {"Accept": "application/json", "Content-Type": "application/json"}
CLOSED = {"execution": "closed", "result": {"finished": "success"}}
FAILED = {"execution": "closed", "result": {"finished": "failure"}, "details": ["no space"]}
PROCEEDING = {"execution": "proceeding", "result": {"finished": "none"}}
KEY = "/gw-1"


def send(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    fields: Mapping[str, str] = SWUPDATE,
) -> Answer:
    """Send one request on a connection of its own."""
    length = {} if body is None else {"Content-Length": str(len(body))}
    with Client(port) as client:
        client.request(path, {**fields, **length}, method)
        client.send(body or b"")
        return client.answer(method)


class Device:
    """What all clients of the DDI do, with the checks that one of them or the other makes."""

    def __init__(self, case: "DdiCase", base: str = BASE) -> None:
        self.case = case
        self.base = base

    def links(self) -> dict[str, str]:
        """Poll; return the paths behind the links, after the checks of all clients."""
        answer = send(self.case.port, self.base)
        self.case.assertEqual(answer.status, 200)
        self.case.assertNotIn("etag", answer.fields)
        message = json.loads(answer.body)
        self.case.assertRegex(message["config"]["polling"]["sleep"], r"\A[0-2]\d:[0-5]\d:[0-5]\d\Z")
        links = {name: link["href"] for name, link in message["_links"].items()}
        self.case.assertLessEqual(len(links.keys() & {"deploymentBase", "cancelAction"}), 1)
        for link in links.values():
            self.case.assertTrue(link.startswith("http://ota/"), link)
        return {name: link.removeprefix("http://ota") for name, link in links.items()}

    def deployment(self) -> dict[str, Any]:
        """Poll, and fetch what the device should install."""
        answer = send(self.case.port, self.links()["deploymentBase"])
        self.case.assertEqual(answer.status, 200, answer)
        return dict(json.loads(answer.body))

    def say(self, status: Mapping[str, Any], number: str, kind: str = "deploymentBase") -> int:
        """Send feedback; return the status of the reply."""
        body = json.dumps({"id": number, "time": "20261129T080000", "status": status}).encode()
        return self.say_raw(body, number, kind)

    def say_raw(self, body: bytes, number: str, kind: str = "deploymentBase") -> int:
        """Send feedback as it is."""
        return send(self.case.port, f"{self.base}/{kind}/{number}/feedback", "POST", body).status

    def attributes(self, **values: str) -> int:
        """Send the attributes as SWUpdate does; return the status of the reply."""
        body = json.dumps({"mode": "merge", "data": values}).encode()
        return send(self.case.port, f"{self.base}/configData", "PUT", body).status

    def download(
        self, deployment: Mapping[str, Any], fields: Mapping[str, str] = SWUPDATE
    ) -> Answer:
        """Fetch the image, by a HEAD and a GET."""
        (chunk,) = deployment["deployment"]["chunks"]
        (artifact,) = chunk["artifacts"]
        path = artifact["_links"]["download-http"]["href"].removeprefix("http://ota")
        head = send(self.case.port, path, "HEAD")
        self.case.assertEqual(
            (head.status, head.fields["content-length"]), (200, str(artifact["size"]))
        )
        return send(self.case.port, path, fields=fields)

    def update(self) -> str:
        """Go through a whole update; return the id of its action."""
        found = self.deployment()
        self.say(PROCEEDING, found["id"])
        self.download(found)
        self.case.assertEqual(self.say(CLOSED, found["id"]), 200)
        return str(found["id"])


class DdiCase(ServerCase):
    """A server, and a device that has polled once."""

    def setUp(self) -> None:
        super().setUp()
        self.device = Device(self)

    def device_line(self) -> dict[str, Any]:
        """Return the newest line of the device."""
        self.server.service.flush()
        return [each for each in self.records() if each.get("id") == "gw-1"][-1]


class UpdateTest(DdiCase):
    def test_a_device_goes_through_a_whole_update(self):
        self.assertEqual(self.device.links().keys(), {"configData"})
        self.assertEqual(self.device.attributes(hw_revision="1.0"), 200)
        found = self.device.deployment()
        self.assertIsInstance(found["id"], str)
        self.assertEqual(
            (found["deployment"]["download"], found["deployment"]["update"]), ("forced",) * 2
        )
        (artifact,) = found["deployment"]["chunks"][0]["artifacts"]
        self.assertEqual(artifact["hashes"]["sha1"], hashlib.sha1(self.IMAGE).hexdigest())
        self.assertEqual(artifact["hashes"]["md5"], hashlib.md5(self.IMAGE).hexdigest())
        self.assertEqual(artifact["hashes"]["sha256"], hashlib.sha256(self.IMAGE).hexdigest())
        self.assertEqual(artifact["size"], len(self.IMAGE))
        self.assertTrue(artifact["filename"].endswith(".swu"))
        for link in artifact["_links"].values():
            self.assertLessEqual(len(link["href"]), 300)
        self.assertEqual(self.device.say(PROCEEDING, found["id"]), 200)
        self.assertEqual(self.device.download(found).body, self.IMAGE)
        self.assertEqual(self.device.deployment()["id"], found["id"])
        self.assertEqual(self.device.say(CLOSED, found["id"]), 200)
        self.assertEqual(self.device.links().keys(), {"installedBase"})
        line = self.device_line()
        self.assertEqual((line["firmware_version"], line["action_state"]), ("v1.0.1", "succeeded"))
        events = [each["event"] for each in self.records() if each.get("id") == "gw-1"]
        self.assertEqual(events.count("feedback"), 2)
        self.assertIn("begin", events)
        self.stop()
        ended = self.records(event="download")[-1]
        self.assertEqual((ended["complete"], ended["bytes_sent"]), (True, len(self.IMAGE)))

    def test_a_mac_address_is_one_also_as_a_controller_id(self):
        Device(self, "/default/controller/v1/00-11-22-33-44-66").links()
        self.assertEqual(self.records()[-1]["mac"], "00:11:22:33:44:66")

    def test_an_id_may_be_escaped_and_a_malformed_one_is_401(self):
        Device(self, "/default/controller/v1/board%20one").links()
        self.assertEqual(self.records()[-1]["id"], "board one")
        for wrong in ("%20x", "a%0Ab", "ff:ff:ff:ff:ff:ff", "a%C3%A4", "x" * 65):
            answer = send(self.port, f"/default/controller/v1/{wrong}")
            self.assertEqual(answer.status, 401, wrong)

    def test_another_tenant_is_a_product_in_any_case_or_404(self):
        (self.data_dir / "products" / "plug" / "version").mkdir(parents=True)
        for tenant, status in (("PLUG", 200), ("Plug", 200), ("lamp", 404), ("controller", 404)):
            answer = send(self.port, f"/{tenant}/controller/v1/gw-1")
            self.assertEqual(answer.status, status, tenant)
        self.assertEqual({each.get("product") for each in self.records()} - {None}, {"plug"})

    def test_what_is_not_there_is_404_and_another_method_405(self):
        number = self.known()["id"]
        for rest in ("x", "deploymentBase", "deploymentBase/0", "softwaremodules/1/artifacts"):
            self.assertEqual(send(self.port, f"{BASE}/{rest}").status, 404, rest)
        for kind in ("deploymentBase", "cancelAction", "installedBase"):
            self.assertEqual(send(self.port, f"{BASE}/{kind}/999999999").status, 404)
        self.assertEqual(send(self.port, f"{BASE}/cancelAction/{number}").status, 404)
        self.assertEqual(send(self.port, BASE, "POST", b"{}").status, 405)
        self.assertEqual(send(self.port, f"{BASE}/configData").status, 405)
        self.assertEqual(send(self.port, BASE, "GET", b"{}").status, 413)
        self.assertEqual(send(self.port, f"{BASE}/configData", "PUT", b"x" * 65537).status, 200)
        with Client(self.port) as client:
            length = f"Content-Length: {2**20 + 1}"
            client.send(f"PUT {BASE}/configData HTTP/1.1\r\nHost: h\r\n{length}\r\n\r\n".encode())
            self.assertEqual(client.answer().status, 413)

    def known(self) -> dict[str, Any]:
        """Return what the device should install, after its first poll."""
        self.device.links()
        return self.device.deployment()

    def test_a_range_continues_the_image_of_the_action_also_after_another_target(self):
        found = self.known()
        self.device.say(PROCEEDING, found["id"])
        self.set_target("v1.0.0")
        rest = self.device.download(found, {"Range": "bytes=70000-"})
        self.assertEqual((rest.status, rest.body), (206, self.IMAGE[70000:]))
        past = self.device.download(found, {"Range": "bytes=99999999-"})
        self.assertEqual(past.status, 416)

    def test_the_list_of_files_and_the_md5_are_those_of_the_image(self):
        (artifact,) = self.known()["deployment"]["chunks"][0]["artifacts"]
        md5 = send(self.port, artifact["_links"]["md5sum"]["href"].removeprefix("http://ota"))
        expected = f"{hashlib.md5(self.IMAGE).hexdigest()}  {artifact['filename']}\n"
        self.assertEqual(md5.body.decode(), expected)
        module = artifact["_links"]["download"]["href"].removeprefix("http://ota")
        listed = send(self.port, module.rpartition("/")[0])
        self.assertEqual(json.loads(listed.body), [artifact])

    def test_config_data_is_wanted_once_whether_it_comes_or_not(self):
        self.assertIn("configData", self.device.links())
        for _ in range(3):
            self.assertNotIn("configData", self.device.links())
        other = Device(self, "/default/controller/v1/other")
        other.attributes(version="v1.0.1")
        self.assertEqual(other.links(), {})
        full = Device(self, "/default/controller/v1/full")
        self.server.service.fleet._max_devices = 2
        self.assertEqual((full.links(), full.links()), ({}, {}))

    def test_an_old_attribute_does_not_outvote_a_reported_success(self):
        self.device.attributes(sw_version="v1.0.0")
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.0")
        self.device.update()
        self.device.attributes(sw_version="v1.0.0")
        self.assertEqual(self.device.links().keys(), {"installedBase"})
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.1")

    def test_nor_does_it_after_a_restart_of_the_server(self):
        self.device.attributes(sw_version="v1.0.0")
        self.device.update()
        self.stop()
        self.device.attributes(sw_version="v1.0.0")
        self.assertEqual(self.device.links().keys(), {"installedBase"})
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.1")

    def test_an_attribute_that_changes_after_the_success_is_believed(self):
        self.device.attributes(sw_version="v1.0.0")
        self.device.update()
        for attribute in ("v1.0.1", "v1.0.1"):
            self.device.attributes(sw_version=attribute)
        self.assertEqual(self.device.links().keys(), {"installedBase"})
        self.stop()
        self.device.attributes(sw_version="v1.0.0")  # somebody has put the old image on it
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.0")
        self.device.update()
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.1")
        self.device.attributes(sw_version="v1.0.0")
        self.assertEqual(self.device.links().keys(), {"installedBase"})

    def test_a_name_of_its_own_for_what_it_has_installed_is_no_other_version(self):
        self.device.links()  # the first poll
        for version in ("v1.0.1", "v1.0.0"):
            self.set_target(version)
            self.device.update()
            for _ in range(2):
                self.device.attributes(sw_version=f"build of {version}")
            self.assertEqual(self.device.links().keys(), {"installedBase"})
            self.assertEqual(self.device_line()["firmware_version"], version)

    def test_links_name_the_tenant_as_hawkbit_does_and_keep_within_200_bytes(self):
        for name in ("board-0123456789abcdef", "b" * 64):
            for version in ("v1", "v1.2.3-rc.1+build.20261129.abcdef0123456789"):
                device = Device(self, f"/default/controller/v1/{name}")
                self.put_image(version, self.IMAGE)
                self.set_target(version)
                for _ in range(2):
                    links = device.links()
                if "cancelAction" in links:
                    device.say(CLOSED, links["cancelAction"].rpartition("/")[2], "cancelAction")
                (artifact,) = device.deployment()["deployment"]["chunks"][0]["artifacts"]
                path = artifact["_links"]["download-http"]["href"].removeprefix("http://ota")
                self.assertTrue(path.startswith(f"/DEFAULT/controller/v1/{name}/"), path)
                self.assertLess(len(path), 200)
                self.assertEqual(send(self.port, path).body, self.IMAGE)

    def test_swupdate_is_told_200_also_where_it_waits_for_100(self):
        self.device.links()
        body = b'{"data":{"version":"v1.0.0"}}'
        with Client(self.port) as client:
            fields = {"Content-Length": str(len(body)), "Expect": "100-continue"}
            client.request(f"{BASE}/configData", fields, "PUT")
            self.assertEqual(client.read_until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
            client.send(body)
            self.assertEqual(client.answer().status, 200)
            client.request(BASE, {})
            self.assertIn(b"deploymentBase", client.answer().body)


class FeedbackTest(DdiCase):
    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.device.links()
        self.number = self.device.deployment()["id"]

    def test_an_action_id_of_another_device_is_404_and_a_closed_one_200(self):
        self.assertEqual(self.device.say(CLOSED, "2147483646"), 404)
        self.assertEqual(Device(self, "/default/controller/v1/x").say(CLOSED, self.number), 404)
        for _ in range(3):
            self.assertEqual(self.device.say(CLOSED, self.number), 200)
        self.assertEqual(self.device.say(FAILED, self.number), 200)
        self.assertEqual(self.device_line()["action_state"], "succeeded")

    def test_a_thousand_messages_then_closed_are_taken_and_stored_in_bounded_space(self):
        with Client(self.port) as client:
            for index in range(1000):
                said = {**PROCEEDING, "details": [f"written {index} " + "x" * 500]}
                body = json.dumps({"id": self.number, "status": said}).encode()
                path = f"{BASE}/deploymentBase/{self.number}/feedback"
                head = request_head(path, {"Content-Length": str(len(body))}, "POST")
                client.send(head + body)
                self.assertEqual(client.answer().status, 200)
        before = (self.data_dir / "log" / "devices.jsonl").stat().st_size
        self.assertEqual(self.device.say(CLOSED, self.number), 200)
        line = self.device_line()
        self.assertEqual((line["execution"], line["finished"]), ("closed", "success"))
        for number, is_kept in ((999, True), (998, True), (997, True), (996, False)):
            self.assertIs(f"written {number} " in line["detail"], is_kept)
        self.assertLess(len(line["detail"]), 600)
        self.assertLess(before, 10_000)

    def test_the_messages_of_a_thousand_devices_are_kept_until_the_end(self):
        service, peer = self.server.service, Peer("127.0.0.1", True)

        def ask(path: str, body: bytes = b"") -> None:
            length = {"Content-Length": str(len(body))} if body else {}
            request, _ = read_request(request_head(path, length, "POST" if body else "GET"))
            answer = service.respond(request._replace(body=body), peer)
            self.assertEqual(answer.status, 200)

        def say(number: int, status: Mapping[str, Any]) -> str:
            base = f"/default/controller/v1/many-{number}"
            line = service.fleet.get(f"/many-{number}")
            path = f"{base}/deploymentBase/{line.action.id}/feedback"
            ask(path, json.dumps({"status": status}).encode())
            service.flush()
            return base

        for number in range(1001):
            for _ in range(2):
                ask(f"/default/controller/v1/many-{number}")
            say(number, {**PROCEEDING, "details": ["written"]})
        for number in (0, 1):
            say(number, CLOSED)
        ends = {line["id"]: line["detail"] for line in self.records(finished="success")}
        self.assertEqual(ends, {"many-0": "", "many-1": "written"})

    def test_line_ends_inside_of_strings_and_missing_fields_are_taken(self):
        for number, body in enumerate(
            (
                b'{"id":"1","status":{"execution":"closed","result":{"finished":"failure"},'
                b'"details":["a\nb","[ERROR] : \xff\x00 c"]}}',
                b'{"status":{"execution":"closed","result":{"finished":"failure"}}}',
                b'{"status":{"result":{"finished":"failure"},"execution":"closed","details":["a"b"]}}',
            )
        ):
            with self.subTest(body):
                device = Device(self, f"/default/controller/v1/other-{number}")
                device.links()
                self.assertEqual(device.say_raw(body, device.deployment()["id"]), 200)
                self.server.service.flush()
                self.assertEqual(self.records()[-1]["action_state"], "failed")

    def test_what_is_no_feedback_is_taken_as_progress(self):
        for body in (
            b"",
            b"[]",
            b"{",
            b'"x"',
            b"[" * 60000,
            b'{"status":[]}',
            b'{"status":{"execution":5}}',
        ):
            with self.subTest(body[:20]):
                self.assertEqual(self.device.say_raw(body, self.number), 200)
        self.assertEqual(self.device.deployment()["id"], self.number)

    def test_feedback_with_a_long_log_counts_by_its_beginning(self):
        status = {"execution": "closed", "result": {"finished": "success"}}
        body = json.dumps({"id": self.number, "status": {**status, "details": ["x" * 900_000]}})
        self.assertEqual(self.device.say_raw(body.encode(), self.number), 200)
        self.assertEqual(self.device_line()["action_state"], "succeeded")

    def test_a_failed_update_is_tried_again_with_a_new_id_then_waits(self):
        self.assertEqual(self.device.say(FAILED, self.number), 200)
        line = self.device_line()
        self.assertEqual((line["detail"], line["firmware_version"]), ("no space", "-"))
        again = self.device.deployment()["id"]
        self.assertNotEqual(again, self.number)
        self.assertEqual(self.device.say(FAILED, again), 200)
        self.assertEqual(self.device.links(), {})
        self.assertEqual(self.device.say(CLOSED, self.number), 200)


class HoldBackTest(DdiCase):
    def known(self) -> str:
        """Return the id of the action that is on offer."""
        self.device.links()
        return str(self.device.deployment()["id"])

    def hold(self, is_held: bool) -> None:
        """Put everything on hold, or end that."""
        held = self.data_dir / "version" / "hold.json"
        held.write_text("") if is_held else held.unlink()

    def test_on_hold_nothing_is_shown_and_afterwards_the_same(self):
        number = self.known()
        self.hold(True)
        self.assertEqual(self.device.links(), {})
        self.hold(False)
        self.assertEqual(self.device.deployment()["id"], number)

    def test_attributes_during_the_first_update_do_not_end_it(self):
        self.device.links()
        self.device.attributes(version="1.0.0")
        number = self.known()
        self.device.say(PROCEEDING, number)
        self.device.attributes(version="1.0.1")  # after the restart, before it is confirmed
        self.assertEqual(self.device_line()["firmware_version"], "1.0.0")
        self.assertEqual(self.device.deployment()["id"], number)
        self.assertEqual(self.device.say(FAILED, number), 200)
        self.assertEqual(self.device_line()["firmware_version"], "1.0.0")

    def test_what_has_begun_stays_on_offer_and_its_download_is_not_refused(self):
        self.device.links()
        found = self.device.deployment()
        self.device.say(PROCEEDING, found["id"])
        self.hold(True)
        self.assertEqual(self.device.deployment(), found)
        self.assertEqual(self.device.download(found).status, 200)

    def test_what_has_begun_is_not_canceled_where_the_loop_breaker_lets_the_device_wait(self):
        self.device.links()
        found = self.device.deployment()
        self.device.say(PROCEEDING, found["id"])
        for _ in range(3):
            self.device.download(found)
            self.await_ends()
        self.assertTrue(self.server.service.fleet.needs_look(KEY))
        self.assertEqual(self.device.deployment(), found)

    def test_the_image_of_an_update_that_has_failed_is_not_sent_any_more(self):
        self.device.links()
        found = self.device.deployment()
        (artifact,) = found["deployment"]["chunks"][0]["artifacts"]
        url = artifact["_links"]["download-http"]["href"].removeprefix("http://ota")
        self.assertEqual(send(self.port, url).status, 200)
        self.device.say(FAILED, found["id"])
        for path in (url, f"{url}.MD5SUM", url.rpartition("/")[0]):
            with self.subTest(path):
                self.assertEqual(send(self.port, path).status, 404)

    def test_nor_is_that_of_one_that_was_canceled(self):
        self.device.links()
        found = self.device.deployment()
        (artifact,) = found["deployment"]["chunks"][0]["artifacts"]
        url = artifact["_links"]["download-http"]["href"].removeprefix("http://ota")
        self.set_target("v1.0.0")
        self.device.links()
        self.device.say(CLOSED, found["id"], "cancelAction")
        self.assertEqual(send(self.port, url).status, 404)

    def test_a_withdrawn_release_is_an_order_to_cancel_also_on_hold(self):
        number = self.known()
        self.device.say(PROCEEDING, number)
        self.hold(True)
        withdraw(self.data_dir, "v1.0.1", "bad", now_ms())
        self.assertEqual(self.device.links(), {"cancelAction": f"{BASE}/cancelAction/{number}"})

    def test_another_target_is_an_order_to_cancel_until_it_is_answered(self):
        for answer, kind in (
            (CLOSED, "closed"),
            (FAILED, "failure"),
            ({"execution": "rejected"}, "x"),
        ):
            with self.subTest(kind):
                self.set_target("v1.0.1")
                number = self.known()
                self.device.say(PROCEEDING, number)
                self.set_target("v1.0.0")
                for _ in range(2):
                    self.assertEqual(self.device.links().keys(), {"cancelAction"})
                order = send(self.port, self.device.links()["cancelAction"])
                expected = {"id": number, "cancelAction": {"stopId": number}}
                self.assertEqual(json.loads(order.body), expected)
                self.assertEqual(send(self.port, f"{BASE}/deploymentBase/{number}").status, 404)
                self.assertEqual(self.device.say(answer, number, "cancelAction"), 200)
                self.assertNotEqual(self.device.deployment()["id"], number)
                self.set_target("v1.0.1")
                number = self.device.links()["cancelAction"].rpartition("/")[2]
                self.device.say(CLOSED, number, "cancelAction")

    def views(self) -> tuple[str, str]:
        """Return what `why` gives as its reason, and the state in `devices`."""
        self.server.service.flush()
        _, why, _ = run_command(self.data_dir, "why", "id:gw-1", "--json")
        _, table, _ = run_command(self.data_dir, "devices", "--columns", "state")
        return json.loads(why)["reason"], table.splitlines()[1].strip()

    def test_while_a_device_waits_after_failures_why_and_devices_say_so(self):
        self.known()
        for _ in range(2):
            self.device.say(FAILED, self.device.deployment()["id"])
        self.assertEqual(self.device.links(), {})
        reason, state = self.views()
        self.assertIn("it has failed 2 times to install the image of v1.0.1; it waits unt", reason)
        self.assertEqual(state, "held: failed updates")
        self.put_image("v1.0.1", b"another image " * 3000)
        self.assertIn("deploymentBase", self.device.links())
        self.assertEqual(self.views(), ("the target of the fleet", "behind"))

    def test_a_failure_that_a_wrong_clock_has_put_into_the_future_counts_as_now(self):
        self.known()
        day_ms, clock = 24 * 3_600_000, self.server.service.clock_ms
        actions = self.server.service.default.ddi._actions
        actions._clock_ms = lambda: clock() + day_ms
        for _ in range(2):
            self.device.say(FAILED, self.device.deployment()["id"])
        actions._clock_ms = clock
        self.assertEqual(self.device.links(), {})
        self.assertEqual(run_command(self.data_dir, "retry", "id:gw-1")[0], 0)
        self.assertIn("deploymentBase", self.device.links())

    def test_while_an_order_to_cancel_is_not_answered_why_and_devices_say_so(self):
        number = self.known()
        self.set_target("v1.0.0")
        for target in ("v1.0.0", "v1.0.1"):
            self.set_target(target)
            self.assertEqual(self.device.links().keys(), {"cancelAction"})
            text = "it was told to cancel the update to v1.0.1, and has not answered yet"
            self.assertEqual(self.views(), (text, "held: cancel"))
        self.device.say(CLOSED, number, "cancelAction")
        self.assertEqual(self.views(), ("the target of the fleet", "behind"))

    def test_what_became_of_an_update_counts_also_after_the_order_to_cancel(self):
        number = self.known()
        self.set_target("v1.0.0")
        self.device.links()
        self.device.say(CLOSED, number)
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.1")
        self.assertNotEqual(self.device.deployment()["id"], number)

    def test_it_counts_also_where_the_device_has_refused_to_cancel_it(self):
        number = self.known()
        self.set_target("v1.0.0")
        self.device.links()
        self.device.say({"execution": "rejected"}, number, "cancelAction")
        self.device.say(CLOSED, number)
        self.assertEqual(self.device_line()["firmware_version"], "v1.0.1")
        self.assertNotEqual(self.device.deployment()["id"], number)

    def test_without_a_free_slot_there_is_no_link(self):
        admission = Admission(DownloadSlots(1))
        self.start(service={"admission": admission})
        other = Device(self, "/default/controller/v1/other")
        for device in (self.device, other):
            device.links()
        found = self.device.deployment()
        self.assertEqual(other.links(), {})
        self.assertEqual(self.device.download(found).status, 200)

    def test_a_download_that_lost_its_slot_is_sent_all_the_same(self):
        now = [0.0]
        admission = Admission(DownloadSlots(1), clock=lambda: now[0])
        self.start(service={"admission": admission})
        self.device.links()
        found = self.device.deployment()
        self.device.say(PROCEEDING, found["id"])
        now[0] += 66  # a slot that is not used ends
        self.assertIsNone(admission.begin("/other", 0, True, True))
        for _ in range(2):
            self.assertEqual(self.device.download(found).status, 200)
        self.assertTrue(until(lambda: not self.server.service.fleet.transfers.counts))
        self.assertEqual(admission.downloading, 1)

    def test_one_that_has_all_of_it_needs_no_slot_any_more(self):
        self.start(service={"admission": Admission(DownloadSlots(1))})
        self.device.links()
        found = self.device.deployment()
        self.device.download(found)
        self.await_ends()
        other = Device(self, "/default/controller/v1/other")
        other.links()
        self.assertEqual(other.links().keys(), {"deploymentBase"})
        self.assertEqual(self.device.deployment(), found)

    def test_a_device_that_runs_the_target_is_shown_nothing(self):
        self.device.attributes(version="1.0.1")
        self.assertEqual(self.device.links(), {})

    def test_without_a_target_there_is_nothing_and_no_error(self):
        (self.data_dir / "version" / "version.txt").unlink()
        self.device.links()
        self.assertEqual(self.device.links(), {})


class ProxyTest(DdiCase):
    FORWARDED = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "ota.example:8443",
    }

    def href(self, **options: Any) -> str:
        """Return a link of a poll that came with all three fields."""
        self.start(**options)
        answer = send(self.port, BASE, fields=self.FORWARDED)
        return str(json.loads(answer.body)["_links"]["configData"]["href"])

    def test_links_are_https_behind_a_trusted_proxy(self):
        href = self.href(proxies=TrustedProxies([ip_network("127.0.0.0/8")]))
        self.assertEqual(href, f"https://ota.example:8443{BASE}/configData")
        self.assertEqual(self.records()[-1]["address"], "192.0.2.7")

    def test_anybody_else_is_not_believed(self):
        self.assertEqual(self.href(), f"http://ota{BASE}/configData")


class RestartTest(DataDirCase):
    def test_an_action_survives_kill_9(self):
        image = bytes(range(256)) * 300
        self.put_image("v1.0.1", image)
        self.set_target("v1.0.1")
        numbers = []
        for _ in range(2):
            server = Process("--data-dir", str(self.data_dir))
            self.addCleanup(server.kill)
            while True:
                links = json.loads(send(server.port, BASE).body)["_links"]
                if "deploymentBase" in links:
                    break
            found = re.search(r"deploymentBase/(\d+)", links["deploymentBase"]["href"])
            numbers.append(found[1])
            server.end(signal.SIGKILL)
        self.assertEqual(numbers[0], numbers[1])
