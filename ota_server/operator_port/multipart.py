"""A form with one file, as browsers and `curl -F` send it (RFC 7578), read as it arrives. Pure.

1. Fields come first, each a short text; then one file, which ends the form.
2. Nothing stands before the first boundary or behind the last one, but for a line end.
3. All else is refused: two files, a file before a field, a part without a name, long heads.

The file is never in memory: `FormWithFile.pieces` yields it in the pieces in which it arrives.
"""

import re
from collections.abc import Callable, Iterator

from ota_server.operator_port.asked import Malformed

_TYPE = re.compile(
    rb"multipart/form-data *; *boundary=(?:([0-9A-Za-z'()+_,\-./:=?]{1,70})"
    rb'|"([0-9A-Za-z\'()+_,\-./:=? ]{0,69}[0-9A-Za-z\'()+_,\-./:=?])")',
    re.IGNORECASE,
)
_PARAMETERS = re.compile(rb'(?:; *[a-z]+="(?:[^"\\\r\n]|\\.)*")+', re.IGNORECASE)
_PARAMETER = re.compile(rb'; *([a-z]+)="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)
_ESCAPED = re.compile(rb"\\(.)|%(22|0A|0D)")
_UNESCAPED = {b"22": b'"', b"0A": b"\n", b"0D": b"\r"}
_MOST_HEAD_BYTES = 4096
_MOST_FIELD_BYTES = 4096
_MOST_FIELDS = 16
_LINE = b"\r\n"
_HEAD_END = b"\r\n\r\n"


def boundary_of(content_type: bytes) -> bytes | None:
    """Return the boundary of a form by its Content-Type; None: it is another type."""
    found = _TYPE.fullmatch(content_type.strip())
    return None if found is None else found[1] or found[2]


class FormWithFile:
    """One form. First `read_fields`, then `pieces`.

    Attributes:
        fields: those before the file, by their names.
        file_name: as the browser has it; anything can be in it.
    """

    def __init__(self, boundary: bytes, receive: Callable[[], bytes]) -> None:
        """Begin.

        Args:
            receive: returns the next bytes of the body, b"" at its end.
        """
        self._delimiter = _LINE + b"--" + boundary
        self._receive = receive
        # As if a line had ended before: so the first boundary is like all others.
        self._buffer = bytearray(_LINE)
        self.fields: dict[str, str] = {}
        self.file_name = ""

    def read_fields(self) -> None:
        """Read all up to the file.

        Raises:
            Malformed: it is not such a form.
        """
        if self._take_until(self._delimiter, len(_LINE)):
            raise Malformed("the form does not begin with its boundary")
        for _ in range(_MOST_FIELDS):
            if self._is_end():
                raise Malformed("the form has no file")
            name, file_name = self._part_head()
            if file_name is not None:
                self.file_name = file_name
                return
            content = self._take_until(self._delimiter, _MOST_FIELD_BYTES)
            try:
                self.fields[name] = content.decode("utf-8")
            except UnicodeDecodeError:
                raise Malformed(f"the field {name[:40]!r} is not UTF-8") from None
        raise Malformed(f"the form has over {_MOST_FIELDS} fields before its file")

    def pieces(self) -> Iterator[bytes]:
        """Yield the file, then check that the form ends there.

        Raises:
            Malformed: it does not; what was yielded is not to be used.
        """
        delimiter, buffer = self._delimiter, self._buffer
        while (at := buffer.find(delimiter)) < 0:
            # The end of what is there may be the beginning of a boundary.
            sure = len(buffer) - len(delimiter) + 1
            if sure > 0:
                piece = bytes(buffer[:sure])
                del buffer[:sure]
                yield piece
            self._more()
        if at:
            yield bytes(buffer[:at])
        del buffer[: at + len(delimiter)]
        if not self._is_end():
            raise Malformed("more follows the file: it has to be the last part of the form")
        while more := self._receive():
            buffer += more[: len(_LINE) + 1]
        if buffer not in (b"", _LINE):
            raise Malformed("more follows the end of the form")

    def _is_end(self) -> bool:
        """Return whether a boundary is the last one, and take what is behind it."""
        while len(self._buffer) < len(_LINE):
            self._more()
        mark = bytes(self._buffer[: len(_LINE)])
        del self._buffer[: len(_LINE)]
        if mark not in (b"--", _LINE):
            raise Malformed("a boundary is malformed")
        return mark == b"--"

    def _part_head(self) -> tuple[str, str | None]:
        """Return the name of the next part, and of its file; None: it is a field."""
        head = self._take_until(_HEAD_END, _MOST_HEAD_BYTES)
        for line in head.split(_LINE):
            label, _, value = line.partition(b":")
            if label.strip().lower() != b"content-disposition":
                continue
            kind, rest = value.strip()[:9], value.strip()[9:]
            if kind.lower() == b"form-data" and _PARAMETERS.fullmatch(rest):
                found = {name.lower(): _text(each) for name, each in _PARAMETER.findall(rest)}
                if b"name" in found:
                    return found[b"name"], found.get(b"filename")
        raise Malformed("a part of the form has no name")

    def _take_until(self, mark: bytes, most: int) -> bytes:
        """Take what comes before a mark, and the mark."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > most + len(mark):
                raise Malformed("a part of the form is too long")
            self._more()
        if at > most:
            raise Malformed("a part of the form is too long")
        content = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return content

    def _more(self) -> None:
        more = self._receive()
        if not more:
            raise Malformed("the form ends before its last boundary")
        self._buffer += more


def _text(value: bytes) -> str:
    """Return a name: `curl` and browsers each escape quotes in a way of their own."""
    plain = _ESCAPED.sub(lambda found: found[1] or _UNESCAPED[found[2]], value)
    return plain.decode("utf-8", "replace")
