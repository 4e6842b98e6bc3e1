"""Commands in messages, as they can be pasted: the way this process was called, and its data."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

# As `cli` has them; in a message each stands in backticks, with its arguments.
COMMANDS = (
    "serve",
    "status",
    "health",
    "devices",
    "rollout",
    "pin",
    "unpin",
    "retry",
    "hold",
    "unhold",
    "group",
    "device",
    "why",
    "audit",
    "notify",
    "release",
    "backup",
    "restore",
    "product",
    "token",
)
# Without --group it is about the rollout to the fleet.
_OF_ONE_ROLLOUT = re.compile(r"rollout (?:pause|resume|change|promote|abort)\b(?!.* --group)")


_OF_ALL_PRODUCTS = re.compile(r"(?:serve|backup|restore|product|token|notify)\b|.* --product ")


class Hints:
    """How commands are called here.

    Attributes:
        data_dir: what was given by --data-dir, so that it has to be given again; None: nothing.
        product: what was given by --product; None: nothing.
        must_name_fleet: returns whether a command about the rollout to the fleet has to say so.
    """

    def __init__(self) -> None:
        self.data_dir: Path | None = None
        self.product: str | None = None
        self.must_name_fleet: Callable[[], bool] = lambda: False
        self._pattern = _pattern(COMMANDS)

    def paste(self, text: str, product: str = "") -> str:
        """Return a message with its commands as they can be pasted.

        Args:
            product: that they are about; "": what was given by --product.
        """
        if "`" not in text:
            return text
        return self._pattern.sub(lambda match: self._command(match, product=product), text)

    def paste_format(self, text: str, product: str = "") -> str:
        """As `paste`, for a text into which `%` will put what is not ours, such as a header."""
        return self._pattern.sub(lambda match: self._command(match, "%%", product), text)

    def _command(self, match: re.Match[str], percent: str = "%", product: str = "") -> str:
        given = "" if self.data_dir is None else f" --data-dir {shlex.quote(str(self.data_dir))}"
        product = product or self.product or ""
        if product and not _OF_ALL_PRODUCTS.match(match[1]):
            given = f" --product {shlex.quote(product)}{given}"
        if _OF_ONE_ROLLOUT.match(match[1]) and self.must_name_fleet():
            given = f" --group ''{given}"
        before, after = (part.replace("%", percent) for part in (program(), given))
        return f"`{before} {match[1]}{after}`"


def _pattern(commands: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"`((?:{'|'.join(commands)})(?: [^`\n]*)?)`")


hints = Hints()


def program() -> str:
    """Return what to type before a command: the installed program, or Python with the package."""
    name = os.path.basename(sys.argv[0])
    if name == "ota-server":
        return _short(sys.argv[0])
    return f"{_short(sys.executable or 'python')} -m ota_server"


def _short(path: str) -> str:
    """Return a program as it can be typed: by its name, if the search path leads to it."""
    name = os.path.basename(path)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = os.path.join(folder, name)
        if os.path.exists(found):
            return name if os.path.realpath(found) == os.path.realpath(path) else shlex.quote(path)
    return shlex.quote(path)
