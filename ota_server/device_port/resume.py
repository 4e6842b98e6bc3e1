"""Which download a request begins or continues. Pure."""

from ota_server.httpd.byterange import RangeSpec, from_byte_zero
from ota_server.model.device import RESTART_AFTER_MS, Device, Download, ran_for_a_day
from ota_server.model.version import same_version


def continued_download(
    known: Download | None,
    under_way: bool,
    ranges: tuple[RangeSpec, ...],
    honours_range: bool,
    now_ms: int,
) -> Download | None:
    """Return the download that a request for the image continues, or None if it begins one.

    No real client sends If-Range, and some fetch an image in many ranges, in parallel, or read byte
    0 again; so a request with Range keeps the release that its device began.

    Args:
        under_way: a transfer of that download is running.
        ranges: what the request asks for; () for a HEAD or a GET without Range.
        honours_range: its If-Range, if any, matches the release of `known`.
    """
    if known is None or not ranges or not honours_range:
        return None
    if from_byte_zero(ranges) and not under_way and now_ms - known.request_ms >= RESTART_AFTER_MS:
        return None
    return known


def recent_download(known: Download | None, now_ms: int) -> Download | None:
    """Return the download of a device if it was decided on under ten minutes ago.

    A device that fetches a release file by file, or by a name that it was told, gets all of it from
    one release, whatever is decided meanwhile.
    """
    is_recent = known is not None and now_ms - known.request_ms < RESTART_AFTER_MS
    return known if is_recent else None


def pinned_download(
    known: Download | None,
    under_way: bool,
    running: str,
    told: str | None,
    now_ms: int,
) -> Download | None:
    """Return the download whose signature a device wants; None if that of the offered image.

    Clients ask for it before, during or after the download, which may have taken long.

    Args:
        running: the release that it runs.
        told: the version that it was last told to run.
    """
    if known is None or under_way or now_ms - known.request_ms < RESTART_AFTER_MS:
        return known
    if told is None or same_version(running, known.version):
        return None
    return known if same_version(told, known.version) else None


def begun_download(
    device: Device | None, version: str, sha256: str, size: int, now_ms: int
) -> Download:
    """Return the download that a request begins or continues; attempts at one image are kept."""
    known = device.download if device is not None else None
    if device is None or known is None or known.sha256 != sha256 or ran_for_a_day(device, now_ms):
        return Download(version, sha256, size, now_ms)
    return known._replace(version=version, request_ms=now_ms)
