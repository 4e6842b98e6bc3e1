"""What holds for every route of the operators' port: who may, what changes nothing, which site."""

import hashlib
import json
import re
import socket
from collections.abc import Iterator

from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.routes import Route
from ota_server.operator_port.site_routes import all_routes
from tests.support.client import Client
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import FORM_TYPE, Operators, OperatorsCase, make_token, some_devices

ROUTES = all_routes().routes
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# They change by themselves: an index of what others say, the use of tokens, how far a rollout is.
# What an operator does is in other files too, at least in the audit log.
MOVING = re.compile(
    r"log/(index\.sqlite.*|token_use\.json|admission\.json|.*\.checkpoint)|version/progress\.json"
)
WHO = ("ann", "admin port")
STREAMS = ("/events", "/api/v1/events")


class RulesCase(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        folder = cls.data_dir / "version" / "groups"
        folder.mkdir()
        (folder / "beta.txt").write_text(f"{mac_of(1)}\n")

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(20))
        wanted = {"version": NEW, "waves": [50, 100], "count_new": True}
        status, said = cls.operators.json("POST", "/api/v1/rollouts/default", wanted)
        assert status == 201, said
        cls.rollout = said["id"]
        answer = cls.operators.ask("POST", "/releases/upload?name=a.bin", b"an image")
        cls.upload = answer.fields["location"].rpartition("/")[2]
        cls.await_devices(20)

    @classmethod
    def snapshot(cls) -> dict[str, tuple[int, str]]:
        """Return all files of the data directory that only a change changes."""
        found = {}
        for path in sorted(cls.data_dir.rglob("*")):
            name = str(path.relative_to(cls.data_dir))
            # One that is just being written has a name that begins with a dot.
            is_kept = not (MOVING.fullmatch(name) or path.name.startswith("."))
            if is_kept and path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[name] = (path.stat().st_ino, digest)
        return found

    def assert_same(self, before: dict[str, tuple[int, str]]) -> None:
        """Fail if a file is there, or is not, or is another one than before."""
        after = self.snapshot()
        both = before.keys() | after.keys()
        self.assertEqual({name for name in both if before.get(name) != after.get(name)}, set())

    def path_of(self, route: Route) -> str:
        """Return a path at which there is something."""
        values = {"product": "default", "mac": mac_of(1), "name": mac_of(1), "version": OLD}
        values |= {"group": "beta", "rollout": self.rollout, "id": self.rollout}
        if route.path.startswith("/uploads/"):
            values["id"] = self.upload
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], route.path)

    def paths(self, access: Access | None = None, *methods: str) -> Iterator[tuple[Route, str]]:
        for route in ROUTES:
            if (access in (None, route.access)) and (not methods or route.method in methods):
                yield route, self.path_of(route)


class ReadingTest(RulesCase):
    def test_no_get_and_no_head_changes_anything(self):
        before = self.snapshot()
        self.operators.sign_in(self.data_dir)
        cookie, token = self.operators.cookie, self.operators.token
        self.addCleanup(setattr, self.operators, "cookie", "")
        before = self.snapshot()
        for self.operators.cookie, self.operators.token in (("", token), (cookie, ""), ("", "")):
            for _route, path in self.paths(None, "GET"):
                for method in ("GET", "HEAD"):
                    if path in STREAMS:
                        continue
                    accept = {"Accept": "*/*"}
                    answer = self.operators.ask(method, path, fields=accept)
                    # Some say that what they would ask cannot be done now.
                    self.assertIn(answer.status, (200, 409), (method, path, answer.body))
        self.operators.cookie, self.operators.token = "", token
        self.assert_same(before)

    def test_no_method_that_a_path_has_not_changes_anything(self):
        before = self.snapshot()
        allowed: dict[str, set[str]] = {}
        for route, path in self.paths():
            allowed.setdefault(path, set()).add(route.method)
            if route.method == "GET":
                allowed[path].add("HEAD")
        for path, methods in allowed.items():
            for method in METHODS:
                if method in methods:
                    continue
                with self.subTest(method=method, path=path):
                    answer = self.operators.ask(method, path)
                    self.assertEqual(answer.status, 405, answer)
                    self.assertEqual({*answer.fields["allow"].split(", ")}, methods)
        self.assert_same(before)


