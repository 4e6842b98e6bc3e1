"""Products: each kind of device has its own releases, target, rollouts, groups and pins. I/O.

The default product is served under plain paths, another one under `/<name>/…`. What is one for all
of them, such as the journal and the limits on downloads, is handed in.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.actions import Actions
from ota_server.device_port.admission import Admission
from ota_server.device_port.asked_for import asked_for
from ota_server.device_port.beside import Beside, is_beside
from ota_server.device_port.caller import Caller, nameless_caller
from ota_server.device_port.checks import CHECK_PATH, Checks
from ota_server.device_port.ddi import Ddi
from ota_server.device_port.dialects import without_variant
from ota_server.device_port.downloads import Downloads, NoFile
from ota_server.device_port.named_images import NamedImages
from ota_server.device_port.offers import Offers
from ota_server.device_port.poll_interval import DEFAULT_SECONDS, retry_seconds
from ota_server.device_port.signatures import Signatures
from ota_server.device_port.told import MD5_PATH, SHA256_PATH, TOLD_PATHS, Telling
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.model.device import Report
from ota_server.model.updater import Updater
from ota_server.model.version import UNKNOWN_VERSION, meaning
from ota_server.policy import audit
from ota_server.policy.files import PolicyFiles
from ota_server.policy.fit import chip_of
from ota_server.policy.policy import Policy, known_chip
from ota_server.releases.hashing import Hasher
from ota_server.releases.store import Store
from ota_server.system.data_dir import product_at, product_dir, products_and_links
from ota_server.system.new_files import make_folder

SIGNATURE_PATH = b"/firmware.bin.sig"
UNRECORDED_PATHS = (SIGNATURE_PATH, MD5_PATH, SHA256_PATH)
# So many products are looked after at once, 0.1 ms each; of more, the next ones the next time.
_LOOKED_AFTER = 32

log = logging.getLogger(__name__)


class Common(NamedTuple):
    """What all products of a server share."""

    fleet: DeviceTable
    clock_ms: Callable[[], int]
    hasher: Hasher
    admission: Admission | None = None
    is_development: bool = False
    keeps_ungrouped: bool = False
    poll_interval_seconds: float = DEFAULT_SECONDS


class ProductPort:
    """What answers the devices of one product.

    Attributes:
        name: "" is the default product.
        data_dir: of the product.
        turn: the last turn in which it was asked.
    """

    turn = 0

    def __init__(self, data_dir: Path, store: Store, policies: PolicyFiles, common: Common) -> None:
        self.name = product_at(data_dir)
        self.data_dir = data_dir
        self.store, self.policies = store, policies
        self._fleet = fleet = common.fleet
        clock_ms = common.clock_ms
        self.offers = Offers(store, policies, fleet, common.admission, common.is_development)
        self.checks = Checks(self.offers, policies, fleet, clock_ms)
        self.downloads = Downloads(store, policies, self.offers, fleet, clock_ms)
        self.named_images = NamedImages(store, self.offers, clock_ms)
        self.signatures = Signatures(store, policies, self.offers, fleet, clock_ms)
        self.beside = Beside(store, self.offers, fleet, clock_ms)
        self.told = Telling(
            self.name,
            store,
            policies,
            self.offers,
            fleet,
            self.downloads.promises,
            clock_ms,
        )
        actions = Actions(store, policies, self.offers, fleet, clock_ms)
        self._poll_interval_seconds = common.poll_interval_seconds
        self.ddi = Ddi(self.name, actions, self.downloads, common.poll_interval_seconds)

    def recognised(self, caller: Caller) -> Caller:
        """Return what a device says, with the release that it runs, and the chip, as far as known.

        One that says no version runs the release whose hash it says. Tasmota's version also names
        the variant, which counts only where a release is reported with it. The chip is that of the
        image with the hash, else of the version, else of the last image that it reported.
        """
        report = caller.report
        version, updater = report.firmware_version, report.updater
        if updater is None:
            return caller
        policy = self.policies.current()
        by_hash = self._release_by_hash(caller, policy)
        if version == UNKNOWN_VERSION:
            version = by_hash or version
        elif version not in policy.aliases:
            version = without_variant(version)
        chip = None if by_hash is None else self._chip(by_hash, policy)
        chip = chip or self._chip(version, policy) or self._chip_on_record(report.key)
        if chip is not None:
            updater = Updater(updater.family, updater.free_space, chip)
        return caller._replace(report=Report(report.key, version, updater))

    def _release_by_hash(self, caller: Caller, policy: Policy) -> str | None:
        hashes = [each for each in (caller.sketch_sha256, caller.sketch_md5) if each]
        for each in hashes:
            if each in policy.hashes:
                return policy.hashes[each]
        return self.store.version_of_hash(hashes) if hashes else None

    def _chip(self, version: str, policy: Policy) -> str | None:
        release = policy.release_of(version)
        key = meaning(release)
        if key in policy.manifests:
            return chip_of(version, policy)
        return known_chip(self.store.chip(release)) if key in policy.images else None

    def _chip_on_record(self, key: str) -> str | None:
        updater = self._fleet.updater(key) if key else None
        return None if updater is None else updater.chip

    def respond(self, request: Request, caller: Caller, peer: Peer, may_wait: bool) -> Reply | None:
        """Answer a device; None: there is no such path.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        answer = self._answer(request, caller, peer, may_wait)
        if answer is not None and answer.retry_seconds is not None:
            base_seconds, admission = self._poll_interval_seconds, self.offers.admission
            load = 0.0 if admission is None else admission.load
            said, key = answer.retry_seconds, caller.report.key
            answer.retry_seconds = retry_seconds(said, key, base_seconds, load)
        return answer

    def _answer(self, request: Request, caller: Caller, peer: Peer, may_wait: bool) -> Reply | None:
        path = caller.path
        if path == CHECK_PATH:
            return self.checks.respond(caller.report, peer, may_wait)
        if path == SIGNATURE_PATH:
            return self.signatures.respond(caller.report, peer, may_wait)
        if path in TOLD_PATHS:
            return self.told.respond(request, caller, peer, may_wait)
        asked = asked_for(path)
        if asked is None:
            return None
        if caller.family.sends_version and caller.mode == "version" and not asked.path:
            return self.checks.respond(caller.report, peer, may_wait, in_field=True)
        if is_beside(caller, asked):
            return self.beside.respond(request, caller, asked, peer, may_wait)
        try:
            return self.downloads.respond(request, caller, peer, may_wait, asked)
        except NoFile:
            return None

    def respond_to_anybody(
        self, request: Request, path: bytes, peer: Peer, may_wait: bool
    ) -> Reply:
        """Answer a client that is no known device.

        Raises:
            NotHashed: as `respond`.
        """
        if path in TOLD_PATHS:
            return self.told.respond_to_anybody(request, path, peer, may_wait)
        caller = self.recognised(nameless_caller(request, path))
        return self.named_images.respond_to_anybody(request, caller, peer, may_wait)


