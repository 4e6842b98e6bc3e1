"""Documents that tell a device which version to run, and where its image is. Pure.

A path in them names the release, so that the digest that a device was told is that of the image
that it gets, whatever is decided meanwhile.
"""

import json

from ota_server.model.image_header import ImageHeader
from ota_server.model.version import meaning

ESPHOME_PATH = b"/manifest.json"
# Longer ones are cut by some clients.
MAX_URL = 300
NO_MD5 = "0" * 32
# Of images that say nothing of their chip: one for an ESP always does.
_OTHER_CHIPS = ("RP2040", "BK72xx", "RTL87xx")
# A version that is never higher than that of a device.
NO_FOTA_VERSION = "0.0.0"


def esphome_manifest(
    name: str, version: str, path: str, md5: str, header: ImageHeader | None, notes: str
) -> str:
    """Return the manifest of the `http_request` platform of ESPHome; all its values are strings.

    Args:
        path: of the image, beside the manifest, so that user and device in its URL are kept.
        header: what the image says of itself.
        notes: what is new in it, for people.
    """
    chips = _OTHER_CHIPS if header is None or header.chip is None else (header.chip,)
    ota = {"path": path, "md5": md5, **({"summary": notes} if notes else {})}
    builds = [{"chipFamily": chip, "ota": ota} for chip in chips]
    return json.dumps({"name": name, "version": version, "builds": builds})


def fota_document(kind: str, version: str, url: str) -> str:
    """Return the document of esp32FOTA, an array; its versions have no leading `v`."""
    return json.dumps([{"type": kind, "version": meaning(version), "url": url}])