class ActingTest(RulesCase):
    def test_who_may_only_read_acts_nowhere(self):
        self.assert_nothing_happens(403, make_token(self.data_dir, "reader", may_act=False))

    def test_who_is_not_known_acts_nowhere(self):
        self.assert_nothing_happens(401, "")

    def test_a_wrong_token_acts_nowhere(self):
        self.assert_nothing_happens((401, 429), "ota_wrong")

    def assert_nothing_happens(self, expected: int | tuple[int, ...], token: str) -> None:
        wanted = (expected,) if isinstance(expected, int) else expected
        before, stranger = self.snapshot(), Operators(self.server.admin_port, token)
        count = 0
        for route, path in self.paths(Access.ACT):
            for kind in (FORM_TYPE, "application/json", "application/octet-stream", ""):
                for body in (b"", b"a=b", b"{}"):
                    fields = {"Content-Type": kind} if kind else {}
                    answer = stranger.ask(route.method, path, body, fields)
                    self.assertIn(answer.status, wanted, (route.method, path, answer))
                    count += 1
        self.assertGreater(count, 100)
        self.assert_same(before)

    def test_a_page_elsewhere_acts_nowhere(self):
        browser = Operators(self.server.admin_port)
        browser.sign_in(self.data_dir)
        form_token, before = browser.form_token(), self.snapshot()
        own, known = f"http://127.0.0.1:{browser.port}", {"X-Form-Token": form_token}
        other_port = f"127.0.0.1:{self.server.port}"
        attacks = {
            "another origin": {"Origin": "http://evil.example", **known},
            "another port": {"Origin": f"http://{other_port}", **known},
            "no origin": {"Origin": "null", **known},
            "by another site": {"Origin": own, "Sec-Fetch-Site": "cross-site", **known},
            "no token of the form": {"Origin": own},
            "a wrong token of the form": {"Origin": own, "X-Form-Token": "0" * 64},
            "a rebound name": {"Origin": "http://evil.example", "Host": "evil.example", **known},
        }
        for route, path in self.paths(Access.ACT):
            for name, fields in attacks.items():
                with self.subTest(name, method=route.method, path=path):
                    answer = browser.ask(
                        route.method, path, b"a=b", {"Content-Type": FORM_TYPE, **fields}
                    )
                    self.assertEqual(answer.status, 403, answer)
        self.assert_same(before)

    def test_no_page_can_be_embedded_or_run_what_it_did_not_bring(self):
        for route, path in self.paths(None, "GET"):
            if path in STREAMS:
                continue
            answer = self.operators.ask("GET", path, fields={"Accept": "*/*"})
            policy = answer.fields["content-security-policy"]
            for words in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
                self.assertIn(words, policy, path)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(answer.fields["x-content-type-options"], "nosniff")
            for route_fields in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},):
                if route.access is not Access.OPEN:
                    refused = self.operators.ask("GET", path, fields=route_fields)
                    self.assertEqual(refused.status, 403, path)


class SiteTest(RulesCase):
    def status(self, target: str, host: str, *fields: str) -> int:
        with Client(self.server.admin_port) as client:
            lines = "".join(f"{each}\r\n" for each in (f"Host: {host}", *fields))
            client.send(f"GET {target} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n".encode())
            return client.answer().status

    def test_only_addresses_and_names_of_this_machine_are_hosts(self):
        port = self.server.admin_port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST.:{port}", "[::1]"):
            with self.subTest(host):
                self.assertEqual(self.status("/devices", host), 200)
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "a@b", ""):
            with self.subTest(host):
                self.assertIn(self.status("/devices", host), (400, 403))

    def test_a_target_in_absolute_form_names_the_host(self):
        self.assertEqual(self.status("http://evil.example/devices", "127.0.0.1"), 403)
        self.assertEqual(self.status("http://127.0.0.1/devices", "evil.example"), 200)

    def test_what_says_that_it_was_forwarded_needs_a_token(self):
        for field in ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "Via: 1.1 a"):
            with self.subTest(field):
                self.assertEqual(self.status("/devices", "127.0.0.1", field), 401)
                self.assertEqual(
                    self.status(
                        "/devices",
                        "127.0.0.1",
                        field,
                        f"Authorization: Bearer {self.operators.token}",
                    ),
                    200,
                )

    def test_another_spelling_of_a_path_is_another_path(self):
        for path in ("//", "//devices", "/devices/", "/Devices", "/%2e%2e/devices", "/devices%00"):
            with self.subTest(path):
                self.assertEqual(self.status(path, "127.0.0.1"), 404)
        for path in ("/static/../page.css", "/static/%2e%2e%2fapp.py", "/static/..%5capp.py"):
            with self.subTest(path):
                self.assertEqual(self.status(path, "127.0.0.1"), 404)

    def test_no_answer_leads_elsewhere(self):
        for path in ("//evil.example", "/login?next=//evil.example", "/devices/default//evil"):
            with self.subTest(path):
                answer = self.operators.get(path)
                self.assertNotIn("location", answer.fields)
        upper = mac_of(1).upper().replace(":", "-")
        answer = self.operators.get(f"/devices/default/{upper}?next=//evil.example")
        self.assertEqual(answer.fields["location"], f"/devices/default/{mac_of(1)}")