def open_product(data_dir: Path, common: Common) -> ProductPort:
    """Open the data directory of a product; missing folders are made.

    Raises:
        OSError: it cannot be read or written.
    """
    for folder in ("version", "firmware", "log"):
        make_folder(data_dir / folder)
    audit.prepare(data_dir)
    store = Store(data_dir, hasher=common.hasher)
    return ProductPort(data_dir, store, PolicyFiles(data_dir, common.keeps_ungrouped), common)


def is_path(path: bytes) -> bool:
    """Return whether each device finds something under a path, whatever its release holds."""
    asked = asked_for(path)
    is_image = asked is not None and not asked.path
    return is_image or path in (CHECK_PATH, SIGNATURE_PATH, *TOLD_PATHS)


def is_of_product(path: bytes) -> bool:
    """Return whether a path would be found if there were a product of its first name."""
    rest = path[1:].partition(b"/")[2]
    return rest.startswith(b"d/") or (bool(rest) and is_path(b"/" + rest))


class Products:
    """The products of a server besides the default one, as their folders come and go.

    Attributes:
        ports: by name, as in a path. Replaced as a whole: threads may read it meanwhile.
        withdrawals: how often an open image of one of them was found to be withdrawn.
    """

    def __init__(self, root: Path, common: Common) -> None:
        """Open those that are there.

        Args:
            root: the data directory of the server.
        """
        self._root = root
        self._common = common
        self._names: list[str] = []  # of those that are open
        self._failed: dict[str, str] = {}
        self._links: list[str] = []
        self._turn = 0
        self._next = 0  # which one is looked after first
        self.withdrawals = 0
        self.ports: dict[bytes, ProductPort] = {}
        self.look_for()

    def look_for(self) -> None:
        """Open the products that were added since, and leave those that were removed."""
        names, links = products_and_links(self._root)
        if links != self._links:
            for name in set(links) - set(self._links):
                link = product_dir(self._root, name)
                log.error("%s is a link, which is not followed: it is not served", link)
            self._links = links
        if names == self._names:
            return
        ports, failed = dict(self.ports), {}
        for name in names:
            if name.encode("ascii") not in ports:
                try:
                    port = open_product(product_dir(self._root, name), self._common)
                except OSError as problem:
                    failed[name] = str(problem)
                    if self._failed.get(name) != failed[name]:
                        log.error("product %s cannot be served: %s", name, problem)
                    continue
                port.offers.attended.groups = frozenset()  # until its controller is heard
                ports[name.encode("ascii")] = port
                log.info("product %s is served under /%s/", name, name)
        for name in self._names:
            if name not in names and name.encode("ascii") in ports:
                # What a download of it still sends stays open until that has ended.
                ports.pop(name.encode("ascii")).store.close()
                log.warning("product %s was removed: its paths are 404", name)
        self.ports, self._failed = ports, failed
        self._names = [name for name in names if name not in failed]

    def look_after(self) -> None:
        """Do the work of all products that no request should wait for, a part of them at once."""
        self.look_for()
        problem: Exception | None = None
        ports = [*self.ports.values()][self._next : self._next + _LOOKED_AFTER]
        self._next += _LOOKED_AFTER
        if self._next >= len(self.ports):
            self._next = 0
        for port in ports:
            before = port.offers.withdrawals
            try:
                port.store.look_after()
                port.offers.look_after()
            except Exception as met:  # the others are looked after all the same
                problem = met
            self.withdrawals += port.offers.withdrawals - before
        if problem is not None:
            raise problem

    def begin_turn(self) -> None:
        """Look at files once until the next turn, not for each request."""
        self._turn += 1

    def port(self, name: bytes) -> ProductPort | None:
        """Return what answers a request to a product; None: there is none of that name.

        A turn costs nothing for the products that nobody asks in it.
        """
        port = self.ports.get(name)
        if port is not None and port.turn != self._turn:
            port.turn = self._turn
            port.offers.begin_turn()
        return port

    def close(self) -> None:
        """Close all files, and end the hashing thread of the server."""
        for port in self.ports.values():
            port.store.close()
        self._common.hasher.close()
