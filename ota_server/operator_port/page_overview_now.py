"""What happens now, on the overview: downloads, what went wrong, what needs a person. I/O."""

from collections.abc import Sequence

from ota_server.device_port.figures import read_figures
from ota_server.device_port.live_figures import LiveFigures, RunningDownload
from ota_server.model.identity import name_of, product_of
from ota_server.model.quantity import approximate_size, count_of
from ota_server.model.refusal import BadPolicy, Misused, Refused
from ota_server.operations.device_index import IndexedDevice
from ota_server.operations.fleet_overview import gatherers_of, overview
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_columns import name_cell, words_of
from ota_server.operator_port.pieces import (
    condition_of,
    device_url,
    link,
    percent,
    table,
    when,
    with_code,
)
from ota_server.operator_port.sentences import sentences
from ota_server.operator_port.site import Site
from ota_server.policy.fleet_status import FleetWarning
from ota_server.system.hints import hints

_MOST_DOWNLOADS = 10
# A server that is busy must not hold up the page.
_FIGURES_SECONDS = 0.5


def downloads_part(site: Site, product: str | None) -> Html:
    """Return the downloads that run now, with how far each is."""
    figures = read_figures(site.logs, _FIGURES_SECONDS)
    words, listed = "The server does not answer, so this is not known.", list[RunningDownload]()
    if figures is not None:
        words = _downloads_words(figures)
        listed = [each for each in figures.downloads if product in (None, product_of(each.key))]
    rows = [_download(each, site.now_ms()) for each in listed[:_MOST_DOWNLOADS]]
    headings = ("Device", "Version", "Progress", "Since")
    return element(
        "section",
        element("h2", "Downloads that run now"),
        element("p", words, class_=None if listed else "quiet"),
        table(headings, rows) if rows else None,
        id="downloads",
        data_live="devices",
        # No stream tells how far a download is.
        data_poll="2" if rows else None,
    )


def _downloads_words(figures: LiveFigures) -> str:
    if not figures.running:
        return "No download runs now."
    words = f"{count_of(figures.running, 'transfer')} to devices"
    slots = figures.slots
    if slots is not None:
        words += f"; {slots.downloading:,} of {slots.limit:,} download slots are taken"
        words += f", and {count_of(slots.waiting, 'device')} wait for one" * bool(slots.waiting)
    return f"{words}."


def _download(running: RunningDownload, now_ms: int) -> Sequence[Node]:
    name = name_of(running.key)
    sent, size = running.sent_bytes, running.size
    done = f"{percent(sent, size)} of {approximate_size(size)}"
    bar = element("progress", value=str(sent), max=str(max(size, 1)), aria_label=done)
    what = f"{running.version} {running.file}".strip()
    return (
        link(device_url(product_of(running.key), name), name, class_="mono"),
        what,
        (bar, element("small", done)),
        when(running.since_ms, now_ms),
    )


def lately_part(found: Sequence[IndexedDevice], now_ms: int) -> Html:
    """Return the devices that failed or fell silent, the newest first."""
    headings = ("Device", "Label", "State", "Since", "Why")
    rows = [
        (
            name_cell(each),
            each.label or "-",
            condition_of(each.condition),
            when(each.since_ms, now_ms),
            words_of(each),
        )
        for each in found
    ]
    return table(headings, rows, "No device failed or fell silent.")


def warnings_part(site: Site, product: str | None) -> Node:
    """Return what is not as it should be, as `status` says it; what needs a person first."""
    root, is_one = site.data_dir, product is not None
    try:
        folder = site.folder_of(product) if product else root
        found = overview(gatherers_of(folder, is_one=is_one), counts_devices=False)
    except (Misused, Refused, BadPolicy, OSError) as problem:
        return element("p", _told(problem), class_="problem")
    listed = [(name, each) for name, status in found.items() for each in status.warnings]
    if not listed:
        return None
    return element("ul", [_warning(*each) for each in listed], class_="warnings")


def _warning(product: str, warning: FleetWarning) -> Html:
    of = f"{product}: " if product else ""
    (text,) = sentences([hints.paste(warning.text, product)])
    remedy = hints.paste(warning.remedy, product)
    kind = "note bad" if warning.needs_person else "note warn"
    return element(
        "li",
        element("strong", of, with_code(text)),
        (" ", with_code(remedy)) if remedy else None,
        class_=kind,
    )


def _told(problem: Exception) -> Node:
    if isinstance(problem, OSError):
        return f"{problem.filename}: {problem.strerror}"
    return with_code(hints.paste(str(problem)))
