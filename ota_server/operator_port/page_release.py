"""/releases/PRODUCT/VERSION: what is on record of a release, and what can be done with it. I/O."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.manifest import Manifest
from ota_server.model.version import is_version
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.release_facts import ReleaseFacts, contents, find_release_facts
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import devices_url
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element, with_lines
from ota_server.operator_port.page_release_pieces import release_states, runs_it, told_it
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import (
    facts as fact_list,
)
from ota_server.operator_port.pieces import (
    link,
    live,
    notes,
    number,
    of_product,
    release_url,
    url_with,
)
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.reach import devices_of, linked_number
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentences
from ota_server.operator_port.site import DEFAULT, NotHere, Site
from ota_server.releases.inventory import find_release
from ota_server.releases.remarks import remarks
from ota_server.system.files import sha256_of

_BUTTONS = {
    "activate": ("Activate for the whole fleet", "button"),
    "withdraw": ("Withdraw", "button"),
    "reinstate": ("Undo the withdrawal", "button"),
    "remove": ("Remove", "button"),
}


class NamedRelease(NamedTuple):
    """The release that a URL names; `product` "" is the default one."""

    product: str
    data_dir: Path
    facts: ReleaseFacts

    @property
    def url(self) -> str:
        """Its page."""
        return release_url(self.product, self.facts.version)

    @property
    def title(self) -> str:
        """Its version, and of which product it is."""
        return f"{self.facts.version}{of_product(self.product)}"


def named_release(site: Site, asked: Asked) -> NamedRelease:
    """Return the release that the path of a request names.

    Raises:
        NotHere: there is no such product or release.
        Refused, OSError: a file cannot be used or read.
    """
    name, version = asked.parts["product"], asked.parts["version"]
    data_dir = site.folder_of(name)
    product = "" if data_dir == site.data_dir else name
    no_release = NotHere(f"There is no release {version[:70]!r}.")
    if not (data_dir / "firmware").is_dir() or not is_version(version):
        raise no_release
    if find_release(data_dir / "firmware", version) is None:
        raise no_release
    return NamedRelease(product, data_dir, find_release_facts(data_dir, version))


def _show(site: Site, asked: Asked) -> Reply:
    release = named_release(site, asked)
    facts = release.facts
    warnings = [*remarks(release.data_dir, facts.release)]
    if facts.problem:
        warnings.insert(0, f"its files are not as they should be: {facts.problem}")
    manifest = facts.release.manifest
    content = (
        element("h1", f"Release {release.title}"),
        live(
            "state",
            "releases rollouts devices",
            element("p", release_states(facts)),
            notes(sentences(_why_withdrawn(facts)), "note warn"),
            notes(sentences(warnings), "note warn"),
            fact_list(_reach(site, release)),
        ),
        _buttons(release) if asked.operator.may_act else may_not_act("change releases"),
        element("h2", "Notes") if manifest and manifest.notes else None,
        element("p", with_lines(manifest.notes), class_="lines")
        if manifest and manifest.notes
        else None,
        element("h2", "On record"),
        fact_list(_record(release, site.now_ms())),
    )
    return page(site, asked, f"Release {release.title}", content)


def _why_withdrawn(facts: ReleaseFacts) -> list[str]:
    if facts.withdrawn_time is None and facts.withdrawn_reason is None:
        return []
    when = f" at {facts.withdrawn_time}" if facts.withdrawn_time else ""
    why = f": {facts.withdrawn_reason}" if facts.withdrawn_reason else ""
    return [f"it was withdrawn{when}{why}"]


def counted_link(site: Site, wanted: DeviceFilter) -> Node:
    """Return how many devices a filter lets through, with a link to them."""
    return linked_number(devices_of(site, wanted), devices_url(wanted))


def _reach(site: Site, release: NamedRelease) -> list[tuple[str, Node]]:
    return [
        ("Devices that run it", counted_link(site, runs_it(release.product, release.facts))),
        ("Devices told it last", counted_link(site, told_it(release.product, release.facts))),
        ("In use as", "; ".join(release.facts.named_by)),
    ]


def _buttons(release: NamedRelease) -> Html:
    facts = release.facts
    buttons: list[Node] = []
    if "activate" in facts.can:
        fields = [("product", release.product or DEFAULT), ("version", facts.version)]
        url = url_with("/rollouts/new", fields)
        buttons = [link(url, "Roll it out in waves", class_="button main"), " "]
    for name, (words, class_) in _BUTTONS.items():
        if name in facts.can:
            buttons += [link(f"{release.url}/{name}", words, class_=class_), " "]
    return element("p", buttons, class_="actions")


def _record(release: NamedRelease, now_ms: int) -> Iterator[tuple[str, Node]]:
    facts = release.facts
    manifest, image = facts.release.manifest, facts.release.image
    yield "Size", f"{number(facts.size)} bytes" if facts.size else None
    yield "What the image is", facts.image or "of an unknown format"
    if manifest is None:
        yield "Published", "no: the image was copied in by hand, so nothing is on record"
        if image is not None:
            yield "SHA-256 of the file", element("code", sha256_of(image))
    else:
        yield from _of_manifest(release.product, manifest, now_ms)
    yield "File", None if image is None else element("code", Path(image.path).name)
    yield "Signature", facts.signature_name


def _of_manifest(product: str, manifest: Manifest, now_ms: int) -> Iterator[tuple[str, Node]]:
    yield "Published", time_of(manifest.time, now_ms)
    yield "SHA-256", element("code", manifest.sha256)
    yield "MD5", element("code", manifest.md5)
    yield "For the chip", manifest.chip
    yield "Given to any chip", "yes: it was published in spite of its chip" * manifest.any_chip
    yield "Devices report it as", manifest.reports_as
    if manifest.via is not None:
        yield "After the stepping stone", link(release_url(product, manifest.via), manifest.via)
    yield "Directly from", ", ".join(manifest.direct_from)
    if manifest.signature_sha256 is not None:
        yield "SHA-256 of the signature", element("code", manifest.signature_sha256)
    yield from contents(manifest)


ROUTES = (Route("GET", "/releases/{product}/{version}", Access.READ, _show),)
