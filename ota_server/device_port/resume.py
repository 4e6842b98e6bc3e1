"""Which download a request continues. Pure."""

from ota_server.httpd.byterange import RangeSpec, from_byte_zero
from ota_server.model.device import RESTART_AFTER_MS, Download
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
