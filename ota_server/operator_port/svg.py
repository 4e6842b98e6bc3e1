"""Bars and plots as SVG: sizes are attributes, since the page has no inline style. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from ota_server.model.timestamp import format_second
from ota_server.operator_port.html import Html, Node, element

_BAR_WIDTH = 1000.0
_BAR_HEIGHT = 22
# Narrower ones can be neither seen nor hit by a finger.
_LEAST_WIDTH = 6.0
_WIDTH, _HEIGHT = 1200, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 4, 12, 24
# Versions have so many colours; the last one is for all others.
COLOURS = 10


class Segment(NamedTuple):
    """A part of a bar.

    Attributes:
        devices: how many, so how wide it is.
        kind: the class that gives its colour.
        words: what it is, for those who hover or listen.
        url: where it leads; "": nowhere.
    """

    devices: int
    kind: str
    words: str
    url: str = ""


class Layer(NamedTuple):
    """A layer of a stacked plot: how many at each time."""

    kind: str
    words: str
    counts: Sequence[int]


def bar(segments: Sequence[Segment], words: str) -> Html:
    """Return a bar whose segments are as wide as their shares; `words` say what it shows."""
    filled = [each for each in segments if each.devices > 0]
    drawn, left = list[Html](), 0.0
    for segment, width in zip(filled, _widths([each.devices for each in filled]), strict=True):
        drawn.append(_segment(segment, left, width))
        left += width
    # With links in it, it is no picture but a group of them.
    return element(
        "svg",
        drawn,
        class_="bar",
        viewBox=f"0 0 {_BAR_WIDTH:g} {_BAR_HEIGHT}",
        preserveAspectRatio="none",
        role="group" if any(each.url for each in filled) else "img",
        aria_label=words,
    )


def _segment(segment: Segment, left: float, width: float) -> Html:
    drawn = element(
        "rect",
        element("title", segment.words),
        x=f"{left:.2f}",
        y="0",
        width=f"{max(0.0, width - 1):.2f}",
        height=str(_BAR_HEIGHT),
        class_=segment.kind,
    )
    if not segment.url:
        return drawn
    return element("a", drawn, href=segment.url, aria_label=segment.words)


def _widths(counts: Sequence[int]) -> list[float]:
    """Return widths in the proportion of the counts, none too narrow to be seen."""
    total = sum(counts)
    if not total:
        return []
    wide = [max(_LEAST_WIDTH, _BAR_WIDTH * count / total) for count in counts]
    scale = _BAR_WIDTH / sum(wide)
    return [width * scale for width in wide]


def stacked_plot(times_ms: Sequence[int], layers: Sequence[Layer], words: str) -> Html:
    """Return how numbers changed over time, one layer upon the other.

    Args:
        times_ms: at least two, rising, one for each count of a layer.
        layers: the lowest first.
        words: what the plot shows, in a sentence.
    """
    most = max(1, max(map(sum, zip(*(each.counts for each in layers), strict=True)), default=1))
    top = _round_up(most)
    below = [0] * len(times_ms)
    drawn = []
    for layer in layers:
        above = [low + count for low, count in zip(below, layer.counts, strict=True)]
        drawn.append(_area(times_ms, below, above, top, layer))
        below = above
    return element(
        "svg",
        element("title", words),
        _rules(top),
        drawn,
        _dates(times_ms),
        class_="plot",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=words,
    )


def _area(
    times_ms: Sequence[int], below: Sequence[int], above: Sequence[int], top: int, layer: Layer
) -> Html:
    ahead = [_point(times_ms, at, count, top) for at, count in enumerate(above)]
    back = [_point(times_ms, at, count, top) for at, count in enumerate(below)][::-1]
    points = " ".join((*ahead, *back))
    return element("polygon", element("title", layer.words), points=points, class_=layer.kind)


def _point(times_ms: Sequence[int], at: int, count: int, top: int) -> str:
    span = max(1, times_ms[-1] - times_ms[0])
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (times_ms[at] - times_ms[0]) / span
    return f"{x:.1f},{_height_of(count, top):.1f}"


def _height_of(count: int, top: int) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * count / top


def _rules(top: int) -> list[Node]:
    """Return lines across, with the numbers that they stand for."""
    drawn: list[Node] = []
    for count in sorted({0, top // 2, top}):
        y = f"{_height_of(count, top):.1f}"
        drawn.append(
            element("line", x1=str(_LEFT), x2=str(_WIDTH - _RIGHT), y1=y, y2=y, class_="rule")
        )
        drawn.append(element("text", f"{count:,}", x=str(_LEFT - 8), y=y, class_="scale"))
    return drawn


def _dates(times_ms: Sequence[int]) -> list[Node]:
    """Return the first and the last time below the plot."""
    y = str(_HEIGHT - 8)
    first, last = (_date(ms, times_ms) for ms in (times_ms[0], times_ms[-1]))
    return [
        element("text", first, x=str(_LEFT), y=y),
        element("text", last, x=str(_WIDTH - _RIGHT), y=y, class_="scale"),
    ]


def _date(ms: int, times_ms: Sequence[int]) -> str:
    text = format_second(ms).replace("T", " ")
    is_long = times_ms[-1] - times_ms[0] > 3 * 86_400_000
    return text[:10] if is_long else f"{text[:16]} UTC"


def _round_up(count: int) -> int:
    """Return a round number that is not below a count."""
    step = 1
    while step * 10 < count:
        step *= 10
    return next(each * step for each in (1, 2, 4, 5, 6, 8, 10) if each * step >= count)
