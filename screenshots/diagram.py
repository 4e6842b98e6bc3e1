"""The block diagrams, laid by hand and written as SVG: the path of a request, the rooms. Pure."""

from html import escape

WIDTH, HEIGHT = 1080, 1036

# One colour for each room that a request passes.
HTTPD, DEVICE_PORT, RELEASES, JOURNAL = "#dbeafe", "#ede4fb", "#fdecc8", "#fbdcd3"
PURE, FILE = "#d9f2e0", "#f1f3f5"
ROOMS_OF_A_REQUEST = (
    (HTTPD, "httpd"),
    (DEVICE_PORT, "device_port"),
    (RELEASES, "releases"),
    (JOURNAL, "journal"),
    (PURE, "pure: values in, values out"),
)
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
        "event_loop, channel",
        "one event loop, all connections; the common",
        "check goes by fast_path from 1 to 7 at once",
        HTTPD,
    ),
    (
        "connection",
        "the connection machine, without a socket:",
        "buffer, order, deadlines",
        HTTPD,
    ),
    (
        "service",
        "the routes, and the one place where",
        "an exception becomes a status",
        DEVICE_PORT,
    ),
    (
        "offers, resume",
        "by version.txt and what operators decided,",
        "or the image that the device began",
        DEVICE_PORT,
    ),
    (
        "store, hashing",
        "the image of that version or SHA-256:",
        "one open file, its digests, a private copy",
        RELEASES,
    ),
    (
        "downloads",
        "the bytes that are asked for; a check of",
        "/version.txt goes from 4 to 7 at once",
        DEVICE_PORT,
    ),
    (
        "device_table",
        "the live table: the device as it is now,",
        "its record queued under the same lock",
        JOURNAL,
    ),
    (
        "writer",
        "whole lines by one write, before the",
        "first byte of their replies leaves",
        JOURNAL,
    ),
    ("connection", "what to send, in order:", "head, bytes, spans of open files", HTTPD),
    (
        "channel",
        "what the client takes, by sendfile; the last",
        "64 KiB only while the file is unchanged",
        HTTPD,
    ),
)
LAST = len(STEPS) - 1

# What a step asks of the pure modules: step, call, in and out, and what else can come out.
CALLS = (
    (1, "httpd.http1", "bytes → Request", "or a refusal: 400 413 414 431 501 505"),
    (2, "model.device.parse_report", "fields → Report", "or Unidentified: 401"),
    (
        3,
        "policy.decision, device_port.resume",
        "Report, Target, Policy → Decision",
        "Download, Range → go on with it, or begin",
    ),
    (4, "model.version", "version.txt → version", "which spellings mean the same version"),
    (5, "httpd.byterange", "fields, size → spans", "or 304, 412, 416"),
    (
        6,
        "model.device",
        "Device, Report → Device",
        "what was known → what is known",
    ),
    (7, "journal.record", "Device → one line of JSON", "the newest line is the device"),
    (8, "httpd.reply", "status, image, spans → Reply", "Reply → head and parts"),
)


def svg() -> str:
    """Return the diagram."""
    parts = [
        _heading(THREADS, "threads"),
        _heading(PATH, "one request, from top to bottom"),
        _heading(VALUES, "what decides"),
        *_device(),
        *_steps(),
        *_calls(),
        *_threads(),
        *_files(),
        *_legend(),
    ]
    return _document(WIDTH, HEIGHT, "The path of a request through ota_server", parts)


def _document(width: int, height: int, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Verdana, sans-serif">\n'
        f"<title>{title}</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto-start-reverse">'
        f'<path d="M0,0.5 L7.5,4 L0,7.5 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
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
            DEVICE_PORT,
            "downloads, when it ends",
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
        if call == "journal.record":
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
            HTTPD,
            "listener",
            "accepts; 503 beyond a limit;",
            "or threads in place of 1",
        ),
        (4, 0, RELEASES, "hashing", "hashes and copies an image", "unchanged for two seconds"),
        (
            6,
            41,
            JOURNAL,
            "chores, and sync",
            "ten times a second: recover,",
            "rotate, snapshot; and fsync",
        ),
        (8, 0, HTTPD, "readahead", "reads what of an image", "is not in memory"),
    )
    parts = []
    for step, offset, fill, title, *lines in cards:
        parts += _card(THREADS, _y(step) + offset, BOX, fill, title, *lines)
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
    for fill, text in ROOMS_OF_A_REQUEST:
        parts += [_box(x, 14, 18, 14, fill), _text(x + 25, 26, text, 12, QUIET)]
        x += 56 + round(6.4 * len(text))
    return parts


