"""Real updaters of Linux gateways take signed bundles by URL, check them and install images."""

import os
import subprocess
import unittest
from pathlib import Path

from tests.support import MAC, TIMEOUT_SECONDS
from tests.support.gateways import GatewayCase, SwuCase
from tests.support.real_clients import LARGE, MEBIBYTE, needs, needs_images, needs_packages

# A mount namespace of one's own: as root, or where users may have namespaces.
UNSHARE = ("unshare", "--mount", *(("--map-root-user",) if os.geteuid() else ()))
SYSTEM_CONF = """
[system]
compatible=test
bootloader=noop
statusfile={folder}/status
mountprefix={folder}/mnt
[keyring]
path={folder}/certificate.pem
[slot.rootfs.0]
device={folder}/slot-a
type=raw
bootname=A
[slot.rootfs.1]
device={folder}/slot-b
type=raw
bootname=B
"""
RAUC_ON_A_BUS_OF_ITS_OWN = """
[D-BUS Service]
Name=de.pengutronix.rauc
Exec={folder}/serve
"""
RAUC_SERVES = """#!/bin/sh
export DBUS_SYSTEM_BUS_ADDRESS=$DBUS_SESSION_BUS_ADDRESS
exec rauc -c {folder}/system.conf --override-boot-slot=A service
"""


def may_mount() -> bool:
    """Return whether this user may mount something where nobody else sees it."""
    try:
        return not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@needs_images
@needs("swupdate", "openssl")
@needs_packages("swugenerator")
class SwupdateTest(SwuCase):
    def setUp(self) -> None:
        super().setUp()
        self.installed = self.folder / "installed.fd"
        self.give(self.bundle(LARGE.image, self.installed), "v2.0.0")

    def command(self, options: str) -> list[str | Path]:
        return ["swupdate", "-l", "5", "-H", "test:1.0", "-k", self.certificate, "-d", options]

    def test_an_update_that_was_cut_is_resumed_and_installed(self):
        self.assert_updated(self.install_over_a_weak_link)
        self.assertEqual(self.installed.read_bytes(), LARGE.image)

    def install_over_a_weak_link(self) -> None:
        link = self.weak_link(MEBIBYTE)
        client = self.start_client(self.command(f"-r 3 -t 10 -u {self.url('v1.0.0', link.port)}"))
        self.wait_for(link.is_silent.is_set, client)
        link.cut()
        output, _ = client.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(client.returncode, 0, output)
        self.assertIn("trying resume after", output)
        (resumed,) = self.records(event="begin", status=206)
        self.assertGreater(resumed["range_start"], 0)

    def test_one_that_says_who_it_is_by_basic_installs_the_release(self):
        url = f"http://127.0.0.1:{self.port}/firmware.bin"
        self.run_client(self.command(f"-a {MAC}:- -u {url}"))
        self.assertEqual(self.installed.read_bytes(), LARGE.image)
        row = self.device()
        self.assertEqual((row["firmware_version"], row["target_version"]), ("-", "v2.0.0"))


@needs_images
@needs("rauc", "mksquashfs", "unsquashfs", "openssl", "dbus-run-session")
class RaucTest(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        content = self.folder / "content"
        content.mkdir()
        (content / "image.img").write_bytes(LARGE.image)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=test\nversion=v2.0.0\n[image.rootfs]\nfilename=image.img\n"
        )
        bundle = self.folder / "bundle.raucb"
        signer = [f"--cert={self.certificate}", f"--key={self.key}"]
        self.run_client(["rauc", *signer, "bundle", content, bundle])
        self.give(bundle, "v2.0.0")

    @unittest.skipUnless(os.geteuid() == 0, "only root may mount a bundle")
    def test_a_bundle_is_installed_by_its_url_into_the_other_slot(self):
        self.assert_updated(self.install)
        self.assertEqual((self.folder / "slot-b").read_bytes(), LARGE.image)
        self.assertEqual((self.folder / "slot-a").read_bytes(), b"\0" * len(LARGE.image))

    def install(self) -> None:
        for slot in ("slot-a", "slot-b"):
            (self.folder / slot).write_bytes(b"\0" * len(LARGE.image))
        (self.folder / "mnt").mkdir()
        (self.folder / "system.conf").write_text(SYSTEM_CONF.format(folder=self.folder))
        serve = self.folder / "serve"
        serve.write_text(RAUC_SERVES.format(folder=self.folder))
        serve.chmod(0o755)
        # The bus starts the service when `rauc install` calls it, so nothing has to wait for it.
        services = self.folder / "dbus-1" / "services"
        services.mkdir(parents=True)
        service = RAUC_ON_A_BUS_OF_ITS_OWN.format(folder=self.folder)
        (services / "de.pengutronix.rauc.service").write_text(service)
        system_bus = 'DBUS_SYSTEM_BUS_ADDRESS=$DBUS_SESSION_BUS_ADDRESS exec rauc install "$0"'
        run = ["dbus-run-session", "--", "sh", "-c", system_bus, self.url("v1.0.0")]
        self.run_client(run, {"XDG_DATA_HOME": str(self.folder)})

    def test_a_bundle_is_extracted(self):
        extracted = self.folder / "extracted"
        keyring = f"--keyring={self.certificate}"
        self.run_client(["rauc", keyring, "extract", self.url("v1.0.0"), extracted])
        self.assertEqual((extracted / "image.img").read_bytes(), LARGE.image)


@needs_images
@needs("mender", "mender-artifact")
@unittest.skipUnless(may_mount(), "this user may not mount anything")
class MenderTest(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.installed = self.folder / "root" / "image.fd"
        content = {"image.fd": LARGE.image, "filename": b"image.fd", "permissions": b"644"}
        content["dest_dir"] = bytes(self.installed.parent)
        for name, each in content.items():
            (self.folder / name).write_bytes(each)
        files = [part for name in content for part in ("-f", self.folder / name)]
        kind = ["module-image", "-T", "single-file", "-t", "test", "-n", "v2.0.0"]
        artifact = self.folder / "v2.0.0.mender"
        self.run_client(["mender-artifact", "write", *kind, "-o", artifact, *files])
        self.give(artifact, "v2.0.0")

    def test_an_artifact_is_installed_by_its_url(self):
        self.assert_updated(self.install)
        self.assertEqual(self.installed.read_bytes(), LARGE.image)
        self.assertIn("v2.0.0", self.mender("show-artifact"))

    def install(self) -> None:
        for folder in ("data", "etc"):
            (self.folder / folder).mkdir()
        (self.folder / "data" / "device_type").write_text("device_type=test\n")
        (self.folder / "etc" / "artifact_info").write_text("artifact_name=v1.0.0\n")
        self.mender("install", self.url("v1.0.0"))
        self.mender("commit")

    def mender(self, *arguments: str) -> str:
        """Run the client, which looks for what it runs in /etc/mender and nowhere else."""
        script = 'mount --bind "$0" /etc/mender && exec mender --no-syslog --data "$@"'
        where = [self.folder / "etc", self.folder / "data"]
        return self.run_client([*UNSHARE, "sh", "-c", script, *where, *arguments])
