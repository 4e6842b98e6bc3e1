"""Make the pictures of the README again: `python screenshots/make.py`.

Each shows what the program printed just now. The package is copied into a temporary checkout, where
the server and the commands run as the README has them; only the path of that checkout is shown as
/srv/ota_server, and the port as 7777. The fleet of the second picture asks a real server whose
clock is set back, so that its devices were last seen at different times. The fleet of the third
polls twice a second, for rollouts of half a minute.

Needs Chromium beside Python. Makes session.png, devices.png, rollout.png, and diagram and
house as .svg and .png.
"""

import argparse
import html
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import diagram  # noqa: E402

from ota_server.device_port.server import OTAServer  # noqa: E402
from ota_server.device_port.wiring import open_service  # noqa: E402
from ota_server.system import clock  # noqa: E402

SHOWN_CHECKOUT = "/srv/ota_server"
DEFAULT_PORT = 7777
_COLUMNS = 100
MAC = "00:11:22:33:44:55"
HEADERS = f"-H '_br_mac_: {MAC}' -H '_br_fwv_: v1.0.0'"
CHECK = f"curl http://localhost:{DEFAULT_PORT}/version.txt  {HEADERS}"
FETCH = f"curl http://localhost:{DEFAULT_PORT}/firmware.bin {HEADERS} -o new.bin"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

MINUTE, HOUR, DAY = 60, 3600, 86400
# What a fleet did: MAC, how many seconds ago, the version that it reported, whether it fetched the
# image then, and how it asks.
FLEET = (
    ("00:11:22:33:44:55", DAY, "v1.0.0", True, "br"),
    ("00:11:22:33:44:55", 23 * HOUR, "v1.0.1", False, "br"),
    ("00:11:22:33:44:55", 4, "v1.0.1", False, "br"),
    ("24:0a:c4:9f:10:3b", 3 * HOUR, "v1.0.0", False, "esp32"),
    ("24:0a:c4:9f:10:3b", 2 * MINUTE, "v1.0.1", False, "esp32"),
    ("24:0a:c4:9f:10:5e", 40, "v1.0.0", False, "br"),
    ("84:f3:eb:00:7c:21", 12 * DAY, "v0.9.4", False, "br"),
    ("84:f3:eb:00:7c:21", 9 * DAY, "v1.0.0", False, "br"),
    ("a0:20:a6:2d:e1:90", 31 * MINUTE, "1.0.1", False, "br"),
    ("b8:d6:1a:44:0f:02", 5 * MINUTE, "v1.0.0", False, "esphome"),
    ("dc:a6:32:07:b8:44", 2 * HOUR, "v1.0.0-rc.2", False, "swupdate"),
)
# For each way to ask: the path, the fields beside those that say which device it is and what it
# runs, and the names of these; "": the path says that.
WAYS = {
    "br": ("/version.txt", {}, "_br_mac_", "_br_fwv_"),
    "esp32": (
        "/firmware.bin",
        {"User-Agent": "ESP32-http-Update"},
        "x-ESP32-STA-MAC",
        "x-ESP32-version",
    ),
    "esphome": ("/d/{mac}/{version}/manifest.json", {"User-Agent": "ESPHome/2026.10.0"}, "", ""),
    "swupdate": ("/d/{mac}/{version}/firmware.bin", {"User-Agent": "libcurl-agent/1.0"}, "", ""),
}

STYLE = """
body { margin: 0; background: #1d2430; }
pre { margin: 0; padding: 18px 22px; color: #dde3ea; white-space: pre;
      font: 15px/1.42 "DejaVu Sans Mono", "Liberation Mono", Menlo, monospace; }
b { color: #8fd18b; font-weight: bold; }
i { color: #ffffff; font-style: normal; font-weight: bold; }
"""
FONT_WIDTH, LINE_HEIGHT, PADDING_X, PADDING_Y = 9.04, 21.3, 22, 18


