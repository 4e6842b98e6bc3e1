"""hawkBit's DDI: devices that poll, are pointed at an update, and report how it ended.

An update is held back by showing no link to it, never by refusing its download, which SWUpdate
takes for a failed update. What a device has begun to work on stays on offer until it is closed, or
until the device was told to cancel it.
"""

import json
import re
from http import HTTPStatus
from typing import Any, NamedTuple

from ota_server.device_port.actions import Actions
from ota_server.device_port.asked_for import AskedFor
from ota_server.device_port.caller import Caller
from ota_server.device_port.ddi_messages import (
    DdiPath,
    Hrefs,
    artifact,
    cancel_order,
    deployment,
    file_name_of,
    parse_feedback,
    parse_version,
    poll_message,
)
from ota_server.device_port.dialects import HAWKBIT
from ota_server.device_port.downloads import Downloads
from ota_server.device_port.methods import wrong_method
from ota_server.device_port.poll_interval import poll_seconds
from ota_server.httpd import reply
from ota_server.httpd.http1 import Request, field_lines
from ota_server.httpd.reply import Peer, Reply
from ota_server.httpd.trusted_proxies import origin_of
from ota_server.model.action import Action, ActionState
from ota_server.model.device import Report
from ota_server.model.identity import device_key
from ota_server.releases.store import NoImage, NotNow

_JSON = field_lines((("Content-Type", "application/json"), ("Cache-Control", "no-store")))
_ROUTE = re.compile(
    r"(deploymentBase|installedBase|cancelAction)/([1-9][0-9]{0,9})(/feedback)?"
    r"|softwaremodules/([0-9a-f]{64})/artifacts(?:/([!-.0-~]{1,100}))?"
)
_MD5_ENDING = ".MD5SUM"


class _Call(NamedTuple):
    """One request of a device."""

    request: Request
    key: str
    hrefs: Hrefs
    peer: Peer
    may_wait: bool


class Ddi:
    """Answers the devices of one product that speak the DDI. Safe for use by many threads."""

    def __init__(
        self,
        product: str,
        actions: Actions,
        downloads: Downloads,
        poll_interval_seconds: float,
    ) -> None:
        self._product = product
        self._actions = actions
        self._downloads = downloads
        self._poll_interval_seconds = poll_interval_seconds

    def respond(
        self, request: Request, path: DdiPath, identity: str, peer: Peer, may_wait: bool
    ) -> Reply | None:
        """Answer a device; None: there is nothing under its path.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        # Once devices have tokens (TargetToken, GatewayToken), they are compared here.
        key = device_key(self._product, identity)
        call = _Call(request, key, Hrefs(origin_of(request, peer), path), peer, may_wait)
        if not path.rest:
            return wrong_method(request) or self._poll(call)
        if path.rest == "configData":
            return wrong_method(request, "PUT", "POST") or self._take_attributes(call)
        route = _ROUTE.fullmatch(path.rest)
        if route is None:
            return None
        kind, number, feedback, sha256, file_name = route.groups()
        if feedback:
            is_cancel = kind == "cancelAction"
            return wrong_method(request, "POST") or self._take_feedback(
                call, int(number), is_cancel
            )
        wrong = wrong_method(request)
        if wrong is not None:
            return wrong
        try:
            if sha256 is not None:
                return self._send(call, sha256, file_name)
            return self._describe(call, kind, int(number))
        except NoImage:
            return None
        except NotNow:
            return reply.later("The image is not ready yet.")

    def _poll(self, call: _Call) -> Reply:
        result = self._actions.poll(call.key, call.peer, call.may_wait)
        links = {} if result.action is None else _link(result.action, call.hrefs)
        if result.is_first:
            # Once: for SWUpdate one that stays starves updates, for Zephyr it is a tight loop.
            links["configData"] = call.hrefs.to("configData")
        seconds = poll_seconds(call.key, self._poll_interval_seconds, self._actions.load)
        answer = _json(poll_message(seconds, links))
        answer.needs_record = result.needs_record
        return answer

    def _describe(self, call: _Call, kind: str, number: int) -> Reply | None:
        """Answer what a link of a poll points at."""
        device = self._actions.device(call.key)
        action = None if device is None else device.action
        if action is None or action.id != number:
            return None
        if kind == "cancelAction":
            is_order = action.state is ActionState.CANCELING
            return _json(cancel_order(action)) if is_order else None
        has_it = action.state is ActionState.SUCCEEDED
        if not (action.is_live if kind == "deploymentBase" else has_it):
            return None
        described = self._artifact(call, action)
        return _json(deployment(action, self._product, described))

    def _artifact(self, call: _Call, action: Action) -> dict[str, Any]:
        image = self._actions.image(action, call.peer, call.may_wait)
        return artifact(image, file_name_of(action.image.version), call.hrefs)

    def _send(self, call: _Call, sha256: str, file_name: str | None) -> Reply | None:
        """Answer a request for an image, its MD5, or the list of what there is."""
        device = self._actions.device(call.key)
        action = None if device is None else device.action
        if device is None or action is None or sha256 != action.image.sha256:
            return None
        if action.state in (ActionState.FAILED, ActionState.CANCELED):
            return None
        if file_name is None:
            return _json([self._artifact(call, action)])
        if file_name.endswith(_MD5_ENDING):
            image = self._actions.image(action, call.peer, call.may_wait)
            plain = file_name.removesuffix(_MD5_ENDING)
            return reply.text(HTTPStatus.OK, f"{image.md5}  {plain}\n")
        caller = Caller(
            Report(call.key, device.firmware_version, device.updater), HAWKBIT, call.request.path
        )
        asked = AskedFor(pinned=self._actions.download(action))
        return self._downloads.respond(call.request, caller, call.peer, call.may_wait, asked)

    def _take_feedback(self, call: _Call, number: int, is_cancel: bool) -> Reply | None:
        said, address = parse_feedback(call.request.body), call.peer.address
        is_known = self._actions.feed_back(call.key, number, said, address, is_cancel)
        return _empty() if is_known else None

    def _take_attributes(self, call: _Call) -> Reply:
        version = parse_version(call.request.body)
        self._actions.take_version(call.key, version, call.peer.address)
        return _empty()


def _link(action: Action, hrefs: Hrefs) -> dict[str, str]:
    """Return the one link that the state of an action asks for."""
    if action.is_live:
        return {"deploymentBase": hrefs.to(f"deploymentBase/{action.id}?c={action.id}")}
    if action.state is ActionState.CANCELING:
        return {"cancelAction": hrefs.to(f"cancelAction/{action.id}")}
    if action.state is ActionState.SUCCEEDED:
        return {"installedBase": hrefs.to(f"installedBase/{action.id}")}
    return {}


def _json(value: Any) -> Reply:
    content = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Reply(HTTPStatus.OK, _JSON, content, content_length=len(content))


def _empty() -> Reply:
    """Return the only reply that SWUpdate, rauc-hawkbit-updater and Zephyr take: 200."""
    return Reply(HTTPStatus.OK, _JSON)
