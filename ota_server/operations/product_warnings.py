"""What is wrong with any of several products, in one list. Pure."""

from collections.abc import Iterator, Mapping

from ota_server.policy.fleet_status import FleetStatus, FleetWarning

# What warnings of these kinds are about is one for all products.
OF_ALL = ("server", "journal", "disk", "notices")
_DEFAULT = "default"


def people_needed(found: Mapping[str, FleetStatus]) -> list[FleetWarning]:
    """Return what needs a person, in all products; each names its product where it is of one."""
    people = []
    for product, status in found.items():
        for each in status.needs_person:
            is_of_all = not product or each.about in OF_ALL
            about = each.about if is_of_all else f"{product}: {each.about}"
            people.append(each._replace(about=about))
    return people


def named_warnings(found: Mapping[str, FleetStatus]) -> Iterator[FleetWarning]:
    """Yield all warnings, those of a product about that product, by its name."""
    for product, status in found.items():
        for each in status.warnings:
            if each.about in OF_ALL:
                yield each
            else:
                about, text = product or _DEFAULT, f"{each.about}: {each.text}"
                yield each._replace(about=about, text=text)
