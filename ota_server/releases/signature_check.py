"""Detached signatures when publishing: read, and checked by the tool that made them.

A signature is right if the tool says so in its words and by its exit code. Neither is enough: where
SIGCHLD is ignored, `subprocess` takes the code that the system dropped for 0.
"""

import shutil
import signal
import subprocess
from pathlib import Path

from ota_server.model.refusal import Refused
from ota_server.model.version import MAX_SIGNATURE_BYTES
from ota_server.system.files import open_regular

_TOOL_SECONDS = 600.0
_MOST_SAID = 200
_COMMENT = b"untrusted comment:"
_TRUSTED_COMMENT = b"\ntrusted comment:"
# The line by which each tool says that a signature is right.
_MINISIGN_WORDS = "Signature and comment signature verified"
_SIGNIFY_WORDS = "Signature Verified"
_OPENSSL_WORDS = "Signature Verified Successfully"
_OPENSSL_DIGEST_WORDS = "Verified OK"


def read_signature(path: Path) -> bytes:
    """Return the content of a signature file.

    Raises:
        Refused: it is not a signature file.
    """
    try:
        with open(open_regular(path), "rb") as file:
            content = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as problem:
        raise Refused(f"{path}: {problem.strerror}; give --signature a file") from problem
    if not content:
        raise Refused(f"{path} is empty; sign the image again")
    if len(content) > MAX_SIGNATURE_BYTES:
        raise Refused(
            f"{path} is over {MAX_SIGNATURE_BYTES} bytes, so it is not a detached signature; "
            "sign the image with minisign, signify or openssl"
        )
    return content


def check_signature(image: Path, signature: Path, key: Path) -> str:
    """Check a detached signature by the tool that made it, and return the name of the tool.

    Raises:
        Refused: the signature is not of that image by that key, or it cannot be checked.
    """
    if not key.is_file():
        raise Refused(f"{key} is not a file; give --verify-key the public key")
    image, signature, key = image.absolute(), signature.absolute(), key.absolute()
    content = read_signature(signature)
    if not content.startswith(_COMMENT):
        return _check_by_openssl(image, signature, key)
    if _TRUSTED_COMMENT in content:
        tool = _tool("minisign", package="minisign")
        _run([tool, "-V", "-p", key, "-x", signature, "-m", image], _MINISIGN_WORDS)
        return "minisign"
    # On Debian `signify` is another program.
    tool = _tool("signify-openbsd", "signify", package="signify-openbsd")
    _run([tool, "-V", "-p", key, "-x", signature, "-m", image], _SIGNIFY_WORDS)
    return "signify"


def _check_by_openssl(image: Path, signature: Path, key: Path) -> str:
    tool = _tool("openssl", package="openssl")
    described = _call([tool, "pkey", "-pubin", "-in", key, "-noout", "-text"])
    if described.returncode:
        raise Refused(f"{key} is not a public key in PEM that openssl can read: {_said(described)}")
    if described.stdout.upper().startswith("ED"):
        options: list[str | Path] = ["pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin"]
        command = [tool, *options, "-in", image, "-sigfile", signature]
        _run(command, _OPENSSL_WORDS)
    else:
        command = [tool, "dgst", "-sha256", "-verify", key, "-signature", signature, image]
        _run(command, _OPENSSL_DIGEST_WORDS)
    return "openssl"


def _tool(*names: str, package: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise Refused(
        f"{names[0]}, which made the signature, is needed to check it; install the package "
        f"{package}, or leave --verify-key out"
    )


def _run(command: list[str | Path], words: str) -> None:
    """Have a tool check a signature; `words` is the line by which it says that it is right."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise Refused("the signature cannot be checked: SIGCHLD is ignored, so exit codes are lost")
    done = _call(command)
    if done.returncode or words not in done.stdout.splitlines():
        raise Refused(
            f"the signature does not match this image and this key ({_said(done)}); sign the very "
            "file that is published, and give --verify-key the public half of the key that signed"
        )


def _call(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TOOL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Refused(f"{command[0]} cannot be run: {problem}") from problem


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a tool said, in one line."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return "; ".join(lines)[:_MOST_SAID] or f"exit code {done.returncode}"