def main() -> int:
    """Make all pictures; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        print("screenshots/make.py needs Chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder).resolve() / "ota_server"
        ignored = shutil.ignore_patterns("log", "__pycache__")
        shutil.copytree(ROOT / "ota_server", checkout / "ota_server", ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", checkout)
        show_text(chromium, session(checkout), HERE / "session.png")
        show_text(chromium, fleet(checkout), HERE / "devices.png")
        show_text(chromium, rollouts(checkout), HERE / "rollout.png")
    for name, drawn, width, height in (
        ("diagram", diagram.svg(), diagram.WIDTH, diagram.HEIGHT),
        ("house", diagram.house_svg(), diagram.HOUSE_WIDTH, diagram.HOUSE_HEIGHT),
    ):
        (HERE / f"{name}.svg").write_text(drawn, encoding="utf-8")
        shoot(chromium, HERE / f"{name}.svg", HERE / f"{name}.png", width, height)
    return 0


def session(checkout: Path) -> str:
    """Return what a terminal shows of a server's start and a device's two requests."""
    with served(checkout) as (port, banner):
        checked = run(checkout, CHECK, port)
        fetched = run(checkout, f"{FETCH} --silent && sha256sum new.bin", port)
        lines = [
            prompt("python -m ota_server.server &"),
            banner.rstrip(),
            "",
            prompt(CHECK),
            checked,
            prompt(FETCH.replace(f" {HEADERS} ", f" {HEADERS} \\\n       ")),
            prompt("sha256sum new.bin"),
            fetched.rstrip(),
            prompt("python -m ota_server devices"),
            run(checkout, "python -m ota_server devices", port).rstrip(),
        ]
    return "\n".join(lines)


def fleet(checkout: Path) -> str:
    """Return what a terminal shows of a fleet and of one of its devices."""
    shutil.rmtree(checkout / "ota_server" / "log")
    let_fleet_ask(checkout / "ota_server")
    commands = (
        "python -m ota_server devices",
        f"python -m ota_server devices {MAC}",
        "python -m ota_server devices --rejected",
    )
    return "\n\n".join(
        f"{prompt(command)}\n{run(checkout, command, DEFAULT_PORT).rstrip()}"
        for command in commands
    )


def let_fleet_ask(data_dir: Path) -> None:
    """Have the devices of FLEET ask a server in this process, in order of time."""
    now_ms = [0]
    logs = data_dir / "log"
    logs.mkdir()

    def clock_ms() -> int:
        return now_ms[0]

    clock.now_ms = clock_ms
    service = open_service(data_dir)
    server = OTAServer(("127.0.0.1", 0), service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    requests = sorted(FLEET, key=lambda request: request[1], reverse=True)
    started_ms = time.time_ns() // 1_000_000
    try:
        for mac, ago, version, fetches, way in requests:
            now_ms[0] = started_ms - ago * 1000
            path, fields, *names = WAYS[way]
            own = dict(zip(filter(None, names), (mac, version), strict=False))
            ask(server.server_port, path.format(mac=mac, version=version), {**fields, **own})
            if fetches:
                now_ms[0] += 1200
                ask(server.server_port, "/firmware.bin", own)
            while service.fleet.transfers.counts:  # its end is on record after its last byte
                time.sleep(0.01)
        now_ms[0] = started_ms - 90_000
        for _ in range(3):
            ask(
                server.server_port,
                "/version.txt",
                {"_br_mac_": "5c:cf:7f:11:9a:d0", "_br_fwv_": ""},
            )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        service.close()


def rollouts(checkout: Path) -> str:
    """Return what a terminal shows of a rollout that goes well, and of one that does not."""
    shutil.rmtree(checkout / "ota_server" / "log")
    ota = "python -m ota_server"
    options = "--soak 5s --apply-grace 3s --count-new"
    commands = [f"{ota} rollout start v1.1.0 {options}", f"{ota} rollout status"]
    commands += [f"{ota} rollout start v1.2.0 {options}", f"{ota} rollout status"]
    with served(checkout) as (port, _), polling(port):
        for version in ("v1.1.0", "v1.2.0"):
            (checkout / "app.bin").write_text(f"the image of {version}\n" * 1000)
            run(checkout, f"{ota} release publish app.bin --version {version}", port)
        time.sleep(3)
        shown = [run(checkout, commands[0], port)]
        wait_for(checkout, 1)
        shown.append(run(checkout, commands[1], port))
        wait_for(checkout, "done")
        shown.append(run(checkout, commands[2], port))
        wait_for(checkout, "halted")
        shown.append(run(checkout, commands[3], port))
    texts = (f"{prompt(each)}\n{text.rstrip()}" for each, text in zip(commands, shown, strict=True))
    return "\n\n".join(texts)


def wait_for(checkout: Path, end: str | int) -> None:
    """Wait until a rollout is in a state, or in a wave with some of its devices updated."""
    path = checkout / "ota_server" / "version" / "progress.json"
    give_up_at = time.monotonic() + 120
    while time.monotonic() < give_up_at:
        time.sleep(0.5)
        progress = json.loads(path.read_bytes()) if path.exists() else {"state": "", "wave": -1}
        if end == progress["state"] or (end == progress["wave"] and progress["counts"]["updated"]):
            time.sleep(2)
            return
    raise SystemExit(f"no {end}: {progress}")


@contextmanager
def polling(port: int) -> Iterator[None]:
    """Have a fleet of 400 devices poll; three in ten of them cannot boot v1.2.0."""
    versions = dict.fromkeys(range(400), "v1.0.1")
    is_over = threading.Event()

    def poll() -> None:
        while not is_over.is_set():
            for number, version in versions.items():
                fields = {"_br_mac_": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}
                fields["_br_fwv_"] = version
                address = f"127.0.1.{1 + number % 10}"  # ten shops
                told = ask(port, "/version.txt", fields, address)
                if told in ("v1.1.0", "v1.2.0") and told != version:
                    ask(port, "/firmware.bin", fields, address)
                    if told != "v1.2.0" or number % 10 > 2:
                        versions[number] = told

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def ask(port: int, path: str, fields: dict[str, str], address: str = "127.0.0.1") -> str:
    """Send one request as a device does, and return its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, source_address=(address, 0))
    connection.request("GET", path, headers={**fields, "Connection": "close"})
    content = connection.getresponse().read()
    connection.close()
    return content.decode("latin-1")


