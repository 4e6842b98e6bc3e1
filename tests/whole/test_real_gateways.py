"""Real updaters of Linux gateways fetch signed bundles, check them and unpack a real image."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.support import TIMEOUT_SECONDS
from tests.support.real_clients import LARGE, MEBIBYTE, RealClientCase, needs, needs_images


class GatewayCase(RealClientCase):
    """A Linux gateway that takes signed bundles; it sends no device headers, so asks by name."""

    def setUp(self) -> None:
        super().setUp()
        self.key, self.certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        usage = ("keyUsage=digitalSignature", "extendedKeyUsage=emailProtection")
        extensions = [part for line in usage for part in ("-addext", line)]
        output = ["-keyout", self.key, "-out", self.certificate]
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
        self.run_client([*request, *extensions, *output])

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/firmware/firmware_v2.0.0.bin"


@needs_images
@needs("swupdate", "openssl")
class SwupdateTest(GatewayCase):
    def test_an_update_that_was_cut_is_resumed_and_installed(self):
        installed = self.folder / "installed.fd"
        self.put_image("v2.0.0", self.bundle(LARGE.image, installed))
        link = self.weak_link(MEBIBYTE)
        download = f"-r 3 -t 10 -u {self.url(link.port)}"
        command = ["swupdate", "-l", "5", "-H", "test:1.0", "-k", self.certificate, "-d", download]
        client = self.start_client(command)
        self.wait_for(link.is_silent.is_set, client)
        link.cut()
        output, _ = client.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(client.returncode, 0, output)
        self.assertIn("trying resume after", output)
        self.assertEqual(installed.read_bytes(), LARGE.image)

    def bundle(self, image: bytes, installed: Path) -> bytes:
        """Return a signed update that installs `image` as a file."""
        description = self.folder / "sw-description"
        description.write_text(
            f'''software = {{
              version = "v2.0.0";
              hardware-compatibility = [ "1.0" ];
              files: ({{
                filename = "image"; path = "{installed}"; sha256 = "{sha256(image).hexdigest()}";
              }});
            }}'''
        )
        signature = self.folder / "sw-description.sig"
        form = ["-outform", "DER", "-nosmimecap", "-binary", "-in", description, "-out", signature]
        signer = ["-signer", self.certificate, "-inkey", self.key]
        self.run_client(["openssl", "cms", "-sign", *form, *signer])
        files = {path.name: path.read_bytes() for path in (description, signature)}
        return cpio_archive({**files, "image": image})


def cpio_archive(files: Mapping[str, bytes]) -> bytes:
    """Return files as `cpio -H crc` writes them."""
    entries = []
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], start=1):
        mode, links = 0o100644, 1
        # inode, mode, uid, gid, links, mtime, size, device numbers, length of the name, sum
        numbers = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1)
        head = b"070702" + b"".join(b"%08X" % field for field in (*numbers, sum(content)))
        for part in (head + name.encode("ascii") + b"\0", content):
            entries.append(part + b"\0" * (-len(part) % 4))
    return b"".join(entries)


@needs_images
@needs("rauc", "mksquashfs", "unsquashfs", "openssl")
class RaucTest(GatewayCase):
    def test_a_bundle_is_downloaded_and_its_image_extracted(self):
        content = self.folder / "content"
        content.mkdir()
        (content / "image.fd").write_bytes(LARGE.image)
        (content / "manifest.raucm").write_text(
            "[update]\ncompatible=test\nversion=v2.0.0\n[image.rootfs]\nfilename=image.fd\n"
        )
        bundle = self.folder / "bundle.raucb"
        signer = [f"--cert={self.certificate}", f"--key={self.key}"]
        self.run_client(["rauc", *signer, "bundle", content, bundle])
        self.put_image("v2.0.0", bundle.read_bytes())
        extracted = self.folder / "extracted"
        keyring = f"--keyring={self.certificate}"
        self.run_client(["rauc", keyring, "extract", self.url(self.port), extracted])
        self.assertEqual((extracted / "image.fd").read_bytes(), LARGE.image)
