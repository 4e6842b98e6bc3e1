"""The report of a run as Markdown. Pure: results in, text out."""

from collections.abc import Callable

from benchmarks.bounds import Verdict, judge
from benchmarks.figures import NOT_ASKED, OURS, Results, ratio, spread
from benchmarks.metrics import METRICS, WORKLOADS, Workload
from benchmarks.peers import PEERS

_NOTES = """\
Each cell is the median of the rounds, with the least and the greatest in brackets. In each round
every peer has its turn, and the next round begins with another one; *ours/peer* is the median of
the ratios within each round. Every server runs as a process of its own, with the same files, on the
same machine as the load. CPU is the user and system time of the server's processes, from
`/proc/PID/stat`. RSS is `VmRSS`, the peak `VmHWM`, summed over the server's processes: what two of
them share counts twice. MB are 10^6 bytes, MiB 2^20."""


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = ["# Results of the benchmarks", _header(results), _NOTES]
    parts += ["## Summary", summary(results), "## Bounds", bounds_table(results)]
    for workload in WORKLOADS.values():
        if results.cases(workload.name):
            parts += [f"## {workload.title}", workload.how, *_tables(results, workload)]
    parts += _gaps(results)
    return "\n\n".join(parts) + "\n"


def with_tables(text: str, results: Results) -> str:
    """Return a text with the tables of these results between its marks, where it has any."""
    for name, table in (
        ("summary", summary(results)),
        ("bounds", bounds_table(results)),
        ("figures", figures(results)),
    ):
        begin, end = f"<!-- {name} of the benchmarks -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if after:
            text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def _header(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in results.about.items()]
    return "\n".join(lines)


def _gaps(results: Results) -> list[str]:
    """Return what was not measured, and why."""
    parts = []
    if results.left_out:
        lines = [f"- {name}: {reason}" for name, reason in results.left_out.items()]
        parts += ["## Left out", "\n".join(lines)]
    if results.failures:
        lines = [
            f"- {one.workload}, {one.case}, {one.peer}, round {one.round + 1}: {one.reason[:600]}"
            for one in results.failures
        ]
        parts += ["## Failed", "\n".join(lines)]
    return parts


# Columns of the table that shows all on one screen: workload, case, metric, title.
_SUMMARY = (
    ("check-new", "16 connections", "rate", "checks/s, new connections"),
    ("check-new", "16 connections", "cpu_us", "CPU each, µs"),
    ("check-keepalive-100k", "16 connections", "rate", "checks/s, keep-alive"),
    ("check-esp32", "16 connections", "rate", "ESP32 checks/s, new connections"),
    ("ddi-polling", "16 connections", "rate", "DDI polls/s, keep-alive"),
    ("ddi-polling", "16 connections", "mb_per_10k", "MB for 10,000 DDI pollers"),
    ("download-1m", "16 clients", "mb_per_s", "MB/s, 1 MiB, 16 clients"),
    ("download-1m-new", "16 clients", "mb_per_s", "the same, new connections"),
    ("download-64m", "16 clients", "mb_per_s", "MB/s, 64 MiB, 16 clients"),
    ("slow-downloads", "10,000 clients", "rss_mb", "MB for 10,000 slow downloads"),
    ("slow-downloads", "10,000 clients", "p99_ms", "a check meanwhile, p99, ms"),
)


def summary(results: Results) -> str:
    """Return the medians that say most: a row for each peer, a column for what was measured."""
    measured = {
        (one.workload, one.case, name) for one in results.measurements for name in one.values
    }
    columns = [column for column in _SUMMARY if column[:3] in measured]
    rows = [["peer", *[title for _, _, _, title in columns]]]
    for peer in PEERS.values():
        cells = [peer.label]
        for workload, case, metric, _ in columns:
            values = results.values(workload, case, peer.name, metric)
            cells.append(
                METRICS[metric].form.format(spread([*values.values()]).median) if values else ""
            )
        if any(cells[1:]):
            rows.append(cells)
    about = results.about
    rounds = f"{about['rounds']} round{'s' if about['rounds'] > 1 else ''}"
    return f"Medians of {rounds}, {about['date']}, {about['machine']}:\n\n" + _format(rows)


