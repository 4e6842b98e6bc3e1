"""What is measured: the metrics and their units, the workloads and what each compares. Pure."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Metric:
    """One kind of figure; `form` shows one of its values, `compared` ones get ratios."""

    title: str
    form: str
    compared: bool = False


METRICS = {
    "rate": Metric("requests/s", "{:,.0f}", compared=True),
    "cpu_us": Metric("CPU, µs/request", "{:.1f}", compared=True),
    "p50_ms": Metric("median, ms", "{:.2f}"),
    "p99_ms": Metric("99th percentile, ms", "{:.2f}"),
    "rss_mb": Metric("RSS, MB", "{:.1f}", compared=True),
    "peak_mb": Metric("peak RSS, MB", "{:.1f}"),
    "tcp_mb": Metric("TCP memory of the kernel, MB", "{:,.0f}"),
    "mb_per_s": Metric("MB/s", "{:,.0f}", compared=True),
    "cpu_s_per_gb": Metric("CPU, s/GB", "{:.3f}", compared=True),
    "answered": Metric("answered", "{:,.0f}"),
    "clients": Metric("clients", "{:,.0f}"),
    "delivery": Metric("delivery", "{:.3f}"),
    "pollers": Metric("pollers", "{:,.0f}"),
    "mb_per_10k": Metric("MB per 10,000 pollers", "{:.1f}", compared=True),
    "threads": Metric("threads", "{:.0f}"),
    "threads_before": Metric("threads before", "{:.0f}"),
    "first_s": Metric("first answer, s", "{:.2f}"),
    "first_rss_mb": Metric("RSS then, MB", "{:.1f}"),
    "loaded_s": Metric("all rows loaded, s", "{:.1f}"),
    "journal_mb": Metric("journal, MB", "{:,.0f}"),
}


@dataclass(frozen=True)
class Workload:
    """One thing that is measured.

    Attributes:
        how: what is done, for readers of the report.
        peers: who can do it, ours first; a single one: the cases are compared with the first.
        metrics: the columns of its table; more may be in results.json.
    """

    name: str
    title: str
    how: str
    peers: tuple[str, ...]
    metrics: tuple[str, ...]


_PAGE = ("ota_server", "before", "nginx", "http.server", "aiohttp", "uvicorn", "goosebit")
_CHECK = ("rate", "cpu_us", "p50_ms", "p99_ms", "rss_mb")
_KEPT = tuple(name for name in _PAGE if name != "http.server")
_FILES = tuple(name for name in _PAGE if name != "goosebit")
_DOWNLOAD = ("mb_per_s", "cpu_s_per_gb", "rss_mb", "peak_mb", "threads")

_ALL = (
    Workload(
        "check-new",
        "Check, a new connection for each",
        "wrk, 16 connections at a time, `Connection: close`, one device.",
        _PAGE,
        _CHECK,
    ),
    Workload(
        "check-keepalive-one",
        "Check, keep-alive, one device",
        "wrk, 16 connections, all as one device. http.server speaks HTTP/1.0, so it has no part.",
        _KEPT,
        _CHECK,
    ),
    Workload(
        "check-keepalive-100k",
        "Check, keep-alive, 100,000 devices",
        "wrk, 16 connections, each request from the next of 100,000 MAC addresses.",
        _KEPT,
        _CHECK,
    ),
    Workload(
        "check-esp32",
        "Check of an ESP32, 304, a new connection for each",
        "wrk, 16 connections at a time, HTTP/1.0 with `Connection: close` and all that Arduino's "
        "HTTPUpdate sends, each request from the next of 100,000 MAC addresses. Each asks for the "
        "image and runs it. This server knows that by the version that it says; nginx, without "
        "logic, by an If-None-Match with the ETag of the file, which no such device sends.",
        ("ota_server", "before", "nginx"),
        _CHECK,
    ),
    Workload(
        "ddi-polling",
        "Polls of hawkBit's DDI, keep-alive, with the memory of 10,000 devices",
        "First each device polls, says its version and polls again; by how much RSS grew is the "
        "memory of these pollers. Then wrk, 16 connections, each poll from the next of "
        "them; none has anything to do. gooseBit, which takes minutes to get to know 10,000 "
        "devices, has 1,000 in all rounds but the first; where it has as few in that too, its "
        "memory is that of 1,000, times ten.",
        ("ota_server", "goosebit"),
        ("rate", "cpu_us", "p50_ms", "p99_ms", "rss_mb", "pollers", "mb_per_10k"),
    ),
    Workload(
        "download-1m",
        "Download of 1 MiB",
        "wrk, keep-alive, each download by another device. MB are 10^6 bytes.",
        _FILES,
        _DOWNLOAD,
    ),
    Workload(
        "download-1m-new",
        "Download of 1 MiB, a new connection for each",
        "wrk, `Connection: close`, as devices do it: they wake, connect, download and restart.",
        _FILES,
        _DOWNLOAD,
    ),
    Workload(
        "download-64m",
        "Download of 64 MiB",
        "wrk, keep-alive, with an image of 64 MiB; bytes of downloads that the end cut off count "
        "too.",
        _FILES,
        _DOWNLOAD,
    ),
    Workload(
        "slow-downloads",
        "10,000 slow downloads",
        "A slow client of our own: 10,000 connections with a receive buffer of 8 KiB, each reading "
        "4 KiB/s of an image of 1 MiB. Delivery is what they got of that. Meanwhile a check on a "
        "new connection each 20 ms: median and 99th percentile. RSS is the most that was seen. "
        "aiohttp and uvicorn take part in the first round alone.",
        ("ota_server", "before", "nginx", "nginx-default", "aiohttp", "uvicorn"),
        ("answered", "delivery", "rss_mb", "tcp_mb", "threads", "p50_ms", "p99_ms"),
    ),
    Workload(
        "idle",
        "10,000 idle connections",
        "Each made one check and stays open. Meanwhile a check on a new connection each 20 ms. "
        "aiohttp and uvicorn take part in the first round alone.",
        ("ota_server", "before", "nginx", "aiohttp", "uvicorn"),
        ("answered", "rss_mb", "threads", "p50_ms", "p99_ms"),
    ),
    Workload(
        "restart",
        "Restart with known devices",
        "From the start of the process until the first check is answered, and, in the first round, "
        "until all rows are loaded. All fields of all devices are set; the journal is in the page "
        "cache.",
        ("ota_server",),
        ("first_s", "first_rss_mb", "loaded_s", "rss_mb", "peak_mb", "journal_mb"),
    ),
    Workload(
        "growth",
        "Growth: checks by the number of known devices",
        "wrk, keep-alive, 16 connections, 100,000 requests drawn from the known devices. One "
        "server for each number runs all the time; they are loaded in turn.",
        ("ota_server",),
        ("cpu_us", "rate", "rss_mb"),
    ),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
