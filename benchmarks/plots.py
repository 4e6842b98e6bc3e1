"""The plots of a run, by matplotlib; run by the Python that has it.

python -m benchmarks.plots results.json FOLDER
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.figures import OURS, Results, spread
from benchmarks.metrics import METRICS, WORKLOADS

_OURS_COLOUR = "#d1495b"
_COLOURS = {
    OURS: _OURS_COLOUR,
    "before": "#e9a3ad",
    "nginx": "#2e4057",
    "nginx-default": "#7d8ca3",
    "http.server": "#c9b458",
    "aiohttp": "#66a182",
    "uvicorn": "#4f8fba",
    "goosebit": "#9a8fb5",
}
_GREY = "#555555"


def _bars(axes: Axes, results: Results, workload: str, case: str, metric: str) -> None:
    """Draw a bar for each peer, its median, with a line from the least to the most."""
    found = [
        (peer, spread(list(values.values())))
        for peer in WORKLOADS[workload].peers
        if (values := results.values(workload, case, peer, metric))
    ]
    limit = _limit([one.most for _, one in found])
    for place, (peer, one) in enumerate(reversed(found)):
        axes.barh(place, one.median, color=_COLOURS[peer], height=0.7)
        axes.plot([one.least, one.most], [place, place], color="#1a1a1a", linewidth=1)
        beyond = one.median > limit
        axes.annotate(
            f" {METRICS[metric].form.format(one.median)}{' →' if beyond else ''} ",
            (min(one.most, limit), place),
            va="center",
            ha="right" if beyond else "left",
            color="white" if beyond else "black",
            fontsize=8,
            fontweight="bold" if peer == OURS else "normal",
        )
    axes.set_xlim(0, limit)
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(found)), [peer for peer, _ in reversed(found)], fontsize=9)
    for label in axes.get_yticklabels():
        if label.get_text() == OURS:
            label.set_fontweight("bold")
            label.set_color(_OURS_COLOUR)
    _clean(axes, METRICS[metric].title)


def _limit(values: list[float]) -> float:
    """Return where an axis ends: a value far beyond all others would hide them."""
    *others, greatest = sorted(values)
    if others and greatest > 4 * others[-1]:
        return others[-1] * 1.5
    return greatest * 1.2


def _clean(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", color=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8, colors=_GREY)


def _save(figure: plt.Figure, results: Results, title: str, path: Path) -> None:
    about = results.about
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
    note = (
        f"{about.get('machine', '')}; median of rounds: {about.get('rounds', '?')}, lines: spread"
    )
    figure.text(0.01, 0.005, note, fontsize=7, color=_GREY)
    figure.tight_layout(rect=(0, 0.035, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def checks(results: Results, path: Path) -> None:
    """Draw rates and processor time of checks."""
    wanted = [name for name in ("check-new", "check-keepalive-100k") if results.cases(name)]
    if not wanted:
        return
    figure, grid = plt.subplots(len(wanted), 2, figsize=(9, 2.7 * len(wanted)), squeeze=False)
    for row, name in zip(grid, wanted, strict=True):
        for axes, metric in zip(row, ("rate", "cpu_us"), strict=True):
            _bars(axes, results, name, results.cases(name)[0], metric)
        row[0].set_title(f"{WORKLOADS[name].title}: requests/s", fontsize=10, loc="left")
    _save(figure, results, "Version checks: more requests/s, less CPU is better", path)


def downloads(results: Results, path: Path) -> None:
    """Draw the rates of downloads, a group of bars for each case."""
    names = ("download-1m", "download-1m-new", "download-64m")
    wanted = [name for name in names if results.cases(name)]
    if not wanted:
        return
    metrics = ("mb_per_s", "cpu_s_per_gb")
    figure, grid = plt.subplots(len(wanted), 2, figsize=(9, 2.9 * len(wanted)), squeeze=False)
    for row, name in zip(grid, wanted, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _groups(axes, results, name, metric)
            _clean(axes, f"{WORKLOADS[name].title}: {METRICS[metric].title}")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=6, loc="lower right")
    _save(figure, results, "Downloads: more MB/s, less CPU is better", path)


def _groups(axes: Axes, results: Results, workload: str, metric: str) -> None:
    peers = [
        peer
        for peer in WORKLOADS[workload].peers
        if any(results.values(workload, case, peer, metric) for case in results.cases(workload))
    ]
    width = 0.8 / max(len(peers), 1)
    cases = sorted(results.cases(workload), key=lambda case: int(case.split()[0]))
    for number, peer in enumerate(peers):
        for place, case in enumerate(cases):
            values = results.values(workload, case, peer, metric)
            if not values:
                continue
            one = spread(list(values.values()))
            x = place + (number - (len(peers) - 1) / 2) * width
            label = peer if place == 0 else None
            axes.bar(x, one.median, width * 0.92, color=_COLOURS[peer], label=label)
            axes.plot([x, x], [one.least, one.most], color="#1a1a1a", linewidth=1)
    axes.set_xticks(range(len(cases)), cases, fontsize=9)


def memory(results: Results, path: Path) -> None:
    """Draw memory and latency with 10,000 connections."""
    wanted = [name for name in ("slow-downloads", "idle") if results.cases(name)]
    if not wanted:
        return
    figure, grid = plt.subplots(len(wanted), 2, figsize=(9, 2.5 * len(wanted)), squeeze=False)
    for row, name in zip(grid, wanted, strict=True):
        for axes, metric in zip(row, ("rss_mb", "p99_ms"), strict=True):
            _bars(axes, results, name, results.cases(name)[0], metric)
        row[0].set_title(f"{WORKLOADS[name].title}: RSS, MB", fontsize=10, loc="left")
        row[1].set_title("a check meanwhile, 99th percentile, ms", fontsize=10, loc="left")
    _save(figure, results, "Ten thousand connections: less is better", path)


def main() -> None:
    """Draw all plots for which there are figures."""
    results = Results.from_json(json.loads(Path(sys.argv[1]).read_text()))
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("checks", checks), ("downloads", downloads), ("memory", memory)):
        draw(results, folder / f"benchmark-{name}.png")


if __name__ == "__main__":
    main()
