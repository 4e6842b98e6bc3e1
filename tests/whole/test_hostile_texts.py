"""Text that means harm, in each place that holds text: it is shown, and does nothing anywhere."""

import csv
import io
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

from tests.support.client import Client, until
from tests.support.fleet import NEW, mac_of
from tests.support.images import esp32_image
from tests.support.operators import OperatorsCase, make_data_dir
from tests.support.pages import PageReader

MARKUP = "\"'><xq7 onxq7=1 style=x>&lt;`c`</script></textarea>"
HIDDEN = "\u202e<xq7>\u2066\x1b[31m\x07\r\nSet-Cookie: xq7=1\x00\u200f\x85"
LINK = "javascript:xq7()"
FORMULA = "=cmd|'/c xq7'!A1"
LONG = "x<xq7>" * 2000
ALL = (MARKUP, HIDDEN, LINK, FORMULA, LONG)
IDENTITIES = (
    *(MARKUP[:40].strip(), FORMULA, LINK, "<xq7>", '"', "-1", "@x", "?a=b#c"),
    *("%2e%2e%2f", "../../x", "/x//y", "x'; DROP TABLE devices;--", ".", "default"),
)
VERSIONS = (MARKUP[:60], FORMULA, LINK, "<xq7>", "=1+1", "../x", "%00", "other", "v1.0.0")
TIME = "2026-11-20T10:00:00.000Z"
# Nobody sees them, or they turn the text around them.
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
# A link, a form, a style or a script leads to this port alone.
OWN_URL = re.compile(r"/(?!/)|\?|#")
MOST_OF_A_KIND = 6


def edited_files() -> Iterator[tuple[str, str]]:
    """Yield files that a person, or who broke in, may have written, with what is in them."""
    texts = dict.fromkeys(("time", "user", "host", "action", "what", "from", "to"), MARKUP)
    audit = [texts, {"time": TIME}, {**texts, "time": TIME, "what": ["a"], "to": {"a": 1}}]
    for said in ALL:
        for action in (said, "activate", "rollback", "withdraw", "hold", "pin", "forget"):
            names = ("user", "host", "what", "from", "to", "reason", "note", "through", "of")
            entry = {"time": TIME, **dict.fromkeys(names, said), "action": action}
            audit.append({**entry, "group_targets": {said: said}})
    yield "log/audit.jsonl", lines(audit)
    names = ("address", "reason", "mac", "first_time", "time")
    rejected = [{**dict.fromkeys(names, said), "count": 3} for said in ALL]
    yield "log/rejected.jsonl", lines([*rejected, *({**each, "time": TIME} for each in rejected)])
    names = ("id", "version", "group", "reason", "note", "instead_of", "reverts")
    ended = {"time": TIME, "start_time": TIME, "end_time": TIME, "counts": {"failed": 1}}
    device = {"mac": mac_of(1), "state": "failed"}
    yield (
        "log/rollouts.jsonl",
        lines(
            [
                {**ended, **dict.fromkeys(names, said), "state": state, "counts": {said: 1}}
                for said in ALL
                for state in (said, "halted")
            ]
            + [{**ended, **dict.fromkeys(names, "x"), "state": "done", "devices": [device]}]
        ),
    )
    held = {"time": MARKUP, "user": HIDDEN, "reason": MARKUP + HIDDEN + LONG}
    yield "version/hold.json", json.dumps(held)
    labels = {mac_of(1): MARKUP[:60], mac_of(2): FORMULA, mac_of(3): LINK, mac_of(4): "+1+1"}
    yield "version/labels.json", json.dumps(labels)
    yield "version/groups/beta.txt", f"{mac_of(1)}\nid:{IDENTITIES[0]}\n# {MARKUP}\n"


