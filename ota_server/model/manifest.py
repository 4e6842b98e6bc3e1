"""Manifests: what `firmware_<version>.json` says about a published image. Pure.

An image that was copied in by hand has no manifest and is served all the same.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.parts import FileRecord, Part, PartRecord, is_file_path
from ota_server.model.timestamp import parse_time
from ota_server.model.version import is_version, meaning, same_version

MAX_MANIFEST_BYTES = 128 * 1024
MAX_NOTES = 16_000
_MANIFEST_NAME = re.compile(r"firmware_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.json")
_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._+\-*]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_REPORTED = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")


class BadManifest(ValueError):
    """A manifest cannot be used; the message says why, for the operator."""


class Manifest(NamedTuple):
    """What is on record about a release.

    Attributes:
        time: when it was published, RFC 3339.
        reports_as: what devices that run it report, if that is not its version.
        via: its stepping stone: the release that a device has to run first.
        direct_from: patterns of the versions that can skip the stepping stone.
        signature: the name of the file beside it that holds a detached signature.
        signature_sha256: of that file; None if there is none, or an old server published it.
        image: what the image says about itself, for people.
        filesystem, gzip: its parts (`model.parts`); None: it has no such part on record.
        files: what its image is an archive of; (): it is not one.
        reported_hashes: what devices report of the image, besides its SHA-256 and MD5.
        chip: that the image is for, as it says itself; None: it does not say.
        any_chip: it was published in spite of its chip: devices get it whatever they run on.
    """

    version: str
    sha256: str
    md5: str
    size: int
    time: str
    notes: str = ""
    reports_as: str | None = None
    via: str | None = None
    direct_from: tuple[str, ...] = ()
    signature: str | None = None
    image: str | None = None
    signature_sha256: str | None = None
    filesystem: PartRecord | None = None
    gzip: PartRecord | None = None
    files: tuple[FileRecord, ...] = ()
    reported_hashes: tuple[str, ...] = ()
    chip: str | None = None
    any_chip: bool = False

    def part(self, part: Part) -> PartRecord | None:
        """Return what is on record about a part; None: nothing."""
        return self.filesystem if part is Part.FILESYSTEM else self.gzip

    def as_fields(self) -> dict[str, Any]:
        """Return what is there, as JSON has it."""
        fields = {
            name: each for name, each in self._asdict().items() if each not in (None, (), False)
        }
        for part in Part:
            if part in fields:
                fields[part] = fields[part]._asdict()
        if self.files:
            fields["files"] = [each._asdict() for each in self.files]
        return fields


def manifest_name(version: str) -> str:
    """Return the name of the file in `firmware/` that holds the manifest of `version`."""
    return f"firmware_{version}.json"


def version_of_manifest_name(name: str) -> str | None:
    """Return the version in the name of a manifest, or None if it is not such a name."""
    match = _MANIFEST_NAME.fullmatch(name)
    return match[1] if match else None


def is_pattern(text: str) -> bool:
    """Return whether `text` is a pattern of versions: a version in which `*` is any text."""
    return _PATTERN.fullmatch(text) is not None


def is_reported_text(text: str) -> bool:
    """Return whether a device can report `text` as its version."""
    return _REPORTED.fullmatch(text) is not None


def format_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON that a person can read."""
    return format_object(manifest.as_fields())


def parse_manifest(content: bytes, version: str) -> Manifest:
    """Read the manifest of a version. Unknown fields are ignored.

    Raises:
        BadManifest: it is not a manifest, or is one of another version.
    """
    try:
        fields = parse_object(content)
    except ValueError as problem:
        raise BadManifest(str(problem)) from None
    if fields.get("version") != version:
        raise BadManifest(f"is of version {fields.get('version')!r:.80}, not {version}")
    try:
        return _manifest(fields)
    except (KeyError, TypeError, ValueError) as problem:
        raise BadManifest(f"{type(problem).__name__}: {problem}") from None


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    parse_time(_text(fields, "time"))
    via = _optional(fields, "via")
    if via is not None and not is_version(via):
        raise ValueError(f"via is not a version: {via[:40]!r}")
    reports_as = _optional(fields, "reports_as")
    if reports_as is not None and not is_reported_text(reports_as):
        raise ValueError(f"no device can report reports_as: {reports_as[:40]!r}")
    signed = None
    if fields.get("signature_sha256") is not None:
        signed = _matching(fields, "signature_sha256", _SHA256)
    patterns = fields.get("direct_from", [])
    if not isinstance(patterns, list) or not all(
        isinstance(pattern, str) and is_pattern(pattern) for pattern in patterns
    ):
        raise ValueError("direct_from is not a list of versions")
    return Manifest(
        version=fields["version"],
        sha256=_matching(fields, "sha256", _SHA256),
        md5=_matching(fields, "md5", _MD5),
        size=_size(fields),
        time=fields["time"],
        notes=_text(fields, "notes", ""),
        reports_as=reports_as,
        via=via,
        direct_from=tuple(patterns),
        signature=_optional(fields, "signature"),
        image=_optional(fields, "image"),
        signature_sha256=signed,
        filesystem=_part(fields, Part.FILESYSTEM),
        gzip=_part(fields, Part.GZIP),
        files=tuple(map(_file, fields.get("files", ()))),
        reported_hashes=_reported_hashes(fields),
        chip=_optional(fields, "chip"),
        any_chip=fields.get("any_chip") is True,
    )