class FramingTest(RulesCase):
    """Where one request ends: what follows a body is never taken for a request."""

    def replies(self, content: bytes) -> list[bytes]:
        """Return the status lines of all that is answered on one connection."""
        with Client(self.server.admin_port) as client:
            client.send(content)
            client.sock.shutdown(socket.SHUT_WR)
            return re.findall(rb"HTTP/1\.1 (\d+) ", client.read_all())

    def post(self, path: str, body: bytes, length: int | None = None) -> bytes:
        fields = {
            "Host": f"127.0.0.1:{self.server.admin_port}",
            "Authorization": f"Bearer {self.operators.token}",
            "Content-Type": FORM_TYPE,
            "Content-Length": str(len(body) if length is None else length),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    def test_a_request_behind_a_body_is_not_answered(self):
        before = self.snapshot()
        hold = self.post("/hold", b"product=")
        for first in (
            self.post("/devices/preview", b"a=b"),
            self.post("/nothing", b"a=b"),
            self.post("/devices", b"a=b"),
            self.post("/releases/default/v1/activate", b"a=b", 1),
            self.post("/login", b"code=x"),
        ):
            with self.subTest(first=first[:40]):
                self.assertEqual(len(self.replies(first + hold)), 1)
        self.assert_same(before)

    def test_a_body_that_does_not_arrive_does_nothing(self):
        before = self.snapshot()
        for path in ("/hold", "/releases/upload?name=a", f"/uploads/default/{self.upload}/publish"):
            with self.subTest(path):
                self.assertEqual(self.replies(self.post(path, b"product=", 9000)), [])
        self.assert_same(before)

    def test_what_two_programs_could_read_differently_is_refused(self):
        hold = self.post("/hold", b"product=")
        for wrong in (
            hold.replace(b"Content-Length: 8", b"Content-Length: 8\r\nContent-Length: 9"),
            hold.replace(b"Content-Length: 8", b"Content-Length: +8"),
            hold.replace(b"Content-Length: 8", b"Transfer-Encoding: chunked"),
            hold.replace(b"Content-Length: 8", b"Content-Length : 8"),
            hold.replace(b"Host: ", b"Host: evil.example\r\nHost: "),
        ):
            with self.subTest(wrong=wrong[-80:]):
                self.assertIn(self.replies(wrong), ([b"400"], [b"501"]))

    def test_by_http_1_0_nobody_reads_without_a_token(self):
        fields = f"Host: 127.0.0.1:{self.server.admin_port}\r\n"
        for token, status in (("", b"401"), (self.operators.token, b"200")):
            said = f"Authorization: Bearer {token}\r\n" if token else ""
            content = f"GET /devices HTTP/1.0\r\n{fields}{said}\r\n".encode()
            self.assertEqual(self.replies(content), [status])


class OnRecordTest(RulesCase):
    def test_each_action_is_on_record_with_the_name_of_its_token(self):
        device, group = f"/api/v1/devices/default/{mac_of(2)}", "/api/v1/groups/default/new"
        release, rollout = "/api/v1/releases/default", f"/api/v1/rollouts/default/{self.rollout}"
        bulk = {"product": "default", "keys": [mac_of(3), mac_of(4)], "expected": 2}
        self.put(f"{release}/v3")
        for method, path, content, action in (
            ("PUT", f"{device}/label", {"label": "a"}, "label"),
            ("DELETE", f"{device}/label", None, "label"),
            ("PUT", f"{device}/pin", {"version": OLD}, "pin"),
            ("DELETE", f"{device}/pin", None, "unpin"),
            ("POST", f"{device}/retry", None, "retry"),
            ("POST", "/api/v1/devices/actions", {**bulk, "action": "label", "label": "b"}, "label"),
            ("PUT", f"{group}/devices/{mac_of(5)}", None, "group add"),
            ("PUT", f"{group}/pin", {"version": OLD}, "pin"),
            ("DELETE", f"{group}/pin", None, "unpin"),
            ("DELETE", group, None, "group delete"),
            ("PATCH", rollout, {"max_failures": 5}, "rollout change"),
            ("POST", f"{rollout}/pause", None, "rollout pause"),
            ("POST", f"{rollout}/abort", None, "rollout abort"),
            ("PUT", "/api/v1/hold", {"reason": "it reboots"}, "hold"),
            ("DELETE", "/api/v1/hold", None, "unhold"),
            ("POST", f"{release}/v3/withdraw", {}, "withdraw"),
            ("POST", f"{release}/v3/reinstate", None, "withdraw --undo"),
            ("DELETE", f"{release}/v3", None, "remove"),
            ("DELETE", device, None, "forget"),
        ):
            with self.subTest(method=method, path=path):
                before = len(self.entries())
                status, said = self.operators.json(method, path, content)
                self.assertLess(status, 300, said)
                entries = self.entries()[before:]
                self.assertIn(action, [each["action"] for each in entries])
                done = [each for each in entries if each["action"] == action]
                self.assertEqual({(each["user"], each["through"]) for each in done}, {WHO})

    def put(self, path: str) -> None:
        fields = {"Content-Type": "application/octet-stream", "Accept": "*/*"}
        self.assertEqual(self.operators.ask("PUT", path, b"three", fields).status, 201)
        done = self.entries()[-1]
        self.assertEqual((done["action"], done["user"], done["through"]), ("publish", *WHO))

    def entries(self) -> list[dict[str, str]]:
        lines = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
