"""The emergency hold of all products of a server at once. I/O.

Each product has its own file, so that whoever looks at one sees whether it is held. A product that
cannot be held keeps no other one from it. The audit log of the server has one line for all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy import audit, edits
from ota_server.policy.hold import current_hold, is_held
from ota_server.policy.policy import HOLD_NAME
from ota_server.policy.text import Hold
from ota_server.system.data_dir import existing_folder, log_dir, product_dir, product_names
from ota_server.system.files import read, replace
from ota_server.system.locks import EDIT_LOCK_SECONDS, Busy

# First those are changed that no other command is changing; then the others are waited for.
_SHORT_SECONDS = 0.1


class AllHeld(NamedTuple):
    """What came of it, by the names of products; "" is the default one.

    Attributes:
        before: the hold that was on before; None: it was not on hold.
        problems: why a product was not changed.
    """

    before: dict[str, Hold | None]
    problems: dict[str, str]


def hold_all(root: Path, reason: str) -> AllHeld:
    """Stop offering anything to any device of any product, even on a full disk.

    Raises:
        Refused: it is not a data directory.
    """
    before = _holds(root)
    is_new = any(each is None or reason not in ("", each.reason) for each in before.values())

    def hold(data_dir: Path, wait_seconds: float) -> None:
        edits.hold(data_dir, reason, "", wait_seconds)

    return AllHeld(before, _each(root, [*before], "hold" if is_new else "", hold, reason))


def unhold_all(root: Path) -> dict[str, str]:
    """End the holds of all products; return why one is still on, by the name of its product.

    Raises:
        Refused: nothing is on hold, or it is not a data directory.
    """
    held = [name for name, each in _holds(root).items() if each is not None]
    if not held:
        raise Refused("nothing is on hold; `why MAC` shows what a device gets, and why")

    def unhold(data_dir: Path, wait_seconds: float) -> None:
        if is_held(data_dir):
            edits.unhold(data_dir, "", wait_seconds)

    return _each(root, held, "unhold", unhold)


def hold_as_all(root: Path, data_dir: Path) -> None:
    """Hold a new product as the default one is held, which keeps why and since when.

    Raises:
        OSError: it cannot be read or written.
    """
    replace(data_dir / "version" / HOLD_NAME, read(root / "version", HOLD_NAME), is_stop=True)


def _holds(root: Path) -> dict[str, Hold | None]:
    """Return the holds of all products, that of the default one last.

    It is changed last too: then the server's log can say of its hold that it is that of everything.
    """
    existing_folder(root, "version")
    return {name: current_hold(product_dir(root, name)) for name in (*product_names(root), "")}


def _each(
    root: Path,
    names: list[str],
    action: str,
    change: Callable[[Path, float], None],
    reason: str = "",
) -> dict[str, str]:
    """Change products; return what was in the way, by their names.

    Args:
        action: for the audit log; "": nothing is to be changed.
    """
    if not action:
        return {}
    details = {"reason": reason} if reason else {}
    # Not even a broken audit log may be in the way of this.
    with audit.noted(log_dir(root), action, "everything", lambda _: True, **details):
        busy, problems = _try_each(root, names, change, _SHORT_SECONDS)
        still_busy, others = _try_each(root, [*busy], change, EDIT_LOCK_SECONDS)
        problems |= others | still_busy
        if len(problems) == len(names):
            raise Refused("; ".join(problems.values()))
    return problems


def _try_each(
    root: Path, names: list[str], change: Callable[[Path, float], None], wait_seconds: float
) -> tuple[dict[str, str], dict[str, str]]:
    """Change products; return which ones others are changing, and what is wrong with the others."""
    busy: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in names:
        try:
            change(product_dir(root, name), wait_seconds)
        except Busy as problem:
            busy[name] = str(problem)
        except OSError as problem:
            problems[name] = f"{problem.filename}: {problem.strerror}"
        except (Refused, BadPolicy) as problem:
            problems[name] = str(problem)
    return busy, problems
