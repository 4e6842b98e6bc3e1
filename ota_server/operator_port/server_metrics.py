"""Metrics of the processes: requests, downloads, connections, the journal, memory. Pure.

Of a server that does not answer there are no figures: zeros would say that it counts from nothing.
While it answers, each label value of a fixed set has a sample from the start, so that the first one
that is counted is seen as growth.
"""

from collections.abc import Iterable, Iterator, Mapping

from ota_server.device_port.counts import CountedRoute, RejectReason
from ota_server.device_port.live_figures import JournalFigures, LiveFigures, SlotFigures
from ota_server.httpd.turn_counts import BUCKET_SECONDS
from ota_server.journal.transfers import TransferEnd
from ota_server.operator_port.exposition import (
    MetricFamily,
    Sample,
    counter,
    gauge,
    histogram,
)
from ota_server.operator_port.metrics_input import MetricsInput, ProcessFigures

# The statuses that each route is known to answer with; others have a sample once they are met.
_CODES = {
    CountedRoute.CHECK: (200, 401, 405, 500, 503),
    CountedRoute.IMAGE: (200, 206, 304, 401, 404, 405, 412, 416, 429, 500, 503),
    CountedRoute.FILE: (200, 304, 429),
    CountedRoute.DOCUMENT: (200, 401, 404, 503),
    CountedRoute.NAMED_IMAGE: (200, 206, 304, 404, 416, 503),
    CountedRoute.DDI: (200, 206, 401, 404, 413, 503),
    CountedRoute.HEALTH: (200,),
    CountedRoute.OTHER: (200, 401, 404, 405, 413),
    CountedRoute.MALFORMED: (400, 408, 413, 414, 431, 501, 503, 505),
}


def process_families(given: MetricsInput) -> Iterator[MetricFamily]:
    """Yield the metrics of this program and of its two processes."""
    yield gauge(
        "ota_build_info",
        "Always 1; the labels say which version runs on which Python.",
        [Sample(1, {"version": given.version, "python": given.python})],
    )
    yield gauge(
        "ota_server_up",
        "Whether the controller hears the device server: 1 or 0.",
        given.server is not None,
    )
    yield counter(
        "ota_journal_skipped_lines_total",
        "Lines of the journal that are no records, and were skipped.",
        given.skipped_lines,
    )
    if given.server_process is not None:
        yield from _process("process_", "the device server", given.server_process)
    if given.controller is not None:
        yield from _process("ota_controller_", "the controller", given.controller)


def _process(prefix: str, whose: str, process: ProcessFigures) -> Iterator[MetricFamily]:
    for kind, name, about, value in (
        (counter, "cpu_seconds_total", "Processor time of %s, in seconds.", process.cpu_seconds),
        (gauge, "resident_memory_bytes", "Memory of %s, in bytes.", process.resident_bytes),
        (gauge, "virtual_memory_bytes", "Address space of %s, in bytes.", process.virtual_bytes),
        (gauge, "open_fds", "Open files and sockets of %s.", process.open_files),
        (gauge, "max_fds", "How many files and sockets %s may have open.", process.most_files),
        (gauge, "start_time_seconds", "When %s started (Unix time).", process.started_seconds),
    ):
        yield kind(prefix + name, about % whose, value)


def server_families(server: LiveFigures) -> Iterator[MetricFamily]:
    """Yield what the device server counts."""
    yield counter(
        "ota_requests_total",
        "Requests that were answered, by what they asked for and the status of the answer.",
        _requests(server.requests),
    )
    yield histogram(
        "ota_request_duration_seconds",
        "From the beginning of the turn that read a request until its reply was handed to the "
        "kernel, in seconds.",
        BUCKET_SECONDS,
        server.durations,
        float(server.duration_seconds),
    )
    yield counter(
        "ota_rejected_requests_total",
        "Requests that were put on the list of rejected ones, by the reason.",
        _each("reason", RejectReason, server.rejected),
    )
    yield gauge(
        "ota_server_start_timestamp_seconds",
        "Since when the server answers devices (Unix time).",
        _seconds(server.since_ms),
    )
    yield gauge(
        "ota_last_device_seen_timestamp_seconds",
        "When a device was last answered (Unix time); 0: not since the server started.",
        _seconds(server.last_request_ms),
    )
    yield gauge("ota_downloads_in_progress", "Images on their way to devices.", server.running)
    yield counter(
        "ota_downloads_total",
        "Images that were sent to devices, or parts of one, by how that ended.",
        _each("end", TransferEnd, server.ends),
    )
    yield counter(
        "ota_sent_bytes_total",
        "Bytes of images that devices had acknowledged when their downloads ended.",
        server.sent_bytes,
    )
    yield from _connections(server)
    yield from _journal(server.journal)
    if server.slots is not None:
        yield from _slots(server.slots)


def _connections(server: LiveFigures) -> Iterator[MetricFamily]:
    yield gauge("ota_connections", "Connections of clients that are open.", server.connections)
    yield counter(
        "ota_connections_accepted_total",
        "Connections that were accepted, refused ones too.",
        server.accepted_connections,
    )
    yield counter(
        "ota_connections_refused_total",
        "Connections that were refused with 503, since there were too many.",
        server.refused_connections,
    )
    yield gauge("ota_known_devices", "Devices in the table of the server.", server.devices)
    yield counter(
        "ota_turned_away_total",
        "Requests of new devices that were answered and not kept, since the table is full.",
        server.turned_away,
    )


def _journal(journal: JournalFigures) -> Iterator[MetricFamily]:
    yield counter("ota_journal_records_total", "Records that were written.", journal.records)
    yield counter("ota_journal_errors_total", "Writes to the journal that failed.", journal.errors)
    yield counter(
        "ota_journal_outages_total",
        "How often the journal became impossible to write.",
        journal.outages,
    )
    yield gauge(
        "ota_journal_failing",
        "Whether the journal cannot be written at this moment: 1 or 0.",
        journal.is_failing,
    )
    yield gauge(
        "ota_journal_unrecorded_devices",
        "Devices whose newest record waits until the journal can be written.",
        journal.unrecorded,
    )
    yield gauge(
        "ota_journal_last_write_timestamp_seconds",
        "When the journal was written last (Unix time); 0: it is not there.",
        _seconds(journal.written_ms),
    )


def _slots(slots: SlotFigures) -> Iterator[MetricFamily]:
    yield gauge("ota_download_slots", "How many devices may download at once.", slots.limit)
    yield gauge("ota_download_slots_used", "Devices that download with a slot.", slots.downloading)
    yield gauge(
        "ota_download_slots_waiting",
        "Devices that were refused a slot and have not had one since.",
        slots.waiting,
    )


def _requests(requests: Mapping[str, Mapping[str, int]]) -> Iterator[Sample]:
    for route in CountedRoute:
        counted = {str(code): 0 for code in _CODES[route]} | dict(requests.get(route, {}))
        for code, count in sorted(counted.items()):
            yield Sample(count, {"route": route, "code": code})


def _each(label: str, names: Iterable[str], counts: Mapping[str, int]) -> list[Sample]:
    return [Sample(counts.get(name, 0), {label: name}) for name in names]


def _seconds(ms: int) -> float:
    return ms / 1000
