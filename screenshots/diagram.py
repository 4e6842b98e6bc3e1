"""The block diagram of the program's logic, laid by hand and written as SVG. Pure."""

from html import escape

WIDTH, HEIGHT = 1080, 1036

EDGE, IO, PURE, FILE = "#dbeafe", "#fdecc8", "#d9f2e0", "#f1f3f5"
INK, QUIET, LINE = "#1f2933", "#52606d", "#7b8794"

# Columns: x and width.
DEVICE = 20, 44
THREADS = 112, 196
PATH = 356, 312
VALUES = 760, 300

DASHED = 'stroke-dasharray="5 4" marker-end="url(#tip)"'

TOP, ROW, BOX = 76, 82, 64
FILES_Y = TOP + 10 * ROW + 18

# Each step of a request: module, what it does there (two lines), kind.
STEPS = (
    (
        "loop.py, link.py",
        "one event loop, all connections; for the",
        "common check checks.py goes to 7 at once",
        EDGE,
    ),
    (
        "connection.py",
        "the connection machine, without a socket:",
        "buffer, order, deadlines",
        EDGE,
    ),
    ("service.py", "the routes, and the one place where", "an exception becomes a status", EDGE),
    (
        "offers.py, download.py",
        "by version.txt and what operators decided,",
        "or the image that the device began",
        EDGE,
    ),
    (
        "store.py, hashing.py",
        "the image of that version or SHA-256:",
        "one open file, its digests, a private copy",
        IO,
    ),
    (
        "download.py",
        "the bytes that are asked for; a check of",
        "/version.txt goes from 4 to 7 at once",
        EDGE,
    ),
    (
        "fleet.py",
        "the live table: the device as it is now,",
        "its record queued under the same lock",
        IO,
    ),
    (
        "journal.py",
        "whole lines by one write, before the",
        "first byte of their replies leaves",
        IO,
    ),
    ("connection.py", "what to send, in order:", "head, bytes, spans of open files", EDGE),
    (
        "link.py",
        "what the client takes, by sendfile; the last",
        "64 KiB only while the file is unchanged",
        EDGE,
    ),
)
LAST = len(STEPS) - 1

# What a step asks of the pure modules: step, call, in and out, and what else can come out.
CALLS = (
    (1, "http1.read_request", "bytes → Request", "or Refused: 400 413 414 431 501 505"),
    (2, "device.parse_report", "fields → Report", "or Unidentified: 401"),
    (
        3,
        "rollout.decide, continued_download",
        "Report, Target, Policy → Decision",
        "Download, Range → go on with it, or begin",
    ),
    (4, "release", "version.txt → version", "which spellings mean the same version"),
    (5, "byterange.precondition, resolve", "fields, size → spans", "or 304, 412, 416"),
    (
        6,
        "device.checked, asked_for_image",
        "Device, Report → Device",
        "what was known → what is known",
    ),
    (7, "record.format_record", "Device → one line of JSON", "the newest line is the device"),
    (8, "reply, http1.reply_head", "status, image, spans → Reply", "Reply → head and parts"),
)


def svg() -> str:
    """Return the diagram."""
    parts = [
        _heading(THREADS, "threads"),
        _heading(PATH, "one request, from top to bottom"),
        _heading(VALUES, "pure: values in, values out"),
        *_device(),
        *_steps(),
        *_calls(),
        *_threads(),
        *_files(),
        *_legend(),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="DejaVu Sans, Verdana, sans-serif">\n'
        "<title>The path of a request through ota_server</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto-start-reverse">'
        f'<path d="M0,0.5 L7.5,4 L0,7.5 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _y(step: int) -> int:
    return TOP + step * ROW


def _text(
    x: float, y: float, text: str, size: float = 12, colour: str = INK, extra: str = ""
) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" {extra}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" '
        f'stroke="{LINE}" {extra}/>'
    )


def _arrow(path: str, extra: str = 'marker-end="url(#tip)"') -> str:
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" {extra}/>'


def _heading(column: tuple[int, int], text: str) -> str:
    x, width = column
    middle = x + width / 2
    return _text(middle, 56, text, 15, QUIET, 'text-anchor="middle" font-weight="bold"')


def _card(
    column: tuple[int, int], y: float, height: float, fill: str, title: str, *lines: str
) -> list[str]:
    x, width = column
    parts = [
        _box(x, y, width, height, fill),
        _text(x + 12, y + 21, title, 13.5, INK, 'font-weight="bold"'),
    ]
    parts += [_text(x + 12, y + 38 + 16 * i, line, 12, QUIET) for i, line in enumerate(lines)]
    return parts


