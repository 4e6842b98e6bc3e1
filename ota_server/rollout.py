"""Which version a device should run, and which image a request for bytes gets. Pure."""

from typing import NamedTuple

from ota_server.byterange import RangeSpec, from_byte_zero
from ota_server.device import Download, Report
from ota_server.release import Target, same_version

# A device that reads byte 0 again this long after its last request is taken to start over: longer
# than any client's pause between retries, shorter than the time between two releases.
RESTART_AFTER_MS = 10 * 60 * 1000


class Decision(NamedTuple):
    """The version that a device is told to run, and the reason in one word."""

    version: str
    reason: str


def decide(report: Report, target: Target, is_sample: bool, peer_is_local: bool) -> Decision:
    """Decide which version the device should run.

    A version that equals the device's own in meaning is spelled as the device spells it: devices
    compare text, and `1.0` against `v1.0` would download for ever.
    """
    if is_sample and not peer_is_local:
        return Decision(report.firmware_version, "sample")
    if same_version(report.firmware_version, target.version):
        return Decision(report.firmware_version, "target")
    return Decision(target.version, "target")


def continued_download(
    known: Download | None,
    under_way: bool,
    ranges: tuple[RangeSpec, ...],
    honours_range: bool,
    now_ms: int,
) -> Download | None:
    """Return the download that a request for the image continues; None: it begins one.

    No real client sends If-Range, and some fetch one image in many ranges, in parallel, or read
    byte 0 again; so a Range keeps the release that its device began (DESIGN rule 3).

    Args:
        under_way: a transfer of that download is running at this moment.
        ranges: what the request asks for; none for a HEAD and for a GET without Range.
        honours_range: its If-Range, if any, matches the release of `known`.
    """
    if known is None or not ranges or not honours_range:
        return None
    if from_byte_zero(ranges) and not under_way and now_ms - known.request_ms >= RESTART_AFTER_MS:
        return None
    return known