# The rooms from top to bottom, and which process loads them: the device server, the controller.
DOORS = (
    ("cli.py", "a command of an operator"),
    ("server.py", "the process that answers devices"),
    ("controller.py", "its child, which moves rollouts"),
)
ROOMS = (
    ("commands", "the command line: arguments in, text out", "c"),
    ("operator_port", "what operators see in a browser, by API, by metrics", "r"),
    ("operations", "what operators look at and do, by whatever way", "cr"),
    ("device_port", "what devices ask and get; who may download now", "csr"),
    ("rollouts", "a release in waves: whom it reaches, moving it, how it ends", "csr"),
    ("releases", "versions and their images: published, activated, withdrawn", "csr"),
    ("evaluation", "what became of devices under a release (pure)", "cr"),
    ("policy", "what operators decided, the decision that follows, and why", "csr"),
    ("journal", "the device log, and the live table that is its fold", "csr"),
    ("httpd", "an HTTP/1.1 server that knows no devices", "sr"),
    ("system", "files, locks, the data directory, the log", "csr"),
    ("model", "versions, devices, manifests, times, addresses (pure)", "csr"),
)
HOUSE_WIDTH, HOUSE_HEIGHT = 900, 808
_ROOM_X, _ROOM_WIDTH, _ROOM_HEIGHT, _ROOM_STEP = 20, 520, 46, 54
_COLUMNS = (("c", 590), ("s", 706), ("r", 822))
_FIRST_ROOM = 130


def house_svg() -> str:
    """Return the diagram of the rooms: each imports only rooms below it."""
    parts = []
    for (name, text), (_, x) in zip(DOORS, _COLUMNS, strict=True):
        parts += [
            _text(x, 40, name, 13, INK, 'text-anchor="middle" font-weight="bold"'),
            *(
                _text(x, 60 + 15 * number, line, 10.5, QUIET, 'text-anchor="middle"')
                for number, line in enumerate(_in_two(text))
            ),
            _arrow(f"M{x},{86} V{_FIRST_ROOM - 8}"),
        ]
    parts += [
        _text(_ROOM_X, 40, "the doors, each a program", 13, QUIET, 'font-weight="bold"'),
        _text(_ROOM_X, _FIRST_ROOM - 26, "a room imports", 13, QUIET, 'font-weight="bold"'),
        _text(_ROOM_X, _FIRST_ROOM - 10, "only rooms below it", 13, QUIET, 'font-weight="bold"'),
    ]
    for number, (name, text, users) in enumerate(ROOMS):
        y = _FIRST_ROOM + number * _ROOM_STEP
        fill = PURE if "(pure)" in text else HTTPD
        parts += [
            _box(_ROOM_X, y, _ROOM_WIDTH, _ROOM_HEIGHT, fill),
            _text(_ROOM_X + 14, y + 28, f"{name}/", 14, INK, 'font-weight="bold"'),
            _text(_ROOM_X + 142, y + 28, text, 12, QUIET),
        ]
        for user, x in _COLUMNS:
            if user in users:
                parts.append(f'<circle cx="{x}" cy="{y + 23}" r="9" fill="{LINE}"/>')
            else:
                parts.append(_text(x, y + 28, "·", 14, LINE, 'text-anchor="middle"'))
    return _document(HOUSE_WIDTH, HOUSE_HEIGHT, "The rooms of ota_server", parts)


def _in_two(text: str) -> tuple[str, str]:
    words = text.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]), " ".join(words[half:])
