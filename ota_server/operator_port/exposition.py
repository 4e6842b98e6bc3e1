"""Prometheus' text format, version 0.0.4: families of samples in, lines out. Pure."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NO_LABELS: Mapping[str, str] = {}
# A label is no place for a long text, and nothing that is counted has a longer name.
MOST_LABEL_CHARACTERS = 128


class MetricKind(StrEnum):
    """What a metric is, as the format names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Sample(NamedTuple):
    """One value of a metric.

    Attributes:
        labels: that tell it from the other samples; one with the value "" is left out, as for
            Prometheus it is none.
        suffix: what a histogram adds to the name.
    """

    value: float
    labels: Mapping[str, str] = _NO_LABELS
    suffix: str = ""


class MetricFamily(NamedTuple):
    """A metric with its samples; without samples it is left out.

    Attributes:
        about: one sentence on it, with the unit.
    """

    name: str
    kind: MetricKind
    about: str
    samples: tuple[Sample, ...]


def counter(name: str, about: str, samples: "Samples") -> MetricFamily:
    """Return a metric that only grows, until its process starts again."""
    return MetricFamily(name, MetricKind.COUNTER, about, _samples(samples))


def gauge(name: str, about: str, samples: "Samples") -> MetricFamily:
    """Return a metric that goes up and down."""
    return MetricFamily(name, MetricKind.GAUGE, about, _samples(samples))


def histogram(
    name: str, about: str, bounds: Iterable[float], counts: Iterable[int], total: float
) -> MetricFamily:
    """Return a metric that says how many had at most which value.

    Args:
        counts: for each bound those above the bound before; then those above all bounds.
        total: of all values.
    """
    samples, count = [], 0
    for bound, more in zip((*bounds, None), counts, strict=True):
        count += more
        at_most = "+Inf" if bound is None else _number(bound)
        samples.append(Sample(count, {"le": at_most}, "_bucket"))
    samples += [Sample(total, suffix="_sum"), Sample(count, suffix="_count")]
    return MetricFamily(name, MetricKind.HISTOGRAM, about, tuple(samples))


def exposition(families: Iterable[MetricFamily]) -> str:
    """Return what Prometheus reads."""
    lines: list[str] = []
    for name, kind, about, samples in families:
        if samples:
            about = about.replace("\\", r"\\").replace("\n", r"\n")
            lines += (f"# HELP {name} {about}", f"# TYPE {name} {kind}")
            lines += (
                f"{name}{each.suffix}{_labels(each)} {_number(each.value)}" for each in samples
            )
    return "".join(f"{line}\n" for line in lines)


def label_text(text: str) -> str:
    """Return a text as a label has it: what cannot be printed is replaced, and what is long cut.

    Several texts may become the same: add up what they stand for.
    """
    text = text[:MOST_LABEL_CHARACTERS]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


Samples = Iterable[Sample] | float | None


def _samples(samples: Samples) -> tuple[Sample, ...]:
    if samples is None:
        return ()
    return (Sample(samples),) if isinstance(samples, int | float) else tuple(samples)


def _labels(sample: Sample) -> str:
    pairs = [f'{name}="{_escaped(text)}"' for name, text in sample.labels.items() if text]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return label_text(text).replace("\\", r"\\").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
