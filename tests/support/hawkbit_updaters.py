"""Updaters that speak hawkBit's API: each sends, takes and refuses what the real one does.

Requests are byte for byte those of the real clients, but for the times in them. Where a reply is
one that the real client gives up at, `update` fails and says why.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.client import Answer, Client
from tests.support.updaters import Device, Ending

_TIME = "20261129T080000"
# So often a run of Zephyr asks again at once, at the most: for attributes, to cancel, at the end.
_MOST_PROBES = 6


class Refused(Exception):
    """A reply that the client does not take."""


class Gateway(Device):
    """A device with one of these updaters.

    Attributes:
        boots: whether what it installs works; else it stays on what it runs.
        statuses: of all replies.
    """

    TENANT = "DEFAULT"

    def __init__(
        self, port: int, mac: str, runs: bytes, after: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(port, mac, runs, after)
        self.boots = True
        self.statuses: list[int] = []

    @property
    def name(self) -> str:
        """How it calls itself."""
        return self.mac

    @property
    def base(self) -> str:
        """The path of the device."""
        return f"/{self.TENANT}/controller/v1/{self.name}"

    @property
    def origin(self) -> str:
        """What its operator has configured as the server."""
        return f"http://127.0.0.1:{self.port}"

    def exchange(
        self, client: Client, method: str, path: str, lines: tuple[str, ...], body: str = ""
    ) -> Answer:
        """Send one request, and return its reply."""
        length = (f"Content-Length: {len(body)}",) if body else ()
        host = f"Host: 127.0.0.1:{self.port}"
        head = (f"{method} {path} HTTP/1.1", host, *lines, *length, "", "")
        client.send("\r\n".join(head).encode())
        client.send(body.encode())
        answer = client.answer(method)
        self.statuses.append(answer.status)
        return answer

    def json_of(self, answer: Answer) -> dict[str, Any]:
        """Return the message in a reply; these clients take no other status than 200."""
        if answer.status != 200 or "content-length" not in answer.fields:
            raise Refused(f"a message was answered {answer.status}")
        return dict(json.loads(answer.body)) if answer.body else {}

    def update(self) -> Ending:
        """Poll once, and do what the reply asks for."""
        try:
            return self.run()
        except Refused as problem:
            return self.failed(str(problem))
        finally:
            self.after()

    def run(self) -> Ending:
        """Poll once, and do what the reply asks for."""
        raise NotImplementedError


def one(values: list[Any], what: str) -> Any:
    """Return the only value."""
    if len(values) != 1:
        raise Refused(f"{len(values)} {what}")
    return values[0]


class RaucUpdater(Gateway):
    """rauc-hawkbit-updater: one connection for each request; URLs as the server gives them.

    Attributes:
        messages: of the installation, which it hands on.
        cut_at: after so many bytes its next download is cut; it resumes at once.
        fetched: the last file.
        while_installing: called before it says how the installation ended.
    """

    def __init__(self, port: int, mac: str, runs: bytes, *more: Callable[[], None]) -> None:
        super().__init__(port, mac, runs, *more)
        self.messages = ["0% Installing", "100% Installing done."]
        self.cut_at = 0
        self.fetched = b""
        self.while_installing: Callable[[], object] = lambda: None

    def path_of(self, links: Mapping[str, Any], name: str) -> str:
        """Return the path of a link, which must lead to the server."""
        href = links[name]["href"]
        if not isinstance(href, str) or not href.startswith(f"{self.origin}/"):
            raise Refused(f"a link to another server: {href}")
        return href.removeprefix(self.origin)

    def rest(self, method: str, path: str, message: Mapping[str, Any] | None = None) -> Any:
        """Send a message, and return that of the reply."""
        lines = ["User-Agent: rauc-hawkbit-c-agent/1.0"]
        lines += ["Accept: application/json;charset=UTF-8", "Authorization: TargetToken t0ken"]
        body = ""
        if message is not None:
            lines.append("Content-Type: application/json;charset=UTF-8")
            body = json.dumps(message, separators=(",", ":"))
        with Client(self.port) as client:
            return self.json_of(self.exchange(client, method, path, tuple(lines), body))

    def status(self, finished: str, execution: str, detail: str = "") -> dict[str, Any]:
        """Return the part of a message that says how something goes."""
        details = {"details": [detail]} if detail else {}
        status = {"result": {"finished": finished}, "execution": execution, **details}
        return {"time": _TIME, "status": status}

    def say(
        self, number: str, detail: str, how: tuple[str, str], kind: str = "deploymentBase"
    ) -> None:
        """Send feedback."""
        path = f"{self.base}/{kind}/{number}/feedback"
        self.rest("POST", path, {"id": number, **self.status(*how, detail)})

    def run(self) -> Ending:
        """Poll once, and do what the reply asks for."""
        reply = self.rest("GET", self.base)
        links = reply["_links"]
        if "configData" in links:
            attributes = {"product": "gateway", "hw_revision": "1"}
            message = {**self.status("success", "closed"), "data": attributes}
            self.rest("PUT", f"{self.base}/configData", message)
        if "cancelAction" in links:
            self.cancel(links, ("success", "closed"), "Action canceled.")
        if "deploymentBase" in links:
            return self.deploy(self.rest("GET", self.path_of(links, "deploymentBase")))
        return Ending.NOTHING

    def cancel(self, links: Mapping[str, Any], how: tuple[str, str], detail: str) -> None:
        """Answer an order to cancel."""
        order = self.rest("GET", self.path_of(links, "cancelAction"))
        number = order["cancelAction"]["stopId"]
        if not isinstance(number, str):
            raise Refused("the id of the order is not a text")
        self.say(number, detail, how, "cancelAction")

    def refuse_to_cancel(self) -> None:
        """Poll while something is being installed, and say that it is too late to cancel."""
        links = self.rest("GET", self.base)["_links"]
        detail = "Cancelation impossible, installation started already."
        self.cancel(links, ("success", "rejected"), detail)

    def deploy(self, told: Mapping[str, Any]) -> Ending:
        """Fetch and install what a reply describes."""
        number, deployment = told["id"], told["deployment"]
        if not isinstance(number, str):
            raise Refused("the id is not a text")
        if deployment["download"] == "skip" or deployment["update"] == "skip":
            raise Refused("it is told to wait")
        chunk = one(deployment["chunks"], "chunks")
        artifact = one(chunk["artifacts"], "files")
        if not (isinstance(chunk["version"], str) and isinstance(chunk["name"], str)):
            raise Refused("no version and name")
        self.fetched = self.fetch(self.path_of(artifact["_links"], "download"))
        self.say(number, "Download complete. 1.00 MB/s", ("none", "proceeding"))
        sha1, told_sha1 = hashlib.sha1(self.fetched).hexdigest(), artifact["hashes"]["sha1"]
        if sha1 != told_sha1:
            detail = f"Software: {chunk['name']} V{chunk['version']}. Invalid checksum"
            self.say(number, f"{detail}: {sha1} expected {told_sha1}", ("failure", "closed"))
            raise Refused("the checksum differs")
        self.say(number, "File checksum OK.", ("none", "proceeding"))
        for message in self.messages:
            self.say(number, message, ("none", "proceeding"))
        self.while_installing()
        if not self.boots:
            self.say(number, "Failed to install software bundle.", ("failure", "closed"))
            return self.failed("the installation failed")
        self.say(number, "Software bundle installed successfully.", ("success", "closed"))
        self.runs = self.fetched
        return Ending.UPDATED

    def fetch(self, path: str) -> bytes:
        """Return a file; what was cut is gone on with."""
        got = b""
        while True:
            resumed = (f"Range: bytes={len(got)}-",) if got else ()
            lines = ("Authorization: TargetToken t0ken", "Accept: application/octet-stream")
            with Client(self.port) as client:
                agent = "User-Agent: rauc-hawkbit-c-agent/1.0"
                answer = self.exchange(client, "GET", path, (*resumed, agent, *lines))
            if answer.status != (206 if resumed else 200):
                raise Refused(f"the file was answered {answer.status}")
            if not self.cut_at:
                return got + answer.body
            got, self.cut_at = answer.body[: self.cut_at], 0


class Zephyr(Gateway):
    """Zephyr's client: one connection for each run; what it has installed it says after a reboot.

    Attributes:
        installed: the id of the update that it installed last; it never installs that one again.
        is_worn: whether its flash keeps no image any more; it tells nobody.
        asks: how often the last run polled.
    """

    TENANT = "default"
    BOARD = "nrf52840dk_nrf52840"

    def __init__(self, port: int, mac: str, runs: bytes, *more: Callable[[], None]) -> None:
        super().__init__(port, mac, runs, *more)
        self.installed = 0
        self.is_worn = False
        self.asks = 0

    @property
    def serial(self) -> str:
        """The number of its chip."""
        return hashlib.md5(self.mac.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """How it calls itself."""
        return f"{self.BOARD}-{self.serial}"

    def path_of(self, link: Mapping[str, str]) -> str:
        """Return the path of a link; it looks at nothing before it."""
        _, slashes, rest = link["href"].partition("//")
        _, slash, path = rest.partition("/")
        if not (slashes and slash) or len(path) > 298:
            raise Refused(f"unexpected link {link}")
        return f"/{path}"

    def number_in(self, href: str) -> int:
        """Return the id in the link to an order: it passes over the first digit of it."""
        number = int(href.partition("cancelAction/")[2][1:] or "0")
        if number <= 0:
            raise Refused("invalid id of an order to cancel")
        return number

    def attributes(self) -> str:
        """Return what it says of itself."""
        return f'{{"mode":"merge","data":{{"VIN":"{self.serial}"}}}}'

    def feedback(self, number: int, finished: str = "success") -> str:
        """Return what it says of an update."""
        return f'{{"status":{{"execution":"closed","result":{{"finished":"{finished}"}}}}}}'

    def cancel_feedback(self, number: int, finished: str) -> str:
        """Return what it says of an order to cancel an update."""
        return self.feedback(number, finished)

    def send(self, client: Client, method: str, path: str, body: str = "") -> Answer:
        """Send one request."""
        token = "Authorization: TargetToken t0ken"
        kind = ("Content-Type: application/json;charset=UTF-8",) if body else ()
        return self.exchange(client, method, path, (token, *kind), body)

    def run(self) -> Ending:
        """Poll until there is nothing more to do."""
        with Client(self.port) as client:
            for self.asks in range(1, _MOST_PROBES + 1):
                reply = self.json_of(self.send(client, "GET", self.base))
                if len(reply["config"]["polling"]["sleep"]) != 8:
                    raise Refused("the time to sleep has another form")
                ending = self.follow(client, reply["_links"])
                if ending is not None:
                    return ending
        raise Refused("it polls again and again")

    def follow(self, client: Client, links: Mapping[str, Any]) -> Ending | None:
        """Do what the links of a poll ask for; None: poll again at once."""
        if "cancelAction" in links:
            self.cancel(client, links["cancelAction"])
            return None
        if "configData" in links:
            path = self.path_of(links["configData"])
            self.json_of(self.send(client, "PUT", path, self.attributes()))
            return None
        if "deploymentBase" not in links:
            return Ending.NOTHING
        path = self.path_of(links["deploymentBase"])
        told = self.json_of(self.send(client, "GET", path))
        number = int(told["id"])
        if not 0 < number < 2**31:
            raise Refused("invalid id")
        if number == self.installed:
            path = f"{self.base}/deploymentBase/{number}/feedback"
            self.json_of(self.send(client, "POST", path, self.feedback(number)))
            return None
        return self.deploy(client, told["deployment"], number)

    def cancel(self, client: Client, link: Mapping[str, str]) -> None:
        """Answer an order to cancel."""
        number = self.number_in(link["href"])
        finished = "failure" if number == self.installed else "success"
        path = f"{self.path_of(link)}/feedback"
        self.json_of(self.send(client, "POST", path, self.cancel_feedback(number, finished)))

    def deploy(self, client: Client, deployment: Mapping[str, Any], number: int) -> Ending:
        """Fetch an image, and reboot into it."""
        chunk = one(deployment["chunks"], "chunks")
        if chunk["part"] != "bApp":
            raise Refused("another part")
        artifact = one(chunk["artifacts"], "files")
        path = self.path_of(artifact["_links"]["download-http"])
        answer = self.send(client, "GET", path)
        if answer.status != 200 or "content-length" not in answer.fields:
            raise Refused(f"the image was answered {answer.status}")
        if hashlib.sha256(answer.body).hexdigest() != artifact["hashes"]["sha256"]:
            raise Refused("the SHA-256 differs")
        if self.is_worn:
            raise Refused("failed to validate stored firmware")
        self.installed = number
        if self.boots:
            self.runs = answer.body
        return Ending.UPDATED


class OlderZephyr(Zephyr):
    """Zephyr's client of earlier releases: it knows one tenant, as hawkBit writes it."""

    def path_of(self, link: Mapping[str, str]) -> str:
        """Return the path of a link as it looks for it, within its buffer for that."""
        _, mark, tail = link["href"].partition("/DEFAULT/controller/v1")
        if not mark or len(mark + tail) > 199:
            raise Refused(f"unexpected link {link}")
        return mark + tail

    def attributes(self) -> str:
        """Return what it says of itself."""
        status = '"status":{"execution":"closed","result":{"finished":"success"}}'
        data = f'"data":{{"VIN":"{self.serial}","hwRevision":"3"}}'
        return f'{{"mode":"merge",{data},"id":"","time":"",{status}}}'

    def feedback(self, number: int, finished: str = "success") -> str:
        """Return what it says of an update."""
        return f'{{"id":"{number}",{super().feedback(number, finished)[1:]}'

    def cancel_feedback(self, number: int, finished: str) -> str:
        """Return what it says of an order to cancel an update."""
        return f'{{"id":"{number}","time":"",{super().feedback(number, finished)[1:]}'

    def number_in(self, href: str) -> int:
        """Return the id in the link to an order."""
        return int(href.partition("cancelAction/")[2])

    def cancel(self, client: Client, link: Mapping[str, str]) -> None:
        """Answer an order to cancel, and poll again at once."""
        number = self.number_in(link["href"])
        path = f"{self.base}/cancelAction/{number}/feedback"
        self.json_of(self.send(client, "POST", path, self.cancel_feedback(number, "success")))

    def follow(self, client: Client, links: Mapping[str, Any]) -> Ending | None:
        """Do what the links of a poll ask for; it builds all paths itself but for the image's."""
        if "cancelAction" in links:
            self.cancel(client, links["cancelAction"])
            return Ending.NOTHING
        if "configData" in links:
            self.json_of(self.send(client, "PUT", f"{self.base}/configData", self.attributes()))
        if "deploymentBase" not in links:
            return Ending.NOTHING
        tail = links["deploymentBase"]["href"].partition("deploymentBase/")[2]
        if len(f"deploymentBase/{tail}") > 49:
            raise Refused("the link to the update is too long")
        told = self.json_of(self.send(client, "GET", f"{self.base}/deploymentBase/{tail}"))
        number = int(told["id"])
        if number == self.installed:
            path = f"{self.base}/deploymentBase/{number}/feedback"
            self.json_of(self.send(client, "POST", path, self.feedback(number)))
            return Ending.NOTHING
        return self.deploy(client, told["deployment"], number)