@contextmanager
def served(checkout: Path) -> Iterator[tuple[int, str]]:
    """Run the server of a checkout; yield its port and what it said at start."""
    command = [sys.executable, "-m", "ota_server.server", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=checkout, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    banner = ""
    try:
        for line in process.stdout:
            banner += line
            if "your own image" in line:  # its last one
                break
        found = re.search(r"http://\S+:(\d+)/", banner)
        assert found is not None, banner
        yield int(found[1]), neutral(banner, checkout, int(found[1]))
    finally:
        process.terminate()
        process.wait()


def run(checkout: Path, command: str, port: int) -> str:
    """Run a command of the README in a checkout; return what it printed."""
    command = command.replace(f":{DEFAULT_PORT}/", f":{port}/").replace("curl ", "curl -sS ")
    command = command.replace("python ", f"{sys.executable} ", 1)
    # On a terminal, as a person sees it: long lines are wrapped.
    typed = ["script", "-qec", f"stty cols {_COLUMNS}; {command}", "/dev/null"]
    done = subprocess.run(
        typed,
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode > 1:  # 1: something needs a person, such as a halted rollout
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return neutral(done.stdout.replace("\r\n", "\n"), checkout, port)


def environment() -> dict[str, str]:
    """Return the environment without another data directory."""
    return {name: value for name, value in os.environ.items() if name != "OTA_SERVER_DATA"}


def neutral(text: str, checkout: Path, port: int) -> str:
    """Return text without the path and the port that this run happened to have."""
    return text.replace(str(checkout), SHOWN_CHECKOUT).replace(f":{port}/", f":{DEFAULT_PORT}/")


def prompt(command: str) -> str:
    """Mark a command as typed."""
    return f"\0{command}\1"


def show_text(chromium: str, text: str, picture: Path) -> None:
    """Make a picture of a terminal that holds `text`."""
    lines = re.sub("[\0\1]", "", text).split("\n")
    width = round(max(map(len, lines)) * FONT_WIDTH + 2 * PADDING_X + 2 * FONT_WIDTH)
    height = round(len(lines) * LINE_HEIGHT + 2 * PADDING_Y)
    body = html.escape(text).replace("\0", "<b>$</b> <i>").replace("\1", "</i>")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><pre>{body}</pre>",
            encoding="utf-8",
        )
        shoot(chromium, page, picture, width, height)


def shoot(chromium: str, page: Path, picture: Path, width: int, height: int) -> None:
    """Have a page drawn into a PNG file."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=1000",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={picture}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    sys.exit(main())
