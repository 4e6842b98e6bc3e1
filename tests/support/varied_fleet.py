"""A fleet of two products in which there is something of everything, also of hostile text."""

import json
from pathlib import Path
from urllib.parse import quote

from tests.support.client import Client
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import ask_all, make_data_dir

# What only escaping makes harmless; a version is printable ASCII, a label may hold more.
HOSTILE_VERSION = "\"'><script>alert(1)</script>`hold`"
HOSTILE_LABEL = "<img src=x onerror=alert(1)>\"'&é"
FORMULA_LABEL = '=HYPERLINK("http://x","y")'
HOSTILE_ID = '/"><svg onload=alert(1)>'
PLUG = "plug"
PLUGS, STANDARD = 7, 60
ALL = PLUGS + STANDARD + 1


def prepare_varied(data_dir: Path) -> None:
    """Write what operators decided, before the server starts: NEW is the target."""
    make_data_dir(data_dir / "products" / PLUG)
    version = data_dir / "version"
    (version / "version.txt").write_text(NEW)
    labels = {mac_of(1): "kitchen", mac_of(2): HOSTILE_LABEL, mac_of(3): FORMULA_LABEL}
    (version / "labels.json").write_text(json.dumps(labels))
    (version / "groups").mkdir()
    members = "".join(f"{mac_of(each)}\n" for each in range(10))
    (version / "groups" / "beta.txt").write_text(members)
    (version / "pins.json").write_text(
        json.dumps({"devices": {mac_of(each): {"version": OLD} for each in (5, 6, 7)}})
    )
    stopped = {"v1.9.0": {"state": "aborted", "instead_of": NEW}}
    (version / "stopped.json").write_text(json.dumps(stopped))


def come_varied(port: int) -> None:
    """Have all devices ask once."""
    versions = (OLD, NEW, "1.0.0", "v1.9.0", "v1.10.0", NEW)
    ask_all(port, {mac_of(at): versions[at % len(versions)] for at in range(STANDARD)})
    ask_all(port, {mac_of(4): HOSTILE_VERSION})
    path = f"/{PLUG}/version.txt"
    ask_all(port, {f"02:00:00:01:00:{at:02x}": OLD for at in range(PLUGS)}, path)
    with Client(port) as client:
        client.request(f"/DEFAULT/controller/v1/{quote(HOSTILE_ID, safe='')}", {})
        assert client.answer().status == 200
