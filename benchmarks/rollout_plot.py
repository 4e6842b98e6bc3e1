"""The plot of `benchmarks.rollout_sim`, by matplotlib; run by the Python that has it.

    python -m benchmarks.rollout_sim --results results.json
    python -m benchmarks.rollout_plot results.json screenshots/rollouts.png

Both axes show devices. The limit on failures is a share of devices that fail, so it is not drawn.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_COLOURS = ("#d1495b", "#2e4057", "#66a182", "#c9b458", "#4f8fba")
_TITLES = {
    "good": "nothing else happens",
    "cut": "half of all transfers are cut",
    "outage": "the server is away",
    "killed": "the server is killed, three times",
    "power": "a site loses its power",
    "boot": "30 % cannot boot it",
    "bricks": "30 % are bricked, silently",
    "one-version": "it fails on devices from one version",
    "falls-back": "30 % fall back after a good boot",
}
_GREY = "#555555"


def _draw(axes: Axes, results: list[dict[str, Any]], column: int, end: str, title: str) -> None:
    """Draw a line for each scenario: the share of the fleet over time."""
    for colour, result in zip(_COLOURS, results, strict=False):
        seconds = [sample[0] for sample in result["samples"]]
        counts = [sample[column] for sample in result["samples"][:-1]]
        # The last sample was taken a moment before the end that it tells of.
        counts.append(result[end])
        shares = [100 * count / result["devices"] for count in counts]
        axes.plot(seconds, shares, color=colour, label=_TITLES[result["scenario"]])
        axes.plot(seconds[-1:], shares[-1:], "o", color=colour, markersize=4)
    axes.set_title(title, fontsize=10, loc="left", color=_GREY)
    axes.set_xlabel("seconds since `rollout start`", fontsize=8, color=_GREY)
    axes.set_ylabel("% of the fleet", fontsize=8, color=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_GREY)
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylim(bottom=0)


def main() -> None:
    """Draw the results named by the first argument into the file named by the second."""
    results = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    _draw(
        left,
        [each for each in results if each["is_good"]],
        2,
        "runs",
        "a good release: devices that run it",
    )
    bad = [each for each in results if not each["is_good"]]
    _draw(right, bad, 1, "had", "a bad release, up to its halt: devices that ever had all of it")
    devices = results[0]["devices"]
    # To compare with: how many devices the first wave has.
    first = results[0]["waves"][0]
    right.set_ylim(top=max(1.6 * first, right.get_ylim()[1]))
    right.axhline(first, color=_GREY, linewidth=1, linestyle=":")
    text = f"the first wave: {first:g} %"
    right.annotate(text, (0, first), fontsize=8, color=_GREY, va="bottom")
    *waves, last = (f"{wave:g}" for wave in results[0]["waves"])
    title = f"Rollouts in waves of {', '.join(waves)} and {last} % over {devices:,} devices"
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
