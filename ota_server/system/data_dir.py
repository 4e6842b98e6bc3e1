"""The data directory, its default and its folders."""

import argparse
import os
import stat
import sys
from pathlib import Path

from ota_server.model.identity import is_product_name
from ota_server.model.refusal import Refused

PRODUCTS_FOLDER = "products"
ENVIRONMENT_VARIABLE = "OTA_SERVER_DATA"


def default_data_dir(is_elsewhere: bool = False) -> Path:
    """Return $OTA_SERVER_DATA, else the package's folder in a checkout, else a user's folder.

    Args:
        is_elsewhere: as for somebody who reads the server's log, in a shell without that variable.
    """
    named = None if is_elsewhere else os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    package = Path(__file__).resolve().parent.parent
    # If pip has installed the package, it is in a folder where nobody should write.
    # `Path.is_file` would raise where another user's checkout cannot be entered.
    if os.path.isfile(package.parent / "pyproject.toml"):
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
    """Return the folder of what is on record about a product: what was done, and its rollouts."""
    return data_dir / "log"


def journal_dir(data_dir: Path) -> Path:
    """Return the folder of the journal and of the server's lock: one for all products."""
    return root_of(data_dir) / "log"


def access_problem(data_dir: Path, path: str | Path) -> str:
    """Return why a server could not read a file, "": it can, as far as its owner and mode say.

    The server's user is the one whom log/ belongs to.
    """
    try:
        file, user = os.stat(path), os.stat(journal_dir(data_dir))
    except OSError:
        return ""  # who opens it says so
    mode = file.st_mode
    is_readable = (
        user.st_uid == 0
        or mode & stat.S_IROTH
        or (mode & stat.S_IRUSR and file.st_uid == user.st_uid)
        or (mode & stat.S_IRGRP and file.st_gid == user.st_gid)
    )
    return "" if is_readable else f"the server's user cannot read its image; `chmod a+r {path}`"


def root_of(data_dir: Path) -> Path:
    """Return the data directory of the server, given that of one of its products."""
    return data_dir.absolute().parent.parent if product_at(data_dir) else data_dir


def product_at(data_dir: Path) -> str:
    """Return the product whose data directory this is, "" for the default one.

    That of a product is `products/<name>` in a data directory.
    """
    data_dir = data_dir.absolute()  # it may be `.`
    folder = data_dir.parent
    if folder.name != PRODUCTS_FOLDER or not is_product_name(data_dir.name):
        return ""
    return data_dir.name if (folder.parent / "version").is_dir() else ""


def product_dir(root: Path, product: str) -> Path:
    """Return the data directory of a product."""
    return root / PRODUCTS_FOLDER / product if product else root


def product_names(root: Path) -> list[str]:
    """Return the names of the products besides the default one, in alphabetical order."""
    return products_and_links(root)[0]


def products_and_links(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the products, and those of links, which are not followed.

    A product's folders are made where they are missing: that must not be done wherever a link leads
    to.
    """
    products, links = [], []
    try:
        with os.scandir(root / PRODUCTS_FOLDER) as entries:
            for entry in entries:
                if not is_product_name(entry.name):
                    continue
                if entry.is_symlink():
                    links.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    products.append(entry.name)
    except OSError:
        return [], []
    return (sorted(products) if (root / "version").is_dir() else []), sorted(links)
