"""A rollout before it begins, as `rollout start` shows it. I/O."""

from ota_server.commands.common import warn
from ota_server.model.quantity import count_of
from ota_server.operations.start_rollout import GroupLeftAlone, RolloutPreview, left_alone_text


def print_left_alone(groups: tuple[GroupLeftAlone, ...]) -> None:
    """Show the groups that a rollout leaves alone, each with its target and its devices."""
    for group in groups:
        print(left_alone_text(group))


def print_preview(shown: RolloutPreview) -> None:
    """Show how many devices each wave adds, and what an operator should know of them."""
    if not shown.has_own_waves:
        devices = count_of(shown.devices, "active device")
        print(f"waves that fit {devices} (--waves sets others)")
    for number, wave in enumerate(shown.waves, start=1):
        percent = f"{wave.percent:g}" if shown.has_own_waves else f"{wave.percent:.4g}"
        whom = f"{percent} %" if wave.percent else f"{wave.first_group}"
        print(f"wave {number}  {whom:>6}  {wave.added:>7} more, {wave.total} in all")
    if shown.inactive:
        print(f"not heard from for a week, and not counted: {shown.inactive}")
    if shown.new:
        print(f"known for less than a day, and not counted without --count-new: {shown.new}")
    for text in filter(None, (shown.small_waves_text, shown.slow_pollers_text)):
        print(text)
    for warning in shown.warnings:
        warn(warning)
