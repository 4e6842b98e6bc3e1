"""Which groups there are. I/O."""

import os
from pathlib import Path

from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.policy import is_group_name


def group_names(data_dir: Path) -> list[str]:
    """Return the names of the groups of a product, in alphabetical order.

    Args:
        data_dir: of the product.
    """
    try:
        files = os.listdir(data_dir / "version" / GROUPS_FOLDER)
    except OSError:
        return []  # `status` says what is wrong with the folder
    names = (each.removesuffix(GROUP_SUFFIX) for each in files if each.endswith(GROUP_SUFFIX))
    return sorted(filter(is_group_name, names))
