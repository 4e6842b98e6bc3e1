"""What `status` and `health` show: how the server and the fleet are, as text. Pure."""

from collections.abc import Callable, Iterable, Iterator

from ota_server.model.quantity import approximate_size, count_of
from ota_server.model.timestamp import ago_ms, format_second
from ota_server.operations.rollout_words import counted
from ota_server.policy.device_state import Condition
from ota_server.policy.fleet_status import (
    DeviceCounts,
    FleetFacts,
    FleetStatus,
    FleetWarning,
    RolloutFacts,
    TargetFacts,
)
from ota_server.policy.policy import RolloutState
from ota_server.policy.text import hold_text
from ota_server.system.wrapping import wrap_words

_NAME_COLUMNS = 10
_NUMBER_COLUMNS = 11
_SHOWN = (
    Condition.UP_TO_DATE,
    Condition.BEHIND,
    Condition.HELD_BACK,
    Condition.UNDECIDED,
    Condition.FAILED,
    Condition.SILENT,
    Condition.AWAY,
)
_MOST_VERSIONS = 5
_ANY_HOST = ("", "::", "0.0.0.0")


def status_lines(status: FleetStatus, columns: int, paste: Callable[[str], str] = str) -> list[str]:
    """Return all of a status, in lines of so many characters; the hold is the last one.

    Args:
        paste: makes the commands in a text such that they can be pasted.
    """
    facts = status.facts
    people = status.needs_person
    others = [each for each in status.warnings if not each.needs_person]
    lines = [headline(len(people), len(others))]
    lines += warning_lines(people, columns, "  ")
    if people and others:
        lines.append("worth knowing:")
    lines += warning_lines(others, columns, "  ")
    lines.append("")
    for name, text in _rows(facts, paste):
        hang = _NUMBER_COLUMNS + 2 if text.startswith(" ") else 0
        lines += wrapped_row(name, text, columns, hang)
    return lines


def warning_lines(warnings: Iterable[FleetWarning], columns: int, indent: str = "") -> list[str]:
    """Return warnings, each with what to do about it."""
    return [
        line
        for each in warnings
        for line in wrapped_row(
            f"{indent}{each.about}", "; ".join(filter(None, (each.text, each.remedy))), columns
        )
    ]


def headline(count: int, others: int) -> str:
    """Return how many things need a person, and how many others are worth knowing."""
    if not count and others:
        are = "things are" if others > 1 else "thing is"
        return f"nothing needs a person; {others} {are} worth knowing:"
    if not count:
        return "all is well: nothing needs a person"
    return f"{count} thing{'s need' if count > 1 else ' needs'} a person:"


def wrapped_row(name: str, text: str, columns: int, hang: int = 0) -> list[str]:
    """Return a line with its name in front; commands and paths in it are not broken."""
    first = f"{name:<{_NAME_COLUMNS + 1}} "
    return wrap_words(text, max(columns, 40), " " * (_NAME_COLUMNS + 2 + hang), first)


