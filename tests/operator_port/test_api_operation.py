"""What is checked before an operation answers, and how what does not fit is refused."""

from http import HTTPStatus

from tests.support.operators import OperatorsCase, some_devices

JSON = {"Accept": "application/json"}


class ApiCase(OperatorsCase):
    """A server with 12 devices of two versions."""

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(12))
        cls.await_devices(12)


class ChecksTest(ApiCase):
    def refused(self, status: HTTPStatus, method: str, path: str, content: object = None) -> str:
        """Return why a request is refused; fails if it is not, or with another status."""
        found, problem = self.operators.json(method, f"/api/v1{path}", content)
        self.assertEqual((found, problem["status"]), (status, status), problem)
        self.assertEqual((problem["type"], problem["title"]), ("about:blank", status.phrase))
        return str(problem["detail"])

    def test_what_is_not_there_is_not_found(self):
        for path in (
            "/nothing",
            "/devices/none/00:11:22:33:44:55",
            "/devices/default/00:11:22:33:44:55",
            "/devices/default/00:00:00:00:00:00",
            "/devices/default/x",
            "/devices/DEFAULT/00:11:22:33:44:55",
            "/devices/default/id:%20",
            "/devices?product=none",
            "/groups/default/none",
            "/releases/default/v9",
            "/releases/default/%2e%2e",
            "/rollouts/default/none",
            "/audit?product=none",
        ):
            with self.subTest(path):
                self.refused(HTTPStatus.NOT_FOUND, "GET", path)

    def test_a_field_of_the_query_that_is_not_known_or_does_not_fit_is_refused_by_name(self):
        for query, said in (
            ("verson=v1", "`verson` is not known here"),
            ("limit=0", "`limit` is 0: give 1 to 500"),
            ("limit=x", "`limit` is not a whole number"),
            ("limit=01", "`limit` is not a whole number"),
            ("limit=1&limit=2", "`limit` is given twice"),
            ("state=good", "`state/0` is not one of silent"),
            ("state=", "`state/0` is not one of silent"),
            ("product=A", "`product` 'A' is not a product"),
            ("address=1.2.3", "`address` '1.2.3' is not an address"),
            ("address=1.2.3.4/33", "`address` '1.2.3.4/33' is not an address"),
            ("not_seen=week", "`not_seen` 'week' is not a duration"),
            ("outdated=1", "`outdated` is not true or false"),
            ("text=", "`text` has 0 characters: give 1 to 200"),
            ("cursor=%00", "`cursor` '\\x00' is not a cursor"),
            ("text=%ff", "the fields are not UTF-8 in percent-encoding"),
        ):
            with self.subTest(query):
                self.assertIn(
                    said, self.refused(HTTPStatus.BAD_REQUEST, "GET", f"/devices?{query}")
                )

    def test_a_cursor_of_another_list_is_a_conflict(self):
        _, page = self.operators.json("GET", "/api/v1/devices?limit=2")
        self.refused(HTTPStatus.CONFLICT, "GET", f"/devices?sort=seen&cursor={page['next']}")
        self.refused(HTTPStatus.CONFLICT, "GET", "/devices?cursor=abc")
        self.refused(HTTPStatus.CONFLICT, "GET", "/audit?cursor=abc")

    def test_a_body_that_does_not_fit_is_refused_with_the_places(self):
        path = "/devices/default/02:00:00:00:00:00/pin"
        status, problem = self.operators.json(
            "PUT", f"/api/v1{path}", {"version": "../x", "until": "soon", "more": 1}
        )
        self.assertEqual(status, 422)
        pointers = [each["pointer"] for each in problem["errors"]]
        self.assertEqual(pointers, ["/version", "/until", "/more"])
        self.assertIn("`version` '../x' is not a version", problem["detail"])

    def test_a_date_that_no_calendar_has_is_a_conflict(self):
        path = "/devices/default/02:00:00:00:00:00/pin"
        body = {"version": "v1.0.0", "until": "2027-02-30T00:00:00Z"}
        self.assertIn("until", self.refused(HTTPStatus.CONFLICT, "PUT", path, body))

    def test_a_body_that_is_no_json_is_refused(self):
        path = "/api/v1/devices/default/02:00:00:00:00:00/label"
        for body, kind, status in (
            (b"{", "application/json", 400),
            (b'{"label": NaN}', "application/json", 400),
            (b'{"label": "\\ud800"}', "application/json", 400),
            (b'{"label": "\xff"}', "application/json", 400),
            (b"[" * 100_000, "application/json", 400),
            (b'"text"', "application/json", 400),
            (b'{"label": "x"}', "text/plain", 415),
            (b"label=x", "application/x-www-form-urlencoded", 415),
            (b'{"label": "x"}', "application/json; charset=utf-8", 200),
        ):
            with self.subTest(body=body[:20], kind=kind):
                answer = self.operators.ask("PUT", path, body, {**JSON, "Content-Type": kind})
                self.assertEqual(answer.status, status)
        self.assertEqual(self.operators.ask("PUT", path, fields=JSON).status, 415)

    def test_a_body_where_none_belongs_is_refused(self):
        fields = {**JSON, "Content-Type": "application/json"}
        path = "/api/v1/devices/default/02:00:00:00:00:00/retry"
        self.assertEqual(self.operators.ask("POST", path, b"{}", fields).status, 400)

    def test_a_body_that_is_too_long_is_refused_unread(self):
        fields = {**JSON, "Content-Type": "application/json", "Content-Length": str(1 << 40)}
        answer = self.operators.ask("POST", "/api/v1/devices/actions", fields=fields)
        self.assertEqual(answer.status, 413)

    def test_another_method_is_told_which_ones_apply(self):
        for path, allow in (
            ("/devices", "GET, HEAD"),
            ("/devices/default/02:00:00:00:00:00", "DELETE, GET, HEAD"),
            ("/hold", "DELETE, GET, HEAD, PUT"),
            ("/devices/actions", "POST"),
            ("/openapi.json", "GET, HEAD"),
        ):
            for method in ("OPTIONS", "PATCH", "TRACE"):
                with self.subTest(path=path, method=method):
                    answer = self.operators.ask(method, f"/api/v1{path}", fields=JSON)
                    self.assertEqual((answer.status, answer.fields["allow"]), (405, allow))

    def test_who_takes_no_json_is_told_that_there_is_nothing_else(self):
        for accept, status in (
            ("text/html", 406),
            ("application/json;q=0, text/html", 406),
            ("application/json; q=0.5", 200),
            ("text/html, */*;q=0.1", 200),
            ("application/*", 200),
        ):
            with self.subTest(accept):
                answer = self.operators.ask("GET", "/api/v1/hold", fields={"Accept": accept})
                self.assertEqual(answer.status, status)
        self.assertEqual(answer.fields["content-type"], "application/json")

    def test_a_head_request_has_the_head_of_a_get(self):
        get = self.operators.ask("GET", "/api/v1/hold", fields=JSON)
        head = self.operators.ask("HEAD", "/api/v1/hold", fields=JSON)
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.fields["content-length"], get.fields["content-length"])


class WhoMayTest(ApiCase):
    def test_the_description_says_how_to_come_by_a_token_as_the_server_was_called(self):
        schemes = self.operators.json("GET", "/api/v1/openapi.json")[1]["components"]
        said = schemes["securitySchemes"]["token"]["description"]
        self.assertRegex(said, r" -m ota_server token create NAME( --data-dir \S+)?`\.$")

    def test_each_operation_that_changes_something_needs_a_token(self):
        token, self.operators.token = self.operators.token, ""
        self.addCleanup(setattr, self.operators, "token", token)
        paths = self.operators.json("GET", "/api/v1/openapi.json")[1]["paths"]
        for path, methods in paths.items():
            for method in methods:
                real = path.replace("{product}", "default").replace("{mac}", "02:00:00:00:00:00")
                real = real.replace("{version}", "v1.0.0").replace("{group}", "beta")
                real = real.replace("{rollout}", "x")
                if method == "get":
                    continue
                with self.subTest(path=path, method=method):
                    answer = self.operators.ask(method.upper(), real, fields=JSON)
                    self.assertEqual(answer.status, 401)
                    self.assertIn("Bearer", answer.fields["www-authenticate"])