def _reported_hashes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    hashes = fields.get("reported_hashes", [])
    if not isinstance(hashes, list) or not all(
        isinstance(each, str) and (_SHA256.fullmatch(each) or _MD5.fullmatch(each))
        for each in hashes
    ):
        raise ValueError("reported_hashes is not a list of hashes")
    return tuple(hashes)


def _part(fields: Mapping[str, Any], part: Part) -> PartRecord | None:
    record = fields.get(part)
    if record is None:
        return None
    return PartRecord(
        _matching(record, "sha256", _SHA256), _matching(record, "md5", _MD5), _size(record)
    )


def _file(fields: Mapping[str, Any]) -> FileRecord:
    path = _text(fields, "path")
    if not is_file_path(path):
        raise ValueError(f"a path is malformed: {path[:40]!r}")
    return FileRecord(path, _matching(fields, "sha256", _SHA256), _size(fields, least=0))


def _size(fields: Mapping[str, Any], least: int = 1) -> int:
    size = fields["size"]
    if type(size) is not int or not least <= size < 10**18:
        raise ValueError("size is not a number of bytes")
    return size


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields[name] if default is None else fields.get(name, default)
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _optional(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


def _matching(fields: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(fields, name)
    if not pattern.fullmatch(value):
        raise ValueError(f"{name} is malformed: {value[:40]!r}")
    return value


def next_stop(running: str, wanted: str, manifests: Mapping[str, Manifest]) -> str:
    """Return the release that a device should run next on its way to `wanted`.

    Args:
        running: the release that it runs, or what it reports.
        manifests: by the meaning of their versions.
    """
    stop = wanted
    for _ in range(len(manifests) + 1):
        manifest = manifests.get(meaning(stop))
        if manifest is None or manifest.via is None or _is_direct(running, manifest):
            return stop
        stop = manifest.via
    return stop  # a circle: only possible by hand, since `publish` refuses it


def _is_direct(running: str, manifest: Manifest) -> bool:
    assert manifest.via is not None
    if same_version(running, manifest.via) or same_version(running, manifest.version):
        return True
    return any(matches(running, pattern) for pattern in manifest.direct_from)


def matches(version: str, pattern: str) -> bool:
    """Return whether a version matches a pattern; both are compared by meaning."""
    text = meaning(version)
    first, *rest = meaning(pattern).split("*")
    if not rest:
        return text == first
    # Not as a regular expression: with many stars that could take forever on a device's text.
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.startswith(first) and text.endswith(last) and at + len(last) <= len(text)


def stepping_stone_problem(
    manifest: Manifest, others: Iterable[Manifest], images: Iterable[str]
) -> str:
    """Return what is wrong with the stepping stones to a release; "" if nothing is.

    Args:
        images: the versions that have an image.
    """
    manifests = {meaning(other.version): other for other in (*others, manifest)}
    there = set(map(meaning, images))
    at, way = manifest, [manifest.version]
    while at.via is not None:
        way.append(at.via)
        if meaning(at.via) in map(meaning, way[:-1]):
            return f"the stepping stones form a circle: {' -> '.join(reversed(way))}"
        if meaning(at.via) not in there:
            return f"there is no image of {at.via}, the stepping stone to {at.version}"
        following = manifests.get(meaning(at.via))
        if following is None:
            return ""
        at = following
    return ""
