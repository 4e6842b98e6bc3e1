"""Publishing a release by the API: the image is the body of the request. I/O.

It goes to the disk piece by piece. The checks are those of `release publish`.
"""

from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ota_server.httpd.reply import Reply
from ota_server.httpd.taken import TakenConnection
from ota_server.operations.change_release import no_progress, publish_image
from ota_server.operations.release_facts import find_release_facts
from ota_server.operator_port.api_operation import (
    BYTES,
    FORCE,
    Body,
    Given,
    Operation,
    QueryField,
    Success,
    refusals_as_conflicts,
    reply,
)
from ota_server.operator_port.api_releases import known_fields, release_url
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.problems import Problem
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import Site
from ota_server.operator_port.statuses import answered_by
from ota_server.operator_port.upload import RequestBody
from ota_server.policy import audit
from ota_server.releases.inventory import find_release
from ota_server.releases.publish_request import PublishRequest

# They stand in the first line of the request, which is bounded: a character may take twelve there.
_MOST_NOTES = 500


def _publish(site: Site, given: Given) -> Reply:
    """Have the body read.

    Raises:
        TakesOver: always, unless the request is wrong as it is.
    """
    folder = site.folder_of(given.product)
    if not given.asked.request.content_length:
        raise Problem(HTTPStatus.BAD_REQUEST, "The image has to be the body of the request.")
    raise answered_by(site, given.asked, partial(_take, site, given, folder))


def _take(site: Site, given: Given, folder: Path, taken: TakenConnection) -> Reply:
    size, version = given.asked.request.content_length, given.path["version"]
    upload = site.uploads.receive(folder, version, size, RequestBody(taken, size).pieces)
    try:
        with (
            refusals_as_conflicts(),
            audit.acting_as(given.asked.operator.name),
            site.uploads.using(upload.id, folder),
        ):
            return _published(site, given, folder, str(upload.path))
    finally:
        site.uploads.discard(upload.id)


def _published(site: Site, given: Given, folder: Path, source: str) -> Reply:
    said, version = given.query, given.path["version"]
    is_new = find_release(folder / "firmware", version) is None
    request = PublishRequest(
        source=source,
        version=version,
        notes=said.get("notes", ""),
        reports_as=said.get("reports_as"),
        via=said.get("via"),
        direct_from=tuple(said.get("direct_from", ())),
        is_forced=said.get("force", False),
    )
    done = publish_image(folder, request, no_progress)
    facts = find_release_facts(folder, version)
    content: dict[str, Any] = {
        "release": known_fields(site, given.product, [facts])[0],
        "lines": done.lines,
        "warnings": done.warnings,
    }
    if not is_new:
        return reply(content)
    return reply(content, HTTPStatus.CREATED, ("Location", release_url(given.product, version)))


_REPORTED = {
    "type": "string",
    "pattern": "^[!-~](?:[ -~]{0,62}[!-~])?$",
    "x-rule": "what a device can report: 1 to 64 printable ASCII characters",
}
_PATTERN = {
    "type": "string",
    "pattern": "^[A-Za-z0-9*][A-Za-z0-9._+*-]{0,63}$",
    "x-rule": "a version, or a pattern of versions such as v1.1.*",
}
_DONE = reference("Published")
OPERATIONS = (
    Operation(
        "PUT",
        "/releases/{product}/{version}",
        Access.ACT,
        "publishRelease",
        "Publish an image",
        _publish,
        Success(
            HTTPStatus.CREATED,
            "It is published, and can be read; no device is offered it yet.",
            _DONE,
            fields={"Location": "The path of the release."},
        ),
        also=(Success(HTTPStatus.OK, "It was there; what is on record may have changed.", _DONE),),
        description="The checks are those of `release publish`: 409 says what speaks against it. "
        "The same bytes under the same version change only what is on record.",
        query=(
            QueryField(
                "notes", {"type": "string", "maxLength": _MOST_NOTES}, "What is new, for people."
            ),
            QueryField("reports_as", _REPORTED, "What devices report that run it."),
            QueryField("via", reference("Version"), "The stepping stone to it."),
            QueryField(
                "direct_from",
                {"type": "array", "items": _PATTERN, "maxItems": 20},
                "Versions that may skip the stepping stone.",
            ),
            FORCE,
        ),
        body=Body(
            {"type": "string", "format": "binary", "minLength": 1}, "The bytes of the image.", BYTES
        ),
        takes_body=True,
    ),
)
