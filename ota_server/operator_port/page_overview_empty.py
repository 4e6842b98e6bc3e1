"""What pages show while there is nothing to show: the next command. I/O."""

from pathlib import Path

from ota_server.device_port.admission_status import read_serving
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, Node, element, joined
from ota_server.operator_port.pieces import link
from ota_server.operator_port.request_site import site_of
from ota_server.operator_port.site import Site
from ota_server.policy.targets import read_target
from ota_server.releases.inventory import releases
from ota_server.system.hints import hints

_EVERYWHERE = ("", "::", "0.0.0.0")
# Locally administered: no real device has it.
_EXAMPLE_MAC = "02:00:00:00:00:01"
_EXAMPLE_VERSION = "v1.0.0"


def device_port_url(site: Site, asked: Asked) -> str:
    """Return where devices reach the server, without a slash at the end; "": it does not run."""
    serving = read_serving(site.logs)
    if not serving.port:
        return ""
    host = serving.host
    if host in _EVERYWHERE:
        # By the name that led this browser here, devices in its network find the server too.
        said = (asked.request.get(b"host") or b"").decode("latin-1")
        here = site_of(f"http://{said}")
        host = "127.0.0.1" if here is None else here.host
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{serving.port}"


def no_device_yet(site: Site, asked: Asked, product: str = "") -> Node:
    """Return how the first device appears, with the one line that makes it."""
    url = device_port_url(site, asked)
    if not url:
        return (
            element("p", "No device is on record, and no server runs on this data directory."),
            element("pre", hints.paste("`serve`").strip("`")),
        )
    path = f"/{product}/version.txt" if product else "/version.txt"
    headers = f"-H '_br_mac_: {_EXAMPLE_MAC}' -H '_br_fwv_: {_EXAMPLE_VERSION}'"
    return (
        element("p", "No device is on record yet. This line is one, and it appears here at once:"),
        element("pre", f"curl {headers} {url}{path}"),
        element(
            "p",
            "A real device sends the same two headers: its MAC address and the version that it "
            "runs.",
            class_="quiet",
        ),
    )


def next_step(site: Site, product: str) -> Node:
    """Return what a product needs before its devices can be updated; None: nothing.

    Args:
        product: "" is the default one.
    """
    folder = site.folder_of(product)
    target = read_target(folder)
    if not _has_release(folder):
        commands = ["`release publish FILE --version v1.0.0`", "`release activate v1.0.0`"]
        words = "There is no release yet. Publish one on the page"
    elif target is None:
        commands = ["`release activate VERSION`"]
        words = "Devices are answered 503, for there is no target. Activate a release on the page"
    else:
        return None
    pasted = [hints.paste(each, product).strip("`") for each in commands]
    return element(
        "div",
        element("p", words, " ", link("/releases", "Releases"), ", or run:"),
        element("pre", joined(Html("\n"), pasted)),
        class_="note",
    )


def _has_release(folder: Path) -> bool:
    try:
        return bool(releases(folder))
    except OSError:
        return False
