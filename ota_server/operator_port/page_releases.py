"""/releases: what can be given to devices, and where a new image is dropped. I/O."""

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import approximate_size
from ota_server.operations.device_index import IndexAway
from ota_server.operations.release_facts import ReleaseFacts, ReleaseList, list_releases
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import devices_url
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_release_pieces import (
    ReleaseReach,
    all_spellings,
    release_states,
    reported_by,
    runs_it,
    short,
    told_it,
)
from ota_server.operator_port.page_rollout_pieces import time_of
from ota_server.operator_port.pieces import (
    Heading,
    form,
    form_token,
    link,
    live,
    notes,
    number,
    release_url,
    table,
    url_with,
    when,
)
from ota_server.operator_port.products_shown import product_ways, products_meant
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.reach import linked_number
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentences
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.operator_port.upload import upload_url

_HEADINGS = (
    Heading("Version"),
    Heading("State"),
    Heading("Run it", is_number=True, title="devices that report this version"),
    Heading("Told last", is_number=True, title="devices that got it as their last answer"),
    Heading("Size", is_number=True),
    Heading("Published"),
    Heading("SHA-256"),
    Heading("Image"),
    Heading("Notes"),
)
_WAITING = (
    Heading("File"),
    Heading("Size", is_number=True),
    Heading("Sent"),
    Heading("Discard", is_hidden=True),
)
_MOST_NOTES = 60


def _show(site: Site, asked: Asked) -> Reply:
    products = products_meant(site, asked)
    content = (
        element("h1", "Releases"),
        product_ways(site, asked, "/releases"),
        [_of_product(site, asked, product) for product in products],
        None if asked.operator.may_act else may_not_act("publish, activate or roll out a release"),
    )
    return page(site, asked, "Releases", content)


def _of_product(site: Site, asked: Asked, product: str) -> Node:
    name = product or DEFAULT
    heading = f"Product {product}" if product else "Default product"
    found = _releases(site, product)
    reach = _reach(site, product, found)
    rows = [_row(product, each, reach, site.now_ms()) for each in found.releases]
    problems = []
    if found.target_problem:
        problems.append(f"{found.target_problem}; activate a release to set the target")
    if found.strays:
        problems.append(
            f"not served, by their names: {', '.join(found.strays[:3])}; an image is called "
            "firmware_VERSION.bin"
        )
    return element(
        "section",
        element("h2", heading) if len(site.products) > 1 else None,
        live(
            f"releases-{name}",
            "releases rollouts",
            notes(sentences(problems), "note warn"),
            table(_HEADINGS, rows, _none_yet(asked)),
        ),
        _changes(site, asked, product, found) if asked.operator.may_act else None,
    )


def _changes(site: Site, asked: Asked, product: str, found: ReleaseList) -> Node:
    """Return what whoever may act can do here."""
    return (
        _actions(product, found),
        _waiting(site, asked, product),
        _upload_form(asked, product, len(site.products) > 1),
    )


def _none_yet(asked: Asked) -> str:
    below = ": drop the file of a build below" if asked.operator.may_act else ""
    return f"There is no release yet{below}."


def _releases(site: Site, product: str) -> ReleaseList:
    data_dir = site.folder_of(product)
    if not (data_dir / "firmware").is_dir():
        return ReleaseList((), None, "", ())
    return list_releases(data_dir)


def _reach(site: Site, product: str, found: ReleaseList) -> ReleaseReach | None:
    """Return how many devices the releases have reached; None: there is no index now."""
    names = [name for each in found.releases for name in reported_by(each)]
    try:
        return ReleaseReach(*site.index.by_release(product, all_spellings(names)))
    except IndexAway:
        return None


def _row(
    product: str, facts: ReleaseFacts, reach: ReleaseReach | None, now_ms: int
) -> tuple[Node, ...]:
    manifest = facts.release.manifest
    runs = None if reach is None else reach.runs(facts)
    told = None if reach is None else reach.were_told(facts)
    return (
        link(release_url(product, facts.version), facts.version),
        release_states(facts),
        linked_number(runs, devices_url(runs_it(product, facts))),
        linked_number(told, devices_url(told_it(product, facts))),
        approximate_size(facts.size) if facts.size else "-",
        "copied in by hand" if manifest is None else time_of(manifest.time, now_ms),
        element("code", short(manifest.sha256)) if manifest else "-",
        facts.image or "of an unknown format",
        _first_words(manifest.notes) if manifest else "",
    )


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_NOTES else f"{line[: _MOST_NOTES - 1]}…"


def _actions(product: str, found: ReleaseList) -> Node:
    if not found.releases:
        return None
    fields = [("product", product or DEFAULT)]
    back_url = url_with("/releases/rollback", fields)
    has_previous = any("previous" in each.states for each in found.releases)
    return element(
        "p",
        link(url_with("/rollouts/new", fields), "Start a rollout", class_="button"),
        " ",
        link(back_url, "Go back to the previous target", class_="button") if has_previous else None,
        class_="actions",
    )


def _waiting(site: Site, asked: Asked, product: str) -> Node:
    """Return the images that were sent and are not published."""
    waiting = site.uploads.waiting(site.folder_of(product))
    if not waiting:
        return None
    rows = [
        (
            link(upload_url(each), each.name or each.id),
            f"{number(each.size)} bytes",
            when(each.sent_ms, site.now_ms()),
            form(asked, f"{upload_url(each)}/discard", element("button", "Discard")),
        )
        for each in waiting
    ]
    return element("h3", "Sent, and not published yet"), table(_WAITING, rows)


def _upload_form(asked: Asked, product: str, is_several: bool) -> Html:
    url = url_with("/releases/upload", [("product", product or DEFAULT)])
    whose = ""
    if is_several:
        whose = f" of product {product}" if product else " of the default product"
    return element(
        "form",
        form_token(asked),
        element(
            "div",
            element(
                "label",
                f"Drop the file of a build{whose} here, or choose it",
                element("input", type="file", name="image", required=True),
            ),
            element("progress", hidden=True, value="0", max="1"),
            element("output", role="status"),
            element("p", element("button", "Send it", class_="main")),
            element(
                "p",
                "Nothing is published yet: the next page shows what the image says of itself.",
                class_="quiet",
            ),
            class_="drop",
        ),
        method="post",
        action=url,
        enctype="multipart/form-data",
        data_upload=url,
    )


ROUTES = (Route("GET", "/releases", Access.READ, _show),)
