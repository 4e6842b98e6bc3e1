"""Which bytes of an image a device has, as spans. Pure."""

# Pieces of an image that do not touch. A client that fetches more at once has no image for long.
_MOST_SPANS = 256


def merged(
    spans: tuple[tuple[int, int], ...], start: int, stop: int
) -> tuple[tuple[int, int], ...]:
    """Return spans of bytes, in order and apart, after another one; `stop` is exclusive."""
    if stop <= start:
        return spans
    if len(spans) == 1 and spans[0][0] <= start <= spans[0][1]:
        return ((spans[0][0], max(stop, spans[0][1])),)
    result: list[tuple[int, int]] = []
    for first, last in sorted((*spans, (start, stop))):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return tuple(result[:_MOST_SPANS])