def _device() -> list[str]:
    x, width = DEVICE
    top, bottom = _y(0), _y(LAST) + BOX
    middle = x + width / 2 + 5
    turned = f'text-anchor="middle" transform="rotate(-90 {middle} {(top + bottom) / 2})"'
    to_path = PATH[0] - 2
    return [
        _box(x, top, width, bottom - top, FILE),
        _text(middle, (top + bottom) / 2, "a device, or a proxy before it", 14, INK, turned),
        _arrow(f"M{x + width},{_y(0) + 24} H{to_path}"),
        _text(x + width + 10, _y(0) + 18, "GET /firmware.bin", 12, INK),
        _text(x + width + 10, _y(0) + 41, "_br_mac_, _br_fwv_", 12, QUIET),
        _arrow(f"M{PATH[0]},{_y(LAST) + 20} H{x + width + 2}"),
        _text(x + width + 14, _y(LAST) + 14, "the reply", 12, INK),
        _arrow(f"M{x + width},{_y(LAST) + 48} H{to_path}", DASHED),
        _text(x + width + 14, _y(LAST) + 42, "what its TCP has acknowledged", 12, QUIET),
    ]


def _steps() -> list[str]:
    parts = []
    x, width = PATH
    for number, (title, first, second, fill) in enumerate(STEPS):
        parts += _card(PATH, _y(number), BOX, fill, f"{number + 1}  {title}", first, second)
        if number:
            parts.append(_arrow(f"M{x + 46},{_y(number - 1) + BOX} V{_y(number) - 2}"))
    right = x + width
    parts += [
        *_card(
            VALUES,
            _y(LAST),
            BOX,
            EDGE,
            "download.finish",
            "what was acknowledged, complete or cut,",
            "goes on record by way of 7 and 8",
        ),
        _arrow(f"M{right + 2},{_y(LAST) + 44} H{VALUES[0] - 2}", DASHED),
        _text(right + 8, _y(LAST) + 38, "its end", 11, QUIET),
    ]
    return parts


def _calls() -> list[str]:
    parts = []
    right = PATH[0] + PATH[1]
    for step, call, values, otherwise in CALLS:
        lines = (values, otherwise) if otherwise else (values,)
        parts += _card(VALUES, _y(step), BOX, PURE, call, *lines)
        both = 'marker-end="url(#tip)" marker-start="url(#tip)"'
        if call.startswith("record."):
            # It is the table that has the line made, before the journal writes it.
            turn = (right + VALUES[0]) / 2
            start = f"M{right + 2},{_y(step - 1) + 48} H{turn}"
            parts.append(_arrow(f"{start} V{_y(step) + 26} H{VALUES[0] - 2}", both))
        else:
            parts.append(_arrow(f"M{right + 2},{_y(step) + 26} H{VALUES[0] - 2}", both))
    return parts


def _threads() -> list[str]:
    right = THREADS[0] + THREADS[1]
    left = PATH[0] - 2
    cards = (
        (
            1,
            0,
            "server.py: accept",
            "503 beyond the limit; drains;",
            "or threads.py in place of 1",
        ),
        (4, 0, "hashing.py: hasher", "hashes and copies an image", "unchanged for two seconds"),
        (6, 41, "chores, and sync", "ten times a second: recover,", "rotate, snapshot; and fsync"),
        (8, 0, "readahead.py", "reads what of an image", "is not in memory"),
    )
    parts = []
    for step, offset, title, *lines in cards:
        parts += _card(THREADS, _y(step) + offset, BOX, EDGE if step == 1 else IO, title, *lines)
    half = left - (left - right) / 2
    parts += [
        _arrow(f"M{right},{_y(1) + 32} H{half} V{_y(0) + 48} H{left}"),
        _arrow(f"M{right},{_y(4) + 32} H{left}"),
        _arrow(f"M{right},{_y(6) + 73} H{half} V{_y(6) + 32} H{left}"),
        _arrow(f"M{half},{_y(6) + 73} V{_y(7) + 32} H{left}"),
        _arrow(f"M{right},{_y(8) + 32} H{half} V{_y(9) + 12} H{left}"),
    ]
    return parts


def _files() -> list[str]:
    x, width = DEVICE[0], WIDTH - 2 * DEVICE[0]
    parts = [
        _box(x, FILES_Y, width, 98, "#fafbfc", 'stroke-dasharray="2 3"'),
        _text(
            x + 12,
            FILES_Y + 20,
            "files on disk, in the data directory",
            13,
            QUIET,
            'font-weight="bold"',
        ),
    ]
    files = (
        ("version/version.txt", "read by 5", 182),
        ("firmware/firmware_X.bin", "read by 5 and 10", 214),
        ("log/devices.jsonl", "written by 8", 168),
        ("log/devices.000001.jsonl", "older ones; read at start", 224),
        ("log/rejected.jsonl", "written by chores", 170),
    )
    left = x + 10
    for name, use, size in files:
        parts += _card((left, size), FILES_Y + 32, 52, FILE, name, use)
        left += size + 13
    return parts


def _legend() -> list[str]:
    parts = []
    x = DEVICE[0]
    for fill, text in ((EDGE, "edge: wiring"), (IO, "I/O: files and locks"), (PURE, "pure")):
        parts += [_box(x, 14, 18, 14, fill), _text(x + 25, 26, text, 12, QUIET)]
        x += 56 + round(6.4 * len(text))
    return parts
