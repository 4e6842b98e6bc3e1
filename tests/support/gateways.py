"""What the tests with updaters of Linux gateways share: a key, and signed bundles."""

import sys
from pathlib import Path

from tests.support.real_clients import PYTHON_CLIENTS, FleetCase

SWUGENERATOR = "from swugenerator.main import main; main()"
SW_DESCRIPTION = """software = {{
  version = "{version}";
  hardware-compatibility = [ "1.0" ];
  files: ({{ filename = "image"; path = "{installed}"; }});
  scripts: ({{ filename = "check.sh"; type = "postinstall"; }});
}}
"""


class GatewayCase(FleetCase):
    """A Linux gateway that takes bundles which are signed by a key."""

    def setUp(self) -> None:
        super().setUp()
        self.key, self.certificate = self.make_key("certificate")

    def make_key(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new key and of its certificate."""
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        usage = ("keyUsage=digitalSignature", "extendedKeyUsage=emailProtection")
        extensions = [part for line in usage for part in ("-addext", line)]
        output = ["-keyout", key, "-out", certificate]
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
        self.run_client([*request, *extensions, *output])
        return key, certificate


class SwuCase(GatewayCase):
    """A gateway with SWUpdate."""

    def bundle(
        self, image: bytes, installed: Path, version: str = "v2.0.0", check: str = "exit 0"
    ) -> Path:
        """Return an update, signed by `self.key`, that installs `image` as a file.

        Args:
            check: what a script of the update does after that.
        """
        parts = self.folder / f"parts-{version}"
        parts.mkdir()
        (parts / "image").write_bytes(image)
        (parts / "check.sh").write_text(f"#!/bin/sh\n{check}\n")
        description = self.folder / f"sw-description-{version}"
        description.write_text(SW_DESCRIPTION.format(version=version, installed=installed))
        output = self.folder / f"{version}.swu"
        signer = f"CMS,{self.key},{self.certificate}"
        generate = [sys.executable, "-c", SWUGENERATOR, "-s", description, "-a", parts]
        self.run_client(
            [*generate, "-o", output, "-n", "-e", "-k", signer, "create"],
            {"PYTHONPATH": str(PYTHON_CLIENTS)},
        )
        return output
