"""Images that are published by the API: whole or not at all, and never in memory."""

import hashlib
import json
from pathlib import Path
from urllib.parse import urlencode

from tests.support import Client, until
from tests.support.operators import OperatorsCase, some_devices

URL = "/api/v1/releases/default"
MEBIBYTE = 1024 * 1024


class ApiPublishTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.await_devices(0)

    def publish(self, version: str, image: bytes, **query: str):
        """Send an image; return the status, the fields and the content of the reply."""
        path = f"{URL}/{version}{f'?{urlencode(query)}' if query else ''}"
        fields = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        answer = self.operators.ask("PUT", path, image, fields)
        return answer.status, answer.fields, json.loads(answer.body)

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "firmware").iterdir())

    def test_an_image_can_be_read_once_it_is_said_to_be_there(self):
        image = b"an image " * 1000
        status, fields, said = self.publish("v3.0.0", image, notes="fixes the clock")
        self.assertEqual((status, fields["location"]), (201, f"{URL}/v3.0.0"), said)
        self.assertEqual(said["release"]["sha256"], hashlib.sha256(image).hexdigest())
        _, release = self.operators.json("GET", fields["location"])
        self.assertEqual(release, said["release"])
        self.assertEqual((release["notes"], release["states"]), ("fixes the clock", []))
        stored = self.data_dir / "firmware" / "firmware_v3.0.0.bin"
        self.assertEqual(stored.read_bytes(), image)
        # The same again is no second release.
        status, _, again = self.publish("v3.0.0", image)
        self.assertEqual(status, 200)
        self.assertEqual(again["release"]["sha256"], release["sha256"])
        _, log = self.operators.json("GET", "/api/v1/audit?limit=5")
        self.assertIn(("publish", "ann"), [(e["action"], e["user"]) for e in log["entries"]])

    def test_other_bytes_under_a_version_that_is_there_are_a_conflict(self):
        self.publish("v3.0.1", b"one" * 100)
        status, _, problem = self.publish("v3.0.1", b"two" * 100)
        self.assertEqual(status, 409, problem)

    def test_what_speaks_against_an_image_is_a_conflict(self):
        for query, said in (
            ({"via": "v9"}, "v9"),
            ({"direct_from": "v1.*"}, "stepping stone"),
        ):
            with self.subTest(query):
                status, _, problem = self.publish("v3.0.2", b"image" * 100, **query)
                self.assertEqual(status, 409)
                self.assertIn(said, problem["detail"])
        self.assertEqual(self.publish("v3.0.2", b"image" * 100, via="../x")[0], 400)
        self.assertNotIn("firmware_v3.0.2.bin", self.files())

    def test_an_upload_that_is_cut_leaves_nothing(self):
        before = self.files()
        with Client(self.operators.port) as client:
            client.send(
                f"PUT {URL}/v4.0.0 HTTP/1.1\r\nHost: 127.0.0.1:{self.operators.port}\r\n"
                f"Authorization: Bearer {self.operators.token}\r\n"
                "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
                "the beginning".encode("ascii")
            )
            self.assertTrue(until(lambda: self.files() != before))
        self.assertTrue(until(lambda: self.files() == before))

    def test_what_is_no_image_is_refused_before_it_is_read(self):
        fields = {"Accept": "application/json", "Content-Length": str(1 << 40)}
        octets = {**fields, "Content-Type": "application/octet-stream"}
        for path, head, status in (
            (f"{URL}/v5", {**fields, "Content-Type": "application/json"}, 415),
            (f"{URL}/v5", {**octets, "Content-Length": "0"}, 400),
            (f"{URL}/%20", octets, 404),
            ("/api/v1/releases/none/v5", octets, 404),
            (f"{URL}/v5?note=x", octets, 400),
            (f"{URL}/v5", octets, 507),  # a tebibyte
            (f"{URL}/v5", {**octets, "Authorization": "Bearer x"}, 401),
        ):
            with self.subTest(path=path, head=head):
                self.assertEqual(self.operators.ask("PUT", path, fields=head).status, status)

    def test_ten_megabytes_take_no_memory(self):
        self.publish("v6.0.0", b"x" * MEBIBYTE)  # so that what is loaded late is loaded
        before = self.most_memory()
        status, _, said = self.publish("v6.0.1", bytes(10 * MEBIBYTE))
        self.assertEqual(status, 201, said)
        self.assertLess(self.most_memory() - before, 4 * MEBIBYTE)

    def most_memory(self) -> int:
        """Return the most memory that the controller has ever used, in bytes."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    command = (folder / "cmdline").read_bytes()
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if b"ota_server.controller" in command and parent == str(self.server.process.pid):
                    status = (folder / "status").read_text()
                    line = next(each for each in status.splitlines() if "VmHWM" in each)
                    return int(line.split()[1]) * 1024
        raise AssertionError("there is no controller")


class ApiReleasesTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(6))
        cls.await_devices(6)

    def test_a_release_says_how_many_devices_run_it_and_were_told_it(self):
        _, listed = self.operators.json("GET", "/api/v1/releases?product=default")
        reached = {
            each["version"]: (each["devices_running"], each["devices_told"])
            for each in listed["releases"]
        }
        self.assertEqual(reached, {"v1.0.0": (3, 6), "v2.0.0": (3, 0)})

    def test_a_release_is_activated_rolled_back_withdrawn_and_removed(self):
        def post(path: str, body: object = None) -> tuple[int, object]:
            return self.operators.json("POST", f"/api/v1{path}", body)

        target = self.data_dir / "version" / "version.txt"
        self.assertEqual(post("/releases/default/v2.0.0/activate")[0], 200)
        self.assertEqual(target.read_text().strip(), "v2.0.0")
        self.assertEqual(post("/products/default/rollback", {"force": False})[0], 200)
        self.assertEqual(target.read_text().strip(), "v1.0.0")
        status, done = post("/releases/default/v2.0.0/withdraw", {"reason": "bad"})
        self.assertEqual((status, done["version"]), (200, "v2.0.0"))
        _, release = self.operators.json("GET", f"{URL}/v2.0.0")
        self.assertEqual(release["states"], ["withdrawn"])
        self.assertEqual(release["withdrawn_reason"], "bad")
        self.assertEqual(post("/releases/default/v2.0.0/withdraw")[0], 409)
        self.assertEqual(post("/releases/default/v2.0.0/reinstate")[0], 200)
        status, problem = self.operators.json("DELETE", f"{URL}/v1.0.0")
        self.assertEqual(status, 409)
        self.assertIn("it is the target", problem["detail"])
        _, listed = self.operators.json("GET", "/api/v1/releases")
        versions = {each["version"]: each["states"] for each in listed["releases"]}
        self.assertIn("target", versions["v1.0.0"])
        self.assertEqual(self.operators.json("DELETE", f"{URL}/v7")[0], 404)
