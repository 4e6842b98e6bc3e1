"""Detached signatures: checked at publication by the tools that make them, and served."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import unittest
import unittest.mock
from pathlib import Path

from ota_server.device_port.resume import pinned_download
from ota_server.model.device import RESTART_AFTER_MS, Download
from ota_server.model.refusal import Misused, Refused
from ota_server.releases.publish import Published, publish
from ota_server.releases.publish_request import PublishRequest
from tests.support import DEVICE, ROOT, Client, DataDirCase, ServerCase

NOW_MS = 1_800_000_000_000
IMAGE = b"an image that is signed " * 100
TOOLS = ("minisign", "signify-openbsd", "openssl")


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


class SignedCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = self.data_dir / "signing"
        self.folder.mkdir()
        self.image = self.folder / "app.bin"
        self.image.write_bytes(IMAGE)
        self.signature = self.folder / "app.bin.sig"
        self.public, self.secret = self.folder / "key.pub", self.folder / "key.sec"

    def sign_by_minisign(self, *options: str) -> None:
        run("minisign", "-G", "-W", "-p", self.public, "-s", self.secret)
        run("minisign", "-S", *options, "-s", self.secret, "-m", self.image, "-x", self.signature)

    def sign_by_signify(self) -> None:
        run("signify-openbsd", "-G", "-n", "-p", self.public, "-s", self.secret)
        run("signify-openbsd", "-S", "-s", self.secret, "-m", self.image, "-x", self.signature)

    def sign_by_openssl(self, *algorithm: str) -> None:
        run("openssl", "genpkey", "-algorithm", *algorithm, "-out", self.secret)
        run("openssl", "pkey", "-in", self.secret, "-pubout", "-out", self.public)
        if algorithm == ("ed25519",):
            how = ("pkeyutl", "-sign", "-rawin", "-inkey", self.secret, "-in", self.image)
            run("openssl", *how, "-out", self.signature)
        else:
            how = ("dgst", "-sha256", "-sign", self.secret)
            run("openssl", *how, "-out", self.signature, self.image)

    def publish(self, version: str = "v1", **options: object) -> Published:
        options.setdefault("signature", str(self.signature))
        order = PublishRequest(str(self.image), version, **options)
        return publish(self.data_dir, order, NOW_MS, lambda done, size: None)

    def checked(self) -> Published:
        return self.publish(verify_key=str(self.public))

    def assert_nothing_published(self) -> None:
        self.assertEqual(list((self.data_dir / "firmware").iterdir()), [])


@unittest.skipUnless(all(map(shutil.which, TOOLS)), f"needs {' and '.join(TOOLS)}")
class CheckedTest(SignedCase):
    def signers(self) -> dict[str, object]:
        return {
            "minisign": self.sign_by_minisign,
            "minisign, legacy": lambda: self.sign_by_minisign("-l"),
            "signify": self.sign_by_signify,
            "openssl, Ed25519": lambda: self.sign_by_openssl("ed25519"),
            "openssl, RSA": lambda: self.sign_by_openssl("rsa"),
            "openssl, ECDSA": lambda: self.sign_by_openssl(
                "ec", "-pkeyopt", "ec_paramgen_curve:P-256"
            ),
        }

    def clear(self) -> None:
        for path in [*self.data_dir.glob("firmware/*"), *self.folder.glob("*")]:
            path.unlink()
        self.image.write_bytes(IMAGE)

    def test_a_right_signature_is_kept_beside_the_image(self):
        for name, sign in self.signers().items():
            with self.subTest(name):
                self.clear()
                sign()
                published = self.checked()
                self.assertEqual(published.checked_by, name.partition(",")[0])
                kept = self.data_dir / "firmware" / "firmware_v1.bin.sig"
                self.assertEqual(kept.read_bytes(), self.signature.read_bytes())
                self.assertEqual(published.manifest.signature, kept.name)

    def test_a_signature_of_another_image_is_refused(self):
        for name, sign in self.signers().items():
            with self.subTest(name):
                self.clear()
                sign()
                self.image.write_bytes(IMAGE + b"altered")
                with self.assertRaisesRegex(Refused, "does not match this image and this key"):
                    self.checked()
                self.assert_nothing_published()

    def test_a_signature_by_another_key_is_refused(self):
        for name, sign in self.signers().items():
            with self.subTest(name):
                self.clear()
                sign()
                signature = self.signature.read_bytes()
                self.secret.unlink()
                self.public.unlink()
                sign()
                self.signature.write_bytes(signature)
                with self.assertRaisesRegex(Refused, "does not match this image and this key"):
                    self.checked()
                self.assert_nothing_published()

    def test_where_the_tool_is_missing_the_package_is_named(self):
        self.sign_by_signify()
        path = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        os.environ["PATH"] = str(self.folder)
        with self.assertRaisesRegex(Refused, "install the package signify-openbsd"):
            self.checked()
        self.assert_nothing_published()

    def test_a_key_that_is_none_is_refused(self):
        self.sign_by_openssl("ed25519")
        self.public.write_text("no key")
        with self.assertRaisesRegex(Refused, "not a public key"):
            self.checked()


class LostExitCodeTest(SignedCase):
    """Where SIGCHLD is ignored the system drops exit codes, and `subprocess` takes them for 0."""

    SIGNED_BY = (
        (SignedCase.sign_by_openssl, "ed25519"),
        (SignedCase.sign_by_openssl, "rsa"),
        (SignedCase.sign_by_minisign,),
        (SignedCase.sign_by_signify,),
    )

    def command(self, version: str) -> subprocess.CompletedProcess[str]:
        """Publish by a command that inherits the ignored signal."""
        code = (
            "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        command = [sys.executable, "-c", code, "-m", "ota_server", "release", "publish"]
        command += [str(self.image), "--version", version, "--signature", str(self.signature)]
        command += ["--verify-key", str(self.public), "--data-dir", str(self.data_dir)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    @unittest.skipUnless(all(map(shutil.which, TOOLS)), f"needs {', '.join(TOOLS)}")
    def test_a_wrong_signature_is_refused_and_a_right_one_is_not(self):
        for number, (sign, *options) in enumerate(self.SIGNED_BY):
            with self.subTest(sign=sign.__name__, options=options):
                for path in (self.public, self.secret, self.signature):
                    path.unlink(missing_ok=True)
                sign(self, *options)
                self.assertIn("signature: valid", self.command(f"v{number}").stdout)
                self.image.write_bytes(IMAGE + b"changed")
                done = self.command(f"v{number}.1")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn("does not match", done.stderr)
                self.image.write_bytes(IMAGE)

    def test_in_a_process_that_goes_on_to_ignore_it_nothing_can_be_checked(self):
        self.sign_by_openssl("ed25519")
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with self.assertRaisesRegex(Refused, "exit codes are lost"):
                self.checked()
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_a_tool_that_says_nothing_has_checked_nothing(self):
        self.sign_by_openssl("ed25519")
        tools = self.folder / "tools"
        tools.mkdir()
        (tools / "openssl").write_text("#!/bin/sh\nexit 0\n")
        (tools / "openssl").chmod(0o755)
        with (
            unittest.mock.patch.dict(os.environ, {"PATH": f"{tools}:{os.environ['PATH']}"}),
            self.assertRaisesRegex(Refused, "does not match"),
        ):
            self.checked()


class KeptTest(SignedCase):
    def test_without_a_key_it_is_kept_as_it_is(self):
        self.signature.write_bytes(b"anything")
        self.assertEqual(self.publish().checked_by, "")
        kept = self.data_dir / "firmware" / "firmware_v1.bin.sig"
        self.assertEqual(kept.read_bytes(), b"anything")

    def test_a_key_without_a_signature_is_wrong_usage(self):
        with self.assertRaisesRegex(Misused, "--signature"):
            self.publish(signature=None, verify_key=str(self.public))

    def test_a_key_that_is_not_there_is_refused(self):
        self.signature.write_bytes(b"anything")
        with self.assertRaisesRegex(Refused, "is not a file"):
            self.checked()

    def test_what_is_no_signature_is_refused(self):
        for content, why in ((b"", "is empty"), (b"x" * 65_537, "is over 65536 bytes")):
            with self.subTest(why), self.assertRaisesRegex(Refused, why):
                self.signature.write_bytes(content)
                self.publish()
        self.signature.unlink()
        with self.assertRaisesRegex(Refused, "No such file"):
            self.publish()
        self.assert_nothing_published()

    def test_a_signature_that_was_left_without_its_image_goes(self):
        left = self.data_dir / "firmware" / "firmware_v1.bin.sig"
        left.write_bytes(b"of a crash")
        self.publish(signature=None)
        self.assertFalse(left.exists())


class ServedTest(ServerCase):
    """Signatures are served as they lie there; v1.0.1 is the target."""

    def setUp(self) -> None:
        super().setUp()
        self.sign("v1.0.0")
        self.sign("v1.0.1")

    def sign(self, version: str) -> None:
        path = self.data_dir / "firmware" / f"firmware_{version}.bin.sig"
        path.write_bytes(f"signature of {version}".encode())

    def begin(self) -> None:
        """Have the device begin its download."""
        self.get("/firmware.bin", method="HEAD")

    def change_target(self) -> None:
        self.put_image("v2.0.0", b"another image")
        self.sign("v2.0.0")
        self.set_target("v2.0.0")

    def withdraw(self, version: str) -> None:
        stopped = f'{{"{version}": {{"state": "withdrawn", "instead_of": "v0"}}}}'
        (self.data_dir / "version" / "stopped.json").write_text(stopped)

    def test_a_device_gets_that_of_its_target(self):
        answer = self.get("/firmware.bin.sig")
        self.assertEqual((answer.status, answer.body), (200, b"signature of v1.0.1"))
        self.assertEqual(answer.fields["cache-control"], "private, no-cache, no-transform")
        self.assertEqual(answer.fields["content-type"], "application/octet-stream")

    def test_a_head_is_the_same_without_the_body(self):
        answer = self.get("/firmware.bin.sig", method="HEAD")
        self.assertEqual((answer.status, answer.fields["content-length"]), (200, "19"))

    def test_anybody_gets_one_by_name(self):
        answer = self.get("/firmware/firmware_v1.0.0.bin.sig", {})
        self.assertEqual((answer.status, answer.body), (200, b"signature of v1.0.0"))
        self.assertEqual(answer.fields["cache-control"], "no-cache, no-transform")
        answer = self.get("/firmware/firmware_1.0.0.bin.sig", {})
        self.assertEqual(answer.body, b"signature of v1.0.0")

    def test_without_device_headers_it_is_401(self):
        self.assertEqual(self.get("/firmware.bin.sig", {}).status, 401)

    def test_another_method_does_not_apply(self):
        for path in ("/firmware.bin.sig", "/firmware/firmware_v1.0.0.bin.sig"):
            with self.subTest(path):
                self.assertEqual(self.get(path, method="DELETE").status, 405)

    def test_where_there_is_none_it_is_404(self):
        for path in self.data_dir.glob("firmware/*.sig"):
            path.unlink()
        self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/firmware/firmware_v1.0.0.bin.sig", {}).status, 404)
        self.assertEqual(self.get("/firmware/firmware_v9.bin.sig", {}).status, 404)

    @unittest.skipUnless(hasattr(fcntl, "F_SETLEASE"), "needs the leases of Linux")
    def test_one_that_is_being_written_in_steps_is_not_served_in_part(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.1.bin.sig"
        with path.open("wb") as file:
            for step in (b"", b"the first half ", b"and the other"):
                file.write(step)
                file.flush()
                for url in ("/firmware.bin.sig", "/firmware/firmware_v1.0.1.bin.sig"):
                    answer = self.get(url)
                    self.assertEqual(answer.status, 503)
                    self.assertTrue(22 <= int(answer.fields["retry-after"]) <= 38)
        self.assertEqual(self.get("/firmware.bin.sig").body, b"the first half and the other")

    def test_what_can_be_no_signature_is_404(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.1.bin.sig"
        for content in (b"", b"x" * 65_537):
            with self.subTest(size=len(content)):
                path.write_bytes(content)
                self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        path.unlink()
        path.symlink_to("/etc/hostname")
        self.assertEqual(self.get("/firmware.bin.sig").status, 404)

    def test_it_is_that_of_the_bytes_that_the_device_began(self):
        self.begin()
        self.change_target()
        self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1")
        other = {**DEVICE, "_br_mac_": "00:11:22:33:44:66"}
        self.assertEqual(self.get("/firmware.bin.sig", other).body, b"signature of v2.0.0")

    def test_it_is_that_of_bytes_under_another_name_too(self):
        self.begin()
        (self.data_dir / "firmware" / "firmware_v1.0.1.bin").rename(
            self.data_dir / "firmware" / "firmware_v1.0.1-old.bin"
        )
        self.sign("v1.0.1-old")
        self.change_target()
        self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1-old")

    def test_while_a_download_runs_it_is_that_of_its_bytes(self):
        self.put_image("v1.0.1", bytes(8 << 20))
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin")
            client.read_until(b"\r\n\r\n")
            self.change_target()
            self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1")

    def test_of_a_withdrawn_release_it_is_404(self):
        self.begin()
        self.withdraw("v1.0.1")
        with self.assertLogs("ota_server", "ERROR"):
            self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/firmware/firmware_v1.0.1.bin.sig", {}).status, 404)

    def test_of_an_altered_image_it_is_404(self):
        order = PublishRequest(str(self.put_image("build", b"as published")), "v3.0.0")
        publish(self.data_dir, order, NOW_MS, lambda done, size: None)
        self.sign("v3.0.0")
        self.set_target("v3.0.0")
        self.assertEqual(self.get("/firmware.bin.sig").status, 200)
        self.put_image("v3.0.0", b"altered then")
        with self.assertLogs("ota_server", "ERROR"):
            self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/firmware/firmware_v3.0.0.bin.sig", {}).status, 404)

    def test_a_signature_that_is_not_the_recorded_one_is_404_and_in_the_log(self):
        build = str(self.put_image("build", b"as published"))
        signature = self.data_dir / "app.sig"
        signature.write_bytes(b"as signed")
        order = PublishRequest(build, "v3.0.0", signature=str(signature))
        publish(self.data_dir, order, NOW_MS, lambda done, size: None)
        self.set_target("v3.0.0")
        self.assertEqual(self.get("/firmware.bin.sig").body, b"as signed")
        self.sign("v3.0.0")
        with self.assertLogs("ota_server", "ERROR") as logged:
            self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertIn("is not the signature that was published", logged.output[0])
        self.assertEqual(self.get("/firmware/firmware_v3.0.0.bin.sig", {}).status, 404)
        self.assertEqual(self.get("/firmware.bin").status, 200)
        publish(self.data_dir, order, NOW_MS, lambda done, size: None)
        self.assertEqual(self.get("/firmware.bin.sig").body, b"as signed")

    def test_a_device_that_may_have_no_image_is_to_come_again(self):
        (self.data_dir / "version" / "hold.json").write_text("{}")
        answer = self.get("/firmware.bin.sig")
        self.assertEqual(answer.status, 503)
        self.assertTrue(225 <= int(answer.fields["retry-after"]) <= 375)

    def test_it_is_no_download_on_record(self):
        self.get("/version.txt")
        self.get("/firmware.bin.sig")
        self.stop()
        self.assertEqual([record["event"] for record in self.records()], ["check"])

    def test_a_new_version_that_comes_to_light_is_on_record(self):
        self.get("/version.txt")
        self.get("/firmware.bin.sig", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        (record,) = self.records(event="report")
        self.assertEqual(record["previous_version"], "v1.0.0")


class PinnedTest(unittest.TestCase):
    KNOWN = Download("v1.1", "ab" * 32, 1000, NOW_MS)
    LATER_MS = NOW_MS + RESTART_AFTER_MS

    def pinned(self, now_ms: int, running: str, told: str | None, under_way: bool = False) -> bool:
        return pinned_download(self.KNOWN, under_way, running, told, now_ms) is not None

    def test_where_nothing_was_begun_nothing_is_pinned(self):
        self.assertIsNone(pinned_download(None, False, "v1.0", "v1.1", NOW_MS))

    def test_a_download_is_pinned_for_ten_minutes_whatever_was_told_since(self):
        self.assertTrue(self.pinned(self.LATER_MS - 1, "v1.0", "v1.2"))
        self.assertFalse(self.pinned(self.LATER_MS, "v1.0", "v1.2"))

    def test_a_download_that_runs_is_pinned_however_long(self):
        self.assertTrue(self.pinned(self.LATER_MS, "v1.0", "v1.2", under_way=True))

    def test_a_long_download_is_pinned_until_the_device_is_told_another_version(self):
        self.assertTrue(self.pinned(self.LATER_MS, "v1.0", "1.1"))
        self.assertFalse(self.pinned(self.LATER_MS, "v1.0", None))

    def test_once_the_device_runs_it_it_is_not_pinned(self):
        self.assertFalse(self.pinned(self.LATER_MS, "1.1", "v1.1"))
