"""What an action needs to know besides the devices: a version, a group, a label. I/O."""

from collections.abc import Mapping, Sequence

from ota_server.operations.bulk_edits import BulkAction
from ota_server.operations.group_names import group_names
from ota_server.operations.release_facts import releases_to_give
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_bar import ROLL_OUT
from ota_server.operator_port.pieces import check_box, choice, text_field
from ota_server.operator_port.site import Site

_EXPLAINED = {
    BulkAction.PIN.value: "A pinned device is told this version, whatever the target is.",
    BulkAction.LABEL.value: "An empty label takes away the one that they have.",
    BulkAction.ADD.value: "If there is no group of this name, it is made.",
    BulkAction.REMOVE.value: "One that is in no other group gets what devices without one get.",
    ROLL_OUT: (
        "A rollout goes to the whole fleet or to a group. These devices become a group, under a "
        "new name or in addition to those that it has; then you choose the release and the waves."
    ),
}


def questions(
    site: Site,
    product: str,
    action: str,
    given: Mapping[str, str],
    problems: Mapping[str, str],
    prefix: str,
) -> Node:
    """Return the fields of a form for what an action needs.

    Args:
        product: "" is the default one.
        given: what was typed before.
        problems: what is wrong with that, by the name of the field; with `is_forced` there is a
            doubt, and the form offers to do it all the same.
        prefix: of the names of the fields.
    """
    folder = site.folder_of(product)
    fields: list[Node] = []
    if said := _EXPLAINED.get(action):
        fields.append(element("p", said, class_="quiet"))
    if action == BulkAction.PIN:
        versions = [each.version for each in releases_to_give(folder)]
        fields += [
            choice("Version", f"{prefix}version", _pairs(versions), given["version"]),
            text_field(
                "Until (left out: until it is unpinned)",
                f"{prefix}until",
                given["until"],
                placeholder="2026-12-24",
            ),
        ]
    elif action == BulkAction.LABEL:
        fields.append(text_field("Label", f"{prefix}label", given["label"], maxlength="64"))
    elif action == BulkAction.REMOVE:
        names = _pairs(group_names(folder))
        field = choice("Group", f"{prefix}group", names, given["group"])
        fields.append(field if names else element("p", "There is no group."))
    elif action not in (BulkAction.UNPIN, BulkAction.RETRY, BulkAction.FORGET):
        fields += _group_field(group_names(folder), given["group"], prefix)
    if "is_forced" in problems:
        fields.append(check_box("Do it in spite of that", f"{prefix}is_forced", "1"))
    wrong = [f"{name}: {text}" for name, text in problems.items() if name != "is_forced"]
    return [element("p", each, class_="problem") for each in wrong], _rows(fields)


def _rows(fields: Sequence[Node]) -> list[Html]:
    return [element("div", each, class_="field") for each in fields]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _group_field(names: Sequence[str], given: str, prefix: str) -> list[Node]:
    field = text_field(
        "Group", f"{prefix}group", given, list="groups", required=True, maxlength="32"
    )
    listed = [element("option", value=name) for name in names]
    return [field, element("datalist", listed, id="groups")]
