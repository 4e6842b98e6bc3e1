"""The loop breaker: a device that fetches one image again and again is told to wait. Pure.

Each download on record counts its attempts: how often the device fetched the whole image, or five
times its size in pieces. A device that then runs the release for a day has succeeded. After `retry`
the count begins again. A device that reports how its updates end waits by what it reports as well.
"""

from ota_server.model.action import Action, ActionState, wait_until_ms
from ota_server.model.device import FREE_ATTEMPTS, Download
from ota_server.model.version import is_sample, meaning, same_version
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Cause, Reason

HOUR_MS = 3_600_000
STUCK_ATTEMPTS = 10
_LONGEST_HOURS = 24
# No time ends the wait of a device that is stuck, but its operator may do so at any time.
_STUCK_SECONDS = 3600
# Over a link that breaks again and again, a device fetches more than one image; not its fault.
_MOST_SIZES = 5


def fetched(
    download: Download,
    bytes_sent: int,
    is_whole_reply: bool,
    now_ms: int,
    retry_ms: int | None = None,
) -> Download:
    """Return the download after one transfer of it has ended.

    Args:
        bytes_sent: as acknowledged by the device's side.
        is_whole_reply: the device has the whole reply, to a request with or without Range.
        retry_ms: when an operator last ran `retry` for the device.
    """
    if _is_lifted(download, retry_ms, now_ms):
        download = download._replace(attempts=0)
    total = download.fetched_bytes + bytes_sent
    is_whole = is_whole_reply and (bytes_sent == download.size or total >= download.size)
    if is_whole or total > _MOST_SIZES * download.size:
        return download._replace(attempts=download.attempts + 1, attempt_ms=now_ms, fetched_bytes=0)
    return download._replace(fetched_bytes=total)


def why_wait(
    mac: str,
    download: Download | None,
    release: str,
    policy: Policy,
    now_ms: int,
    image_sha256: str | None = None,
) -> Cause | None:
    """Return why a device has to wait before it may fetch a release again; None: it need not.

    After three whole downloads it waits for 1 h, then 2 h, 4 h ... 24 h; after ten, until the image
    changes or an operator runs `retry`.

    Args:
        download: what it began last.
        image_sha256: of the image, for a release without a manifest; None: it is not known.
    """
    if download is None or download.attempts < FREE_ATTEMPTS:
        return None
    if is_sample(download.size, download.sha256):
        return None  # people who try this server out fetch it again and again
    manifest = policy.manifests.get(meaning(release))
    sha256 = image_sha256 if manifest is None else manifest.sha256
    is_other = sha256 is not None and sha256 != download.sha256
    if is_other or not same_version(download.version, release):
        return None
    if _is_lifted(download, policy.retries.get(mac), now_ms):
        return None
    if download.attempts >= STUCK_ATTEMPTS:
        return Cause(Reason.STUCK, release, times=download.attempts)
    hours = min(1 << (download.attempts - FREE_ATTEMPTS), _LONGEST_HOURS)
    until_ms = min(download.attempt_ms, now_ms) + hours * HOUR_MS
    if now_ms >= until_ms:
        return None
    return Cause(Reason.REPEATED, release, times=download.attempts, until_ms=until_ms)


def why_wait_after(
    mac: str,
    action: Action | None,
    release: str,
    policy: Policy,
    now_ms: int,
    image_sha256: str | None = None,
) -> Cause | None:
    """Return why a device that reports how its updates end has to wait for another one, or None.

    Args:
        action: its newest update.
        release, image_sha256: as in `why_wait`.
    """
    if action is None:
        return None
    action = action._replace(since_ms=min(action.since_ms, now_ms))  # a clock was ahead
    began = action.image
    if action.state is ActionState.CANCELING:
        return Cause(Reason.CANCELING, began.version)
    manifest = policy.manifests.get(meaning(release))
    sha256 = image_sha256 if manifest is None else manifest.sha256
    if sha256 is None and same_version(began.version, release):
        sha256 = began.sha256
    until_ms = wait_until_ms(action, sha256 or "", policy.retries.get(mac))
    if now_ms >= until_ms:
        return None
    return Cause(Reason.UPDATE_FAILED, release, times=action.failures, until_ms=until_ms)


def _is_lifted(download: Download, retry_ms: int | None, now_ms: int) -> bool:
    """Return whether `retry` was run after the last attempt, and so ends its count.

    An attempt later than now is from a clock that was ahead: any `retry` on record lifts it.
    """
    attempt_ms = download.attempt_ms
    return retry_ms is not None and retry_ms >= (attempt_ms if attempt_ms <= now_ms else 0)


def wait_seconds(cause: Cause, now_ms: int) -> int | None:
    """Return when a device that has to wait should ask again; None: it does not wait for that."""
    if cause.reason is Reason.STUCK:
        return _STUCK_SECONDS
    if cause.reason is not Reason.REPEATED or cause.until_ms is None:
        return None
    # Rounded up: a device that came back a moment too early would be refused once more.
    return min(max(1, -(-(cause.until_ms - now_ms) // 1000)), _LONGEST_HOURS * 3600)