# What README shows of the summary: workload, case, metric, title. Each stands in it too.
_FIGURES = (
    ("check-new", "16 connections", "rate", "version checks a second, a new connection for each"),
    ("check-keepalive-100k", "16 connections", "rate", "the same on kept connections"),
    ("download-1m", "16 clients", "mb_per_s", "MB a second, images of 1 MiB"),
    ("slow-downloads", "10,000 clients", "rss_mb", "MB of memory for 10,000 slow downloads"),
)


def figures(results: Results) -> str:
    """Return the four figures of README, of this server and of nginx."""
    peers = (OURS, "nginx")
    rows = [["", *[PEERS[peer].label for peer in peers]]]
    for workload, case, metric, title in _FIGURES:
        cells = [title]
        for peer in peers:
            values = results.values(workload, case, peer, metric)
            form = METRICS[metric].form
            cells.append(form.format(spread([*values.values()]).median) if values else "")
        rows.append(cells)
    return _format(rows)


def bounds_table(results: Results, *, measured_only: bool = False) -> str:
    """Return the bounds, each with what was measured of it."""
    rows = [["bound", "goal", "measured", ""]]
    rows += [
        [one.bound.what, _goal(one), _measured(one), _word(one)]
        for one in judge(results)
        if one.figure is not None or (not measured_only and _is_named(one, results))
    ]
    return _format(rows)


def _is_named(verdict: Verdict, results: Results) -> bool:
    """Return whether results without its figure are to say that it was not measured."""
    workload = verdict.bound.workload
    return not workload or results.know(workload)


def _goal(verdict: Verdict) -> str:
    bound = verdict.bound
    return f"{'≥' if bound.least else '≤'} {bound.limit:,g} {bound.unit}".strip()


def _measured(verdict: Verdict) -> str:
    if verdict.figure is None:
        return "not measured"
    whole = verdict.figure == int(verdict.figure) or verdict.figure >= 1000
    return f"{verdict.figure:{',.0f' if whole else '.3g'}} {verdict.bound.unit}".strip()


def _word(verdict: Verdict) -> str:
    return {True: "met", False: "**missed**", None: ""}[verdict.met]


def _tables(results: Results, workload: Workload) -> list[str]:
    """Return a table for each case; where it is ours alone, one that compares the cases."""
    if len(workload.peers) == 1:
        return [cases_table(results, workload)]
    return [peers_table(results, workload, case) for case in results.cases(workload.name)]


def peers_table(results: Results, workload: Workload, case: str) -> str:
    """Return the table of one case: a row for each peer, ours first."""
    asked = [peer for peer in workload.peers if results.left_out.get(peer) != NOT_ASKED]
    rows = [(PEERS[peer].label, case, peer) for peer in asked]
    return f"**{case}**\n\n" + _table(results, workload, rows, "ours/peer", ratio)


def cases_table(results: Results, workload: Workload) -> str:
    """Return the table of a workload that is ours alone: a row for each case."""
    rows = [(case, case, OURS) for case in _by_size(results.cases(workload.name))]
    return _table(results, workload, rows, "to the first", lambda first, this: ratio(this, first))


def _table(
    results: Results,
    workload: Workload,
    rows: list[tuple[str, str, str]],
    title: str,
    compare: Callable[[dict[int, float], dict[int, float]], float | None],
) -> str:
    """Return a table; of each row its label, case and peer. All are compared with the first."""
    head = [""]
    lines = [[label] for label, _, _ in rows]
    for metric in workload.metrics:
        head.append(METRICS[metric].title)
        found = [results.values(workload.name, case, peer, metric) for _, case, peer in rows]
        for line, values in zip(lines, found, strict=True):
            line.append(cell(metric, values))
        if METRICS[metric].compared and len(rows) > 1:
            head.append(title)
            for line, values in zip(lines, found, strict=True):
                line.append("" if values is found[0] else _ratio(compare(found[0], values)))
    return _format([head, *[line for line in lines if any(line[1:])]])


def _by_size(cases: list[str]) -> list[str]:
    """Return cases that begin with a number, the smallest first."""
    return sorted(cases, key=lambda case: (int(case.split()[0].replace(",", "")), len(case)))


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def cell(metric: str, values: dict[int, float]) -> str:
    """Return a median with its spread; nothing for nothing."""
    if not values:
        return ""
    form = METRICS[metric].form
    found = spread(list(values.values()))
    median = form.format(found.median)
    if found.least == found.most:
        return median
    return f"{median} ({form.format(found.least)} to {form.format(found.most)})"


def _format(rows: list[list[str]]) -> str:
    head, *rest = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rest])
