"""/uploads/PRODUCT/ID: what an image says of itself, and the form that publishes it. I/O."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.manifest import MAX_NOTES
from ota_server.model.refusal import Refused
from ota_server.model.version import is_version
from ota_server.operations.change_release import no_progress, publish_image
from ota_server.operations.inspect_image import ImageReport, inspect
from ota_server.operations.uploads import Upload
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import acted, page, see_other
from ota_server.operator_port.html import Html, Node, element, with_lines
from ota_server.operator_port.pieces import (
    check_box,
    choice,
    facts,
    form,
    more,
    notes,
    number,
    of_product,
    release_url,
    releases_url,
    text_field,
)
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentence, sentences
from ota_server.operator_port.site import NotHere, Site
from ota_server.operator_port.upload import upload_url
from ota_server.releases.inventory import releases
from ota_server.releases.publish_request import PublishRequest

_FIELDS = ("version", "notes", "reports_as", "via", "direct_from", "force")
# What commands say to do, which a form does by a tick or a field.
_ADVICE = "; --force publishes it anyway"
_FIELD_NAMES = {
    "--version VERSION": "the version below",
    "--reports-as": "the field of what devices report",
    "--direct-from": "the field of direct versions",
    "--via": "the field of the stepping stone",
    "--notes": "the notes",
    "--force": "a tick below",
}


class _NamedUpload(NamedTuple):
    """The upload that a URL names; `product` "" is the default one."""

    product: str
    data_dir: Path
    id: str


def _named(site: Site, asked: Asked) -> _NamedUpload:
    return _NamedUpload(*site.named_product(asked.parts["product"]), asked.parts["id"])


@contextmanager
def _using(site: Site, named: _NamedUpload) -> Iterator[Upload]:
    """Use the upload, which is not deleted meanwhile.

    Raises:
        NotHere: it is not there any longer.
    """
    with ExitStack() as stack:
        try:
            upload = stack.enter_context(site.uploads.using(named.id, named.data_dir))
        except Refused as problem:
            raise NotHere(sentence(str(problem))) from None
        yield upload


def _show(site: Site, asked: Asked) -> Reply:
    """Show the image under the version that was asked for, else under the one that it says."""
    named = _named(site, asked)
    typed = {name: asked.one(name).strip() for name in _FIELDS}
    return _page(site, asked, named, typed, ())


def _page(
    site: Site, asked: Asked, named: _NamedUpload, typed: Mapping[str, str], problems: Sequence[str]
) -> Reply:
    with _using(site, named) as upload:
        version = typed["version"] if is_version(typed["version"]) else None
        report = inspect(named.data_dir, upload.path, version, upload.name or "the file")
    title = f"Publish {report.version or upload.name or 'an image'}{of_product(named.product)}"
    content = (
        element("h1", title),
        notes(map(_as_form_says, sentences(problems)), "problem"),
        notes(map(_as_form_says, sentences(_remarks(report, bool(problems)))), "note warn"),
        facts(_facts(upload, report)),
        _form(asked, named, upload, report, typed)
        if asked.operator.may_act
        else may_not_act("publish it"),
    )
    status = HTTPStatus.CONFLICT if problems else HTTPStatus.OK
    return page(site, asked, title, content, status=status)


def _remarks(report: ImageReport, is_refused: bool) -> list[str]:
    """Return what an operator should know; what was just refused is said above."""
    found = [*report.remarks]
    if not is_refused:
        found = [*report.refused, *report.doubts, *found]
    if report.version_problem:
        found.insert(0, report.version_problem)
    if report.is_there:
        found.insert(0, f"{report.version} is published already, with these bytes")
    return [each.removesuffix(_ADVICE) for each in found]


def _as_form_says(text: str) -> str:
    for option, words in _FIELD_NAMES.items():
        text = text.replace(option, words)
    return text


def _facts(upload: Upload, report: ImageReport) -> list[tuple[str, Node]]:
    return [
        ("File", upload.name or "without a name"),
        ("Size", f"{number(report.size)} bytes"),
        ("SHA-256", element("code", report.sha256)),
        ("What the image is", report.image or "of an unknown format"),
        ("It says that it is version", report.said_version),
        ("Of the project", report.project),
        ("For the chip", report.chip),
        ("The same bytes as", ", ".join(report.same_as)),
    ]


def _form(
    asked: Asked, named: _NamedUpload, upload: Upload, report: ImageReport, typed: Mapping[str, str]
) -> Node:
    url, notes_typed = upload_url(upload), typed["notes"].replace("\r\n", "\n")
    version = typed["version"] or report.version or ""
    fields = (
        text_field("Version", "version", version, required=True, maxlength=64, size=24),
        element(
            "label",
            "Notes: what is new, for people",
            element(
                "textarea",
                with_lines(notes_typed),
                name="notes",
                rows=4,
                cols=60,
                maxlength=MAX_NOTES,
            ),
        ),
    )
    return (
        form(
            asked,
            f"{url}/publish",
            [element("p", each) for each in fields],
            _rare_fields(named, typed),
            element("p", _force(typed)) if report.doubts or typed["force"] else None,
            element(
                "p",
                element("button", "Publish: no device is offered it yet", class_="main"),
                class_="actions",
            ),
        ),
        form(asked, f"{url}/discard", element("p", element("button", "Discard the file"))),
    )


def _rare_fields(named: _NamedUpload, typed: Mapping[str, str]) -> Html:
    there = [each.version for each in releases(named.data_dir) if each.image is not None]
    fields = (
        choice(
            "Stepping stone: a release that devices have to run before",
            "via",
            [("", "none"), *((each, each) for each in there)],
            typed["via"],
        ),
        text_field(
            "Directly from these versions, such as v1.9.*, with blanks between them",
            "direct_from",
            typed["direct_from"],
            size=40,
        ),
        text_field(
            "Devices report it as, if that is not its version",
            "reports_as",
            typed["reports_as"],
            maxlength=64,
            size=40,
        ),
    )
    return more(
        "Stepping stone, and what devices report",
        [element("p", each) for each in fields],
        is_open=any(typed[name] for name in ("via", "direct_from", "reports_as")),
    )


def _force(typed: Mapping[str, str]) -> Html:
    return check_box("Publish it in spite of that", "force", "1", typed["force"] == "1")


def _publish(site: Site, asked: Asked) -> Reply:
    named = _named(site, asked)
    typed = {name: asked.typed(name) for name in _FIELDS}
    with _using(site, named) as upload:
        try:
            published = publish_image(named.data_dir, _request(upload, typed), no_progress)
        except Refused as problem:
            said = str(problem).removesuffix(_ADVICE)
            said = said.replace(str(upload.path), upload.name or "the file")
            return _page(site, asked, named, typed, (said,))
    site.uploads.discard(named.id)
    url = release_url(named.product, published.version)
    return acted(site, asked, url, published.warnings, named.product)


def _request(upload: Upload, typed: Mapping[str, str]) -> PublishRequest:
    return PublishRequest(
        source=str(upload.path),
        version=typed["version"],
        notes=typed["notes"].replace("\r\n", "\n"),
        reports_as=typed["reports_as"] or None,
        via=typed["via"] or None,
        direct_from=tuple(typed["direct_from"].replace(",", " ").split()),
        is_forced=typed["force"] == "1",
    )


def _discard(site: Site, asked: Asked) -> Reply:
    named = _named(site, asked)
    with _using(site, named):
        pass  # it has to be there
    site.uploads.discard(named.id)
    return see_other(releases_url(named.product))


ROUTES = (
    Route("GET", "/uploads/{product}/{id}", Access.READ, _show),
    Route("POST", "/uploads/{product}/{id}/publish", Access.ACT, _publish),
    Route("POST", "/uploads/{product}/{id}/discard", Access.ACT, _discard),
)
