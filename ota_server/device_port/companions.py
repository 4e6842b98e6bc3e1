"""What runs beside the server in its process: controllers, files, notices. I/O."""

import argparse
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ota_server.device_port.admin_socket import AdminSocket, say_where
from ota_server.device_port.admission_status import AdmissionFile
from ota_server.device_port.figures import FiguresSocket
from ota_server.device_port.live_figures import as_fields
from ota_server.device_port.notice_status import remove_notice_status
from ota_server.device_port.options import KEEP, MEBIBYTE
from ota_server.device_port.products import ProductPort
from ota_server.device_port.server import OTAServer
from ota_server.device_port.server_figures import ServerFigures
from ota_server.device_port.wiring import is_behind_proxy
from ota_server.httpd.sockets import why_acknowledgements_are_unknown
from ota_server.journal.files import most_bytes
from ota_server.journal.forget import ForgetRequests
from ota_server.policy.admin_address import forget_url
from ota_server.policy.hold import HoldLog
from ota_server.policy.situation import Serving
from ota_server.rollouts.keeper import (
    ADMIN_NAME,
    ADMIN_SOCKET,
    COMPLETION_UNKNOWN,
    KEEP_UNGROUPED,
    Keeper,
)
from ota_server.system import clock
from ota_server.system.children import reap_orphans
from ota_server.system.data_dir import log_dir

if TYPE_CHECKING:
    from ota_server.device_port.notices import Notices

log = logging.getLogger(__name__)


class Companions:
    """What runs beside the server in its process, and ends after it."""

    def __init__(
        self, arguments: argparse.Namespace, server: OTAServer, admin: AdminSocket | None
    ) -> None:
        """Make them, and add their chores to those of the server.

        Args:
            admin: for the controller of the default product: it answers operators.
        """
        unknown = why_acknowledgements_are_unknown(server.address_family)
        if unknown is not None:
            log.warning(
                "this system does not say what devices have received (SIOCOUTQ: %s): no download "
                "counts as complete, each keeps its slot for another minute, and rollouts count as "
                "with --buffering-proxy",
                unknown,
            )
        is_unknown = is_behind_proxy(arguments) or unknown is not None
        options = [COMPLETION_UNKNOWN] if is_unknown else []
        if arguments.unknown_devices == KEEP:
            options.append(KEEP_UNGROUPED)
        host, port = server.server_name, server.server_port
        most = most_bytes(arguments.journal_rotate, arguments.journal_files, arguments.journal_disk)
        serving = Serving(os.getpid(), clock.now_ms(), host, port, most * MEBIBYTE)
        self._server = server
        self._notices = _notices(arguments, server)
        self._companions: dict[str, _ProductCompanions] = {}
        self._admin, self._data_dir = admin, arguments.data_dir
        if admin is not None:
            say_where(self._data_dir, admin)
        self._make = partial(_ProductCompanions, self._notices, server, serving, options)
        logs = log_dir(arguments.data_dir)
        figures = ServerFigures(server, logs, serving.since_ms, clock.now_ms)
        self._figures = FiguresSocket(logs, lambda: as_fields(figures.now()))
        looking = figures.look_after, self._figures.look_after
        server.chores += [self._look_after, reap_orphans, *looking]
        self._look_after()
        if self._notices is not None:
            server.chores.append(self._notices.look_after)

    def _look_after(self) -> None:
        ports = {port.name: port for port in self._server.service.ports}
        chores = self._server.chores
        # One that was removed and added again is another port.
        gone = [name for name, each in self._companions.items() if ports.get(name) is not each.port]
        for name in gone:
            companions = self._companions.pop(name)
            chores[:] = [chore for chore in chores if chore not in companions.chores]
            companions.end()
        for name in ports.keys() - self._companions.keys():
            self._companions[name] = self._make(ports[name], None if name else self._admin)
            chores += self._companions[name].chores

    def end(self) -> None:
        """End the controllers, and delete the files that describe a running server."""
        self._figures.remove()
        untold = sum(companions.end() for companions in self._companions.values())
        untold += 0 if self._notices is None else self._notices.end()
        if self._admin is not None:
            self._admin.socket.close()
            forget_url(self._data_dir)
        if untold:
            log.warning(
                "notices that were not told: %d; what became of rollouts is told at the next start",
                untold,
            )


class _ProductCompanions:
    """What runs beside the server for one product.

    Attributes:
        port: of the product.
        chores: what is to be done for it; nothing once it has ended.
    """

    def __init__(
        self,
        notices: "Notices | None",
        server: OTAServer,
        serving: Serving,
        options: list[str],
        port: ProductPort,
        admin: AdminSocket | None,
    ) -> None:
        data_dir, service = port.data_dir, server.service
        started_ms = serving.since_ms
        inherited = () if admin is None else (admin.socket.fileno(),)
        if admin is not None:
            options = [*options, *_admin_options(admin)]
        attended = port.offers.attended
        self._keeper = Keeper(
            data_dir, port.policies, attended, started_ms, options, inherited=inherited
        )
        self._admission = AdmissionFile(log_dir(data_dir), partial(service.standing, port), serving)
        forget_requests = ForgetRequests(data_dir, service.fleet)
        hold_log = HoldLog(data_dir, port.policies)
        looking = self._keeper, forget_requests, self._admission, hold_log
        self.port = port
        self._is_over = False
        chores = [each.look_after for each in looking]
        self._notices = notices
        self._watch = None if notices is None else notices.watch(data_dir)
        if self._watch is not None:
            chores.append(self._watch.look_after)
        self.chores = [partial(self._do, each) for each in chores]

    def _do(self, chore: Callable[[], None]) -> None:
        # The server may be in the middle of a list of chores that has those of an ended one too:
        # its keeper would start a controller that nobody hears or ends.
        if not self._is_over:
            chore()

    def end(self) -> int:
        """End the controller, and delete the file that describes a running server.

        Returns:
            How many notices could not be told.
        """
        self._is_over = True
        self._keeper.end()
        self._admission.remove()
        if self._watch is None or self._notices is None:
            return 0
        refused = self._watch.look_again()
        self._notices.forget(self._watch)
        return refused


def _admin_options(admin: AdminSocket) -> list[str]:
    """Return the options by which a controller answers operators."""
    names = [f"{ADMIN_NAME}={name}" for name in admin.names]
    return [f"{ADMIN_SOCKET}={admin.socket.fileno()}", *names]


def _notices(arguments: argparse.Namespace, server: OTAServer) -> "Notices | None":
    if not arguments.notify_command and not arguments.notify_url:
        # A server that was killed may have left it.
        remove_notice_status(log_dir(arguments.data_dir))
        return None
    # Loaded here, since it takes memory that most servers do not need.
    from ota_server.device_port.notices import Notices

    journal = server.service.fleet.journal
    return Notices(arguments, lambda: journal.failing)
