"""Which products a page is about, and the ways to the same page of others. I/O."""

from collections.abc import Sequence

from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import Html, element
from ota_server.operator_port.pieces import url_with
from ota_server.operator_port.site import DEFAULT, Site


def products_meant(site: Site, asked: Asked) -> Sequence[str]:
    """Return the products that a URL is about: all, unless it names one.

    Raises:
        NotHere: there is none of that name.
    """
    name = asked.one("product")
    if not name:
        return site.products
    site.folder_of(name)
    return ("" if name == DEFAULT else name,)


def product_ways(site: Site, asked: Asked, path: str, may_be_all: bool = True) -> Html | None:
    """Return links to the page of each product; None: there is only one product."""
    if len(site.products) == 1:
        return None
    shown = asked.one("product") or ("" if may_be_all else DEFAULT)

    def one(name: str, words: str) -> Html:
        url = url_with(path, [("product", name)] if name else [])
        return element("a", words, href=url, aria_current="page" if name == shown else None)

    everything = [one("", "All products")] if may_be_all else []
    each = [one(name or DEFAULT, name or "Default product") for name in site.products]
    return element(
        "nav",
        [(link_, " ") for link_ in (*everything, *each)],
        class_="products",
        aria_label="Products",
    )
