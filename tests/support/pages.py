"""Pages as a browser takes them apart: their elements, and what they say."""

from html.parser import HTMLParser

_VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta"))


class PageReader(HTMLParser):
    """The elements of a page with their attributes, and its text.

    Attributes:
        elements: each with its tag and its attributes, in their order.
        links: where each link leads to, with what it says, to those who listen if that differs.
        wrong: end tags that fit no start tag, and attributes that stand twice.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.links: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self._link: tuple[str, list[str]] | None = None
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += self._open

    @property
    def text(self) -> str:
        """What it says, with one blank between two words."""
        return " ".join("".join(self._text).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Return the attributes of all elements with this tag that have these."""
        wanted = {name.rstrip("_").replace("_", "-"): said for name, said in attributes.items()}
        return [
            found
            for each, found in self.elements
            if each == tag and wanted.items() <= found.items()
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        found = {name: value or "" for name, value in attrs}
        if len(found) < len(attrs):
            self.wrong.append(f"{tag} {attrs}")
        self.elements.append((tag, found))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "a":
            self._link = found.get("href", ""), [found.get("aria-label", "")]
        self._said(" ")

    def handle_endtag(self, tag: str) -> None:
        """Look whether it ends what was open last."""
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"/{tag}")
        if tag == "a" and self._link is not None:
            url, said = self._link
            self.links.append((url, said[0] or " ".join("".join(said).split())))
            self._link = None
        self._said(" ")

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self._said(data)

    def _said(self, text: str) -> None:
        self._text.append(text)
        if self._link is not None:
            self._link[1].append(text)