def lines(entries: list[dict[str, object]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in entries)


def hostile_image() -> bytes:
    """Return an image that says hostile things of itself."""
    said = struct.pack(
        "<I12x32s32s16s16s", 0xABCD5432, b"\"><xq7>=1'", b"<xq7 a=1>\"'", b"<xq7>", b"<xq7>"
    )
    image = bytearray(esp32_image("x"))
    image[32 : 32 + len(said)] = said
    return bytes(image)


class HostileTextTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        make_data_dir(cls.data_dir / "products" / "plug")
        (cls.data_dir / "version" / "groups").mkdir()
        for name, content in edited_files():
            (cls.data_dir / name).write_text(content)

    @classmethod
    def come(cls) -> None:
        for at, version in enumerate(VERSIONS):
            agent = {"User-Agent": f"ESP8266-http-Update{MARKUP}"}
            cls.ask("/version.txt", _br_mac_=mac_of(at), _br_fwv_=version, **agent)
        for name in IDENTITIES:
            said = {"rauc-machine-id": name, "rauc-system-version": FORMULA}
            cls.ask("/version.txt", **said)
            cls.ask("/plug/version.txt", **said)
        cls.ask("/version.txt", _br_mac_=MARKUP, _br_fwv_="x")
        cls.uploads = [cls.upload(name) for name in (MARKUP, HIDDEN, FORMULA, LONG[:2000])]
        octets = {"Content-Type": "application/octet-stream", "Accept": "*/*"}
        for at, said in enumerate((MARKUP, FORMULA)):
            path = f"/api/v1/releases/default/v7.{at}?notes={quote(said)}&reports_as=%22%3E{at}"
            answer = cls.operators.ask("PUT", path, b"image %d" % at, octets)
            assert answer.status == 201, answer
        wanted = {"version": NEW, "waves": [50, 100], "note": MARKUP, "count_new": True}
        status, said = cls.operators.json("POST", "/api/v1/rollouts/default", wanted)
        assert status == 201, said
        count = len(VERSIONS) + 2 * len(IDENTITIES)
        assert until(lambda: f"{count} devices" in cls.operators.page("/devices").text)

    @classmethod
    def ask(cls, path: str, **fields: str) -> None:
        with Client(cls.server.port) as client:
            client.request(path, fields)
            client.answer()

    @classmethod
    def upload(cls, name: str) -> str:
        """Send an image with this name; return its page."""
        path = f"/releases/upload?name={quote(name)}"
        answer = cls.operators.ask("POST", path, hostile_image())
        assert answer.status == 303, answer
        return answer.fields["location"]

    def pages(self) -> Iterator[tuple[str, PageReader]]:
        """Yield all kinds of pages that links lead to, some of each."""
        first = (
            "/",
            "/devices",
            "/groups",
            "/releases",
            "/rollouts",
            "/rejected",
            "/audit",
            "/hold",
        )
        asked = [
            f"{path}?{name}={quote(said)}"
            for path, names in (
                ("/devices", ("text", "version", "label", "group", "done", "cursor", "sort")),
                ("/rollouts/new", ("product", "group", "version")),
                ("/rollouts/preview", ("version", "note", "waves")),
                ("/audit", ("product", "before")),
                ("/login", ("code",)),
                ("/", ("product", "span")),
                ("/releases/rollback", ("product",)),
            )
            for name in names
            for said in (MARKUP, HIDDEN, LINK)
        ]
        folders = ("devices/default", "releases/default", "rollouts/default", "uploads/default")
        asked += [f"/{each}/{quote(MARKUP, safe='')}" for each in (*folders, "devices", "x")]
        waiting, seen, kinds = [*first, *self.uploads, *asked], set(), Counter[object]()
        while waiting:
            url = waiting.pop(0)
            kind = kind_of(url)
            if url in seen or (kinds[kind] >= MOST_OF_A_KIND and url not in asked):
                continue
            seen.add(url)
            kinds[kind] += 1
            answer = self.operators.get(url)
            self.assertLess(answer.status, 500, url)
            self.assertNotIn(b"xq7=1", answer.head)
            if answer.fields.get("content-type") == "text/html; charset=utf-8":
                page = PageReader(answer.body.decode("utf-8"))
                self.assertIsNone(UNSEEN.search(answer.body.decode("utf-8")), url)
                yield url, page
                waiting += [each.partition("#")[0] for each, _ in page.links if each[:1] == "/"]
        for kind in ("/devices/*/*", "/releases/*/*", "/rollouts/*/*", "/releases/*/*/remove"):
            self.assertTrue(any(kind in each for each in kinds), (kind, kinds))

    def test_no_element_attribute_or_link_on_any_page_comes_from_text(self):
        tags, names = set(), set()
        for url, page in self.pages():
            self.assertEqual(page.wrong, [], url)
            tags |= {tag for tag, _ in page.elements}
            for tag, attributes in page.elements:
                names |= attributes.keys()
                said = {attributes[name] for name in ("id", "class") if name in attributes}
                for name in ("href", "src", "action"):
                    if name in attributes:
                        self.assertRegex(attributes[name], OWN_URL, (url, tag))
                self.assertNotIn("xq7", " ".join(said), url)
        self.assertNotIn("xq7", tags)
        self.assertEqual({each for each in names if each.startswith("on") or "xq7" in each}, set())
        self.assertNotIn("style", names)

    def test_no_cell_of_a_sheet_is_a_formula(self):
        text = self.operators.get("/devices.csv?columns=mac,label,version,family,groups").body
        rows = [*csv.reader(io.StringIO(text.decode("utf-8-sig")))]
        self.assertIn(f"'{FORMULA}", {cell for row in rows for cell in row})
        self.assertEqual([cell for row in rows for cell in row if cell[:1] in ("=", "+", "@")], [])

    def test_the_api_and_the_metrics_have_it_as_text(self):
        names = ("devices", "audit", "rejected", "releases", "rollouts", "hold", "status", "labels")
        for name in names:
            with self.subTest(name):
                status, _ = self.operators.json("GET", f"/api/v1/{name}")
                self.assertEqual(status, 200)
        figures = self.operators.get("/metrics").body.decode("utf-8")
        said = [line for line in figures.splitlines() if "xq7" in line]
        self.assertGreater(len(said), 2)
        for line in said:
            self.assertRegex(line, r'\Aota_devices_by_version\{(\w+="(\\.|[^"\\])*",?)+\} \d+\Z')


def kind_of(url: str) -> tuple[str, ...]:
    """Return what a URL has in common with others of its kind."""
    path, _, query = url.partition("?")
    parts = path.split("/")
    parts[2:4] = "*" * len(parts[2:4])
    return ("/".join(parts), *sorted(each.partition("=")[0] for each in query.split("&")))
