"""The server's log of one product: each line names it, and so does each command in it."""

import logging
from pathlib import Path

from ota_server.system.data_dir import product_at
from ota_server.system.hints import hints


def named_line(product: str, message: str) -> str:
    """Return a line of the log that is about a product; "" is the default one."""
    return f"product {product}: {message}" if product else message


class ProductLog(logging.LoggerAdapter[logging.Logger]):
    """A log whose lines are about the product of a data directory."""

    def __init__(self, log: logging.Logger, data_dir: Path) -> None:
        super().__init__(log, {})
        self._product = product_at(data_dir)

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Log a line, as `Logger.log`."""
        if self._product:
            paste = hints.paste_format if args else hints.paste
            msg = named_line(self._product, paste(str(msg), self._product))
        self.logger.log(level, msg, *args)
