"""Metrics as tests read them: all that there are, and a strict reader of the text format."""

import re

from ota_server.device_port.live_figures import JournalFigures, LiveFigures, SlotFigures
from ota_server.operator_port.metrics_input import (
    FleetFigures,
    MetricsInput,
    ProcessFigures,
    ProductFigures,
    RolloutFigures,
)
from ota_server.policy.device_state import Condition

# With these each metric has a sample.
SERVER = LiveFigures(
    time_ms=1_700_000_000_000,
    pid=7,
    since_ms=1_600_000_000_500,
    requests={"version.txt": {"200": 5}},
    journal=JournalFigures(records=5, written_ms=1_700_000_000_000),
    slots=SlotFigures(10, 2, 3),
)
FLEET = FleetFigures(
    {Condition.UP_TO_DATE: 8, Condition.SILENT: 2}, {"v1.0.1": 9, "v1.0.0": 1}, 1000, 2000, 1
)
ROLLOUT = RolloutFigures("", "v1.0.1", "running", 2, 3, {"updated": 4}, False, 3000)
EVERYTHING = MetricsInput(
    "0.1.0",
    "3.11.7",
    (ProductFigures("", FLEET, (ROLLOUT,), True, True, 4000),),
    SERVER,
    ProcessFigures(1.5, 2, 3, 4, 5, 6.0),
    ProcessFigures(1.0, 2, 3, 4, 5, 6.0),
    7,
)

_ONE_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({_ONE_LABEL}(?:,{_ONE_LABEL})*)\}})? (-?[0-9.e+\-]+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')
_HEAD = re.compile(r"# (HELP|TYPE) ([a-z_]+) (.+)")
_SUFFIXES = ("_bucket", "_sum", "_count")

Labels = tuple[tuple[str, str], ...]


def read_metrics(text: str) -> dict[str, dict[Labels, float]]:
    """Return the values of each metric by its labels; fail where a line is malformed."""
    found: dict[str, dict[Labels, float]] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if head := _HEAD.fullmatch(line):
            if head[1] == "TYPE":
                assert head[2] not in kinds, line
                kinds[head[2]] = head[3]
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        name, labels = match[1], tuple(_LABEL.findall(match[2] or ""))
        assert base_name(name, kinds) in kinds, line
        samples = found.setdefault(name, {})
        assert labels not in samples, f"twice: {line}"
        samples[labels] = float(match[3])
    return found


def base_name(name: str, kinds: dict[str, str]) -> str:
    """Return the name of the metric that a sample belongs to."""
    for suffix in _SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and kinds.get(base) == "histogram":
            return base
    return name