def _rows(facts: FleetFacts, paste: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    server, *others = rows_of_all(facts, paste)
    yield server
    yield "target", _target_text(facts.target)
    for rollout in facts.rollouts:
        yield "rollout", _rollout_text(rollout, facts.now_ms)
        if text := _progress_text(rollout):
            yield "", text
    if facts.devices is not None:
        yield from _device_rows(facts.devices)
    yield from others
    yield "hold", "none" if facts.hold is None else hold_text(facts.hold)


def rows_of_all(facts: FleetFacts, paste: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield what is one for all products; the server is first."""
    yield "server", _server_text(facts)
    if facts.rejected[0]:
        requests, addresses = facts.rejected
        which = f"{count_of(requests, 'request')} from {count_of(addresses, 'address', 'es')}"
        yield "rejected", f"{which} in the last day: {paste('`devices --rejected`')}"
    yield "journal", _journal_text(facts)
    for disk in facts.disks:
        share = f"{disk.free * 100 // max(disk.size, 1)} %"
        free, size = approximate_size(disk.free), approximate_size(disk.size)
        where = f", {disk.folder}" if len(facts.disks) > 1 else ""
        yield "disk", f"{free} of {size} free ({share}){where}"


def _server_text(facts: FleetFacts) -> str:
    if not facts.server.runs:
        return "does not run: this is what the files say"
    serving = facts.serving
    if not serving.port:
        return ", ".join(filter(None, ("runs", facts.quiet_text)))
    host = "all addresses" if serving.host in _ANY_HOST else serving.host
    since = f"{format_second(serving.since_ms)} ({ago_ms(serving.since_ms, facts.now_ms)})"
    where = f"port {serving.port}, {host}"
    return ", ".join(filter(None, (f"runs since {since}", facts.quiet_text, where)))


def _target_text(target: TargetFacts) -> str:
    if target.version is None:
        return "none"
    image = approximate_size(target.image_size) if target.image else "no image"
    groups = count_of(target.groups, "group target") if target.groups else ""
    pins = f"{count_of(target.pins, 'pin')}" if target.pins else ""
    return ", ".join(filter(None, (f"{target.version} ({image})", groups, pins)))


def _rollout_text(rollout: RolloutFacts, now_ms: int) -> str:
    whom = f"group {rollout.group}" if rollout.group else "the fleet"
    back = " (back)" if rollout.is_revert else ""
    begun = ago_ms(rollout.since_ms, now_ms)
    return f"{rollout.version} to {whom}{back}: {rollout.state}, begun {begun}"


def _progress_text(rollout: RolloutFacts) -> str:
    if not rollout.wave:
        return ""
    whom = f", {rollout.percent:g} %" if rollout.percent else ""
    wave = f"wave {rollout.wave} of {rollout.waves}{whom}"
    done = counted(rollout.counts)
    waiting = rollout.waiting if rollout.state == RolloutState.RUNNING else ""
    return "; ".join(filter(None, (f"{wave}: {done}" if done else wave, waiting)))


def _device_rows(devices: DeviceCounts) -> Iterator[tuple[str, str]]:
    yield "devices", f"{devices.total:,} on record"
    for condition in _SHOWN:
        count = devices.conditions.get(condition, 0)
        words = condition.value
        if condition is Condition.UNDECIDED:
            if not count:
                continue  # most fleets have none
            words += ": had the whole image, and say no version"
        if condition is Condition.AWAY:
            words = "not seen for a day"
        if condition is Condition.HELD_BACK and count:
            held = sorted(devices.causes.items(), key=lambda each: (-each[1], each[0]))
            words += ": " + ", ".join(
                f"{by} ({each:,})" if len(held) > 1 else by for by, each in held
            )
        yield "", f"{_number(count)}  {words}"
    yield from _version_rows(devices)


def _version_rows(devices: DeviceCounts) -> Iterator[tuple[str, str]]:
    versions = sorted(devices.versions.items(), key=lambda each: (-each[1], each[0]))
    shown = versions if len(versions) <= _MOST_VERSIONS else versions[: _MOST_VERSIONS - 1]
    name = "versions"
    for version, count in shown:
        yield name, f"{_number(count)}  {version}  {count * 100 / devices.total:.1f} %"
        name = ""
    if others := versions[len(shown) :]:
        count = sum(each for _, each in others)
        yield "", f"{_number(count)}  {len(others)} other versions"


def _number(count: int) -> str:
    return f"{count:>{_NUMBER_COLUMNS},}"


def _journal_text(facts: FleetFacts) -> str:
    journal = facts.journal
    if journal.since_ms is None:
        return f"{approximate_size(journal.size)}, nothing on record"
    size = f"{approximate_size(journal.size)} since {format_second(journal.since_ms)}"
    if journal.days is None:
        return size
    days = f"{journal.days:,.0f} days" if journal.days >= 2 else f"{journal.days * 24:.0f} hours"
    return f"{size}; keeps {days} at this rate"
