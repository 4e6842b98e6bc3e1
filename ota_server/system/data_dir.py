"""The data directory, its default and its folders."""

import argparse
import os
import sys
from pathlib import Path

from ota_server.model.refusal import Refused

ENVIRONMENT_VARIABLE = "OTA_SERVER_DATA"


def default_data_dir() -> Path:
    """Return $OTA_SERVER_DATA, else the package's folder in a checkout, else a user's folder."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    package = Path(__file__).resolve().parent.parent
    # If pip has installed the package, it is in a folder where nobody should write.
    if (package.parent / "pyproject.toml").is_file():
        return package
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "ota_server"
    base = os.environ.get("XDG_DATA_HOME")
    if base:
        return Path(base) / "ota_server"
    try:
        return Path.home() / ".local" / "share" / "ota_server"
    except RuntimeError:
        return Path("ota_server_data")  # a user without a home: use the working directory


def add_data_dir_argument(parser: argparse.ArgumentParser) -> None:
    """Add --data-dir."""
    parser.add_argument(
        "--data-dir",
        type=_folder,
        default=default_data_dir(),
        metavar="DIR",
        help=f"folder with version/, firmware/ and log/ (default: ${ENVIRONMENT_VARIABLE}, else "
        "%(default)s)",
    )


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a folder")
    return Path(text)


def existing_folder(data_dir: Path, name: str) -> Path:
    """Return a folder of a data directory.

    Raises:
        Refused: it is missing, so this is not a data directory.
    """
    folder = data_dir / name
    if not folder.is_dir():
        raise Refused(f"no {name}/ in {data_dir}; is --data-dir right?")
    return folder


def log_dir(data_dir: Path) -> Path:
    """Return the folder of the journal."""
    return data_dir / "log"
