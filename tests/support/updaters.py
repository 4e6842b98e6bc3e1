"""The updaters of microcontrollers: each takes and refuses what the real one does.

A device runs an image of `tests.support.images`, in which it finds its version. `update` asks once,
installs what it gets, and says how that ended, as the sketch would learn it.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from enum import StrEnum

from tests.support.client import Answer, Client

_MD5 = re.compile("[0-9a-fA-F]{32}")
_VERSION = re.compile(rb"the image (\S+) ")
_IDF_PART_BYTES = 1000


class Ending(StrEnum):
    """How an attempt ended."""

    UPDATED = "updated"
    NOTHING = "nothing to do"
    FAILED = "failed"
    RESTARTED = "restarted, and runs the same image"


def version_in(image: bytes) -> str:
    """Return the version that is built into an image."""
    found = _VERSION.search(image)
    return "-" if found is None else found[1].decode()


class Device:
    """A device with its updater.

    Attributes:
        runs: its image.
        problem: why the last attempt failed.
        after: called after each reply, before the device goes on.
    """

    HTTP = "1.1"

    def __init__(
        self, port: int, mac: str, runs: bytes, after: Callable[[], None] = lambda: None
    ) -> None:
        self.port = port
        self.mac = mac
        self.runs = runs
        self.problem = ""
        self.after = after

    @property
    def version(self) -> str:
        """The version of its image."""
        return version_in(self.runs)

    def update(self) -> Ending:
        """Ask, and install what comes."""
        raise NotImplementedError

    def failed(self, problem: str) -> Ending:
        """Give up."""
        self.problem = problem
        return Ending.FAILED

    def ask(self, path: str, *lines: str, method: str = "GET") -> Answer:
        """Send one request on a connection of its own."""
        with Client(self.port) as client:
            host = f"Host: 127.0.0.1:{self.port}"
            head = (f"{method} {path} HTTP/{self.HTTP}", host, *lines, "", "")
            client.send("\r\n".join(head).encode())
            answer = client.answer(method)
            if self.HTTP == "1.0" and client.read(1):
                answer = answer._replace(status=0)  # it reads up to the end of the connection
        self.after()
        return answer

    def whole(self, answer: Answer) -> str:
        """Return what is wrong with a whole image; "": nothing."""
        length = answer.fields.get("content-length")
        if answer.status != 200:
            return f"wrong code {answer.status}"
        if "transfer-encoding" in answer.fields or "content-encoding" in answer.fields:
            return "the body is coded"
        if not length:
            return "the server did not say the size"
        return "" if len(answer.body) == int(length) else "the stream ended early"


class HttpUpdate(Device):
    """HTTPUpdate of Arduino: one request is check and download, in HTTP/1.0, without ranges."""

    HTTP = "1.0"
    NAME = "ESP32"
    FIRST_BYTES = b"\xe9"
    SPACE: int | None = 1_310_720
    SAYS_VERSION = True

    def lines(self) -> list[str]:
        """Return what it says of itself."""
        mac, prefix = self.mac.upper(), f"x-{self.NAME}-"
        lines = [f"User-Agent: {self.NAME}-http-Update", "Connection: close"]
        lines += [f"{prefix}STA-MAC: {mac}", f"{prefix}AP-MAC: {mac}", f"{prefix}mode: sketch"]
        if self.SPACE is not None:
            lines.append(f"{prefix}free-space: {self.SPACE}")
        if self.SAYS_VERSION:
            lines.append(f"{prefix}version: {self.version}")
        return lines + self.hashes()

    def hashes(self) -> list[str]:
        """Return what it says of its image."""
        md5, sha256 = hashlib.md5(self.runs).hexdigest(), self.runs[-32:].hex().upper()
        return [f"x-ESP32-sketch-md5: {md5}", f"x-ESP32-sketch-sha256: {sha256}"]

    def update(self) -> Ending:
        """Ask, and install what comes."""
        answer = self.ask("/firmware.bin", *self.lines())
        if answer.status == 304:
            return self.not_modified()
        problem = self.whole(answer) or self.unfit(answer)
        if problem:
            return self.failed(problem)
        self.install(answer.body)
        return Ending.UPDATED

    def not_modified(self) -> Ending:
        """Take a 304."""
        return Ending.NOTHING

    def unfit(self, answer: Answer) -> str:
        """Return what is wrong with an image that came; "": nothing."""
        md5 = answer.fields.get("x-md5")
        if self.SPACE is not None and len(answer.body) > self.SPACE:
            return "not enough space"
        if answer.head.lower().count(b"\r\nx-md5:") > 1 or (md5 and not _MD5.fullmatch(md5)):
            return "x-MD5 is malformed"
        if md5 and hashlib.md5(answer.body).hexdigest() != md5.lower():
            return "the MD5 differs"
        is_firmware = answer.body[:1] in self.FIRST_BYTES or not self.FIRST_BYTES
        return "" if is_firmware else "it is no firmware"

    def install(self, image: bytes) -> None:
        """Run another image."""
        self.runs = image


class Esp8266(HttpUpdate):
    """Its updater writes the flash mode of the chip into the image."""

    NAME = "ESP8266"
    FIRST_BYTES = b"\xe9\x1f"
    SPACE = 2_818_048

    def hashes(self) -> list[str]:
        """Return what it says of its image."""
        return [f"x-ESP8266-sketch-md5: {hashlib.md5(self.runs).hexdigest()}"]

    def install(self, image: bytes) -> None:
        """Run another image."""
        self.runs = image[:2] + b"\x00" + image[3:]


class Silent8266(Esp8266):
    """A sketch that gives its updater no version."""

    SAYS_VERSION = False


class Pico(HttpUpdate):
    """The updater of Arduino-Pico: it writes whatever comes."""

    NAME = "Pico"
    FIRST_BYTES = b""
    SPACE = None

    def hashes(self) -> list[str]:
        """Return what it says of its image: nothing."""
        return []


class Tasmota(Esp8266):
    """Takes 304 for an update, and restarts."""

    @property
    def version(self) -> str:
        """The version of its image, and of its build."""
        return f"{version_in(self.runs)}(tasmota)"

    def not_modified(self) -> Ending:
        """Take a 304."""
        return Ending.RESTARTED


class EspIdf(Device):
    """esp_https_ota in partial mode: HEAD, then parts, the last one as `N-`. It uses Basic.

    Attributes:
        cut_at: after so many bytes the next attempt is cut, and the one after it goes on there.
    """

    def __init__(self, port: int, mac: str, runs: bytes, *more: Callable[[], None]) -> None:
        super().__init__(port, mac, runs, *more)
        self.cut_at = 0
        self._got = b""

    def update(self) -> Ending:
        """Ask, and install what comes."""
        user = b64encode(f"{self.mac}:".encode()).decode()
        lines = ("User-Agent: ESP32 HTTP Client/1.0", f"Authorization: Basic {user}")
        path = f"/d/{self.mac}/{self.version}/firmware.bin"
        head = self.ask(path, *lines, method="HEAD")
        if head.status == 304:
            return Ending.NOTHING
        if head.status != 200 or len(head.head) > 512:
            return self.failed(f"wrong head {head.status}")
        size, got = int(head.fields["content-length"]), self._got
        while len(got) < size:
            end = len(got) + _IDF_PART_BYTES - 1
            last = "" if end >= size - 1 else end
            answer = self.ask(path, *lines, f"Range: bytes={len(got)}-{last}")
            if answer.status != 206:
                return self.failed(f"a part was answered {answer.status}")
            if not answer.fields["content-range"].startswith(f"bytes {len(got)}-"):
                return self.failed("another part than was asked for")
            got += answer.body
            if self.cut_at and len(got) >= self.cut_at:
                self.cut_at, self._got = 0, got
                return self.failed("cut")
        self._got = b""
        if len(got) != size or got[:1] != b"\xe9" or got[12:14] != self.runs[12:14]:
            return self.failed("it is no image for this chip")
        self.runs = got
        return Ending.UPDATED


class Mongoose(Device):
    """Mongoose OS: HTTP/1.1, 304, no ranges."""

    def update(self) -> Ending:
        """Ask, and install what comes."""
        digits = self.mac.replace(":", "").upper()
        device = f"X-MGOS-Device-ID: esp32_{digits[-6:]} {digits}"
        version = f"X-MGOS-FW-Version: esp32 {self.version} 20260101-120000/g1234567"
        answer = self.ask("/firmware.bin", device, version)
        if answer.status == 304:
            return Ending.NOTHING
        problem = self.whole(answer)
        if problem:
            return self.failed(problem)
        self.runs = answer.body
        return Ending.UPDATED


class EspHome(Device):
    """ESPHome's `update:`: a manifest with texts alone, then the image that it names."""

    def update(self) -> Ending:
        """Ask, and install what comes."""
        base = f"/d/{self.mac}/{self.version}/"
        answer = self.ask(f"{base}manifest.json", "User-Agent: ESPHome/2026.1.0")
        if problem := self.whole(answer):
            return self.failed(problem)
        manifest = json.loads(answer.body)
        if manifest["version"] == self.version:
            return Ending.NOTHING
        build = next(each for each in manifest["builds"] if each["chipFamily"] == "ESP32")
        path = build["ota"]["path"]
        image = self.ask(path if path.startswith("/") else base + path, "User-Agent: ESPHome/2026")
        if problem := self.whole(image):
            return self.failed(problem)
        if hashlib.md5(image.body).hexdigest() != build["ota"]["md5"]:
            return self.failed("the MD5 differs")
        self.runs = image.body
        return Ending.UPDATED


class Fota(Device):
    """esp32FOTA: a document of at most 2 KiB with an absolute URL; it never goes back."""

    def update(self) -> Ending:
        """Ask, and install what comes."""
        number = int.from_bytes(bytes.fromhex(self.mac.replace(":", "")), "little")
        answer = self.ask(f"/esp32fota.json?id={number}")
        problem = self.whole(answer)
        if problem or len(answer.body) > 2048:
            return self.failed(problem or "the document is too long")
        documents = json.loads(answer.body)
        told = documents[0] if isinstance(documents, list) else documents
        if _numbers(told["version"]) <= _numbers(self.version):
            return Ending.NOTHING
        origin = f"http://127.0.0.1:{self.port}"
        if not told["url"].startswith(origin):
            return self.failed("the URL is not absolute")
        image = self.ask(told["url"].removeprefix(origin))
        if problem := self.whole(image):
            return self.failed(problem)
        self.runs = image.body
        return Ending.UPDATED


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall("[0-9]+", version)]
