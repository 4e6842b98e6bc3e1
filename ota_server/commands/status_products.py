"""What `status` shows of several products: a line for each, and what is wrong with any. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ota_server.commands.status_view import (
    headline,
    rows_of_all,
    warning_lines,
    wrapped_row,
)
from ota_server.operations.product_warnings import OF_ALL, named_warnings
from ota_server.policy.device_state import Condition
from ota_server.policy.fleet_status import FleetFacts, FleetStatus

_DEFAULT = "default"
_HEADER = ("PRODUCT", "TARGET", "ROLLOUT")
_COUNTED = {
    "UP TO DATE": Condition.UP_TO_DATE,
    "UNDECIDED": Condition.UNDECIDED,  # only where there are some, as in the screen of one
    "BEHIND": Condition.BEHIND,
    "HELD": Condition.HELD_BACK,
    "FAILED": Condition.FAILED,
    "SILENT": Condition.SILENT,
    "AWAY": Condition.AWAY,
}
_ONE = "`status --product NAME` shows all of one"
_NEEDS_PERSON = "! "
_GAP = "  "


def products_lines(
    found: Mapping[str, FleetStatus], columns: int, paste: Callable[[str], str] = str
) -> list[str]:
    """Return the status of several products, by their names; holds are in the last line.

    Args:
        columns: of the text; the table is as wide as it has to be.
        paste: makes the commands in a text such that they can be pasted.
    """
    lines = [*_table(found), paste(_ONE), ""]
    warnings = [*named_warnings(found)]
    people = [each for each in warnings if each.needs_person]
    others = [each for each in warnings if not each.needs_person]
    lines.append(headline(len(people), len(others)))
    lines += warning_lines(people, columns, "  ")
    if people and others:
        lines.append("worth knowing:")
    lines += warning_lines(others, columns, "  ")
    lines.append("")
    for name, text in rows_of_all(_facts_of_all(found), paste):
        lines += wrapped_row(name, text, columns)
    held = [name or _DEFAULT for name, status in found.items() if status.facts.hold is not None]
    return [*lines, *wrapped_row("hold", ", ".join(held) or "none", columns)]


def _facts_of_all(found: Mapping[str, FleetStatus]) -> FleetFacts:
    """Return what was found of the server, with the disks of all products, each once."""
    every = [status.facts for status in found.values()]
    disks = {disk.folder: disk for facts in every for disk in facts.disks}
    return every[0]._replace(disks=tuple(disks.values()))


def _table(found: Mapping[str, FleetStatus]) -> list[str]:
    """Return a line for each product; what needs a person there is marked."""
    every = [status.facts.devices for status in found.values()]
    undecided = sum(each.conditions.get(Condition.UNDECIDED, 0) for each in every if each)
    counted = {
        name: condition
        for name, condition in _COUNTED.items()
        if undecided or condition is not Condition.UNDECIDED
    }
    rows = [("", *_HEADER, *counted)]
    rows += [_row(product, status, counted.values()) for product, status in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _row(product: str, status: FleetStatus, counted: Iterable[Condition]) -> tuple[str, ...]:
    facts, devices = status.facts, status.facts.devices
    is_marked = any(each.about not in OF_ALL for each in status.needs_person)
    counts = (
        "?" if devices is None else f"{devices.conditions.get(each, 0):,}" for each in counted
    )
    named = (product or _DEFAULT, facts.target.version or "-", _rollout_text(facts))
    return (_NEEDS_PERSON if is_marked else "", *named, *counts)


def _rollout_text(facts: FleetFacts) -> str:
    current = [each for each in facts.rollouts if each.is_current]
    if not current:
        return "-"
    first, others = current[0], len(current) - 1
    wave = f" {first.wave}/{first.waves}" if first.wave else ""
    return f"{first.version} {first.state}{wave}{f' +{others}' if others else ''}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    mark, *cells = row
    texts = len(_HEADER)
    shown = [
        f"{cell:<{width}}" if number < texts else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths[1:], strict=True))
    ]
    return f"{mark:<{len(_NEEDS_PERSON)}}{_GAP.join(shown)}".rstrip()
