"""The routes of the operators' port: what there is, who may have it, and who answers. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.site import Site


class Route(NamedTuple):
    """One thing that can be asked for.

    Attributes:
        path: such as `/devices/{key}`: what stands in braces is any one segment.
        takes_body: `answer` reads the body itself: it raises `TakesOver`.
        asks_who: `answer` asks the authoriser, since the form's token is in the body that it
            reads; it is called for whoever may act by the head of the request.
    """

    method: str
    path: str
    access: Access
    answer: Callable[[Site, Asked], Reply]
    takes_body: bool = False
    asks_who: bool = False


class FoundPath(NamedTuple):
    """What a path stands for.

    Attributes:
        routes: by method.
        parts: what the braces stand for.
    """

    routes: Mapping[str, Route]
    parts: Mapping[str, str]

    @property
    def allow(self) -> str:
        """The methods, as in the field Allow."""
        return ", ".join(sorted({*self.routes, *["HEAD"] * ("GET" in self.routes)}))


class RouteTable:
    """All routes, by the segments of their paths."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._by_path: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in self.routes:
            by_method = self._by_path.setdefault(tuple(route.path[1:].split("/")), {})
            assert route.method not in by_method, route
            by_method[route.method] = route

    def find(self, segments: Sequence[str]) -> FoundPath | None:
        """Return what is at a path; None: nothing. A name comes before what stands in braces."""
        best: tuple[int, FoundPath] | None = None
        for pattern, by_method in self._by_path.items():
            parts = _matched(pattern, segments)
            if parts is not None and (best is None or len(parts) < best[0]):
                best = len(parts), FoundPath(by_method, parts)
        return None if best is None else best[1]


def _matched(pattern: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    parts = {}
    for wanted, there in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            parts[wanted[1:-1]] = there
        elif wanted != there:
            return None
    return parts
