"""Metrics of each product: its devices, its rollouts, its hold. Pure.

Nothing here grows with devices: of versions the nine that most devices report are named, and of
rollouts the first hundred.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ota_server.operations.device_filter import word_of
from ota_server.operator_port.exposition import MetricFamily, Sample, gauge, label_text
from ota_server.operator_port.metrics_input import FleetFigures, ProductFigures, RolloutFigures
from ota_server.policy.device_state import Condition
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import NOT_BEGUN

MOST_VERSIONS = 9
OTHER_VERSIONS = "other"
MOST_ROLLOUTS = 100
NO_ROLLOUT = "none"
ROLLOUT_STATES = (NO_ROLLOUT, NOT_BEGUN, *RolloutState)
# What a rollout counts devices as (`DeviceState`), as far as its progress says it.
OUTCOMES = (
    *("offered", "downloading", "cut", "undecided", "updated", "failed", "mislabelled", "silent"),
    *("too_new", "surplus", "displaced", "cannot_take_it"),
)
_NONE_YET = RolloutFigures("", "", NO_ROLLOUT)


def fleet_families(products: Sequence[ProductFigures]) -> Iterator[MetricFamily]:
    """Yield the metrics of all products."""
    yield gauge(
        "ota_devices",
        "Devices on record, each in one state.",
        _of_fleets(products, lambda fleet: _states(fleet.states)),
    )
    yield gauge(
        "ota_counted_devices",
        "Those of ota_devices that an update should reach now: not pinned, on hold or rejected.",
        _of_fleets(products, lambda fleet: _states(fleet.counted)),
    )
    yield gauge(
        "ota_devices_by_version",
        "Devices on record by the version that they report: the nine most frequent, and others.",
        _of_fleets(products, lambda fleet: _versions(fleet.versions)),
    )
    yield gauge(
        "ota_pinned_devices",
        "Devices that are pinned by themselves, neither on hold nor failed nor silent; each is in "
        "a state of ota_devices too.",
        _of_fleets(products, lambda fleet: [Sample(fleet.pinned)]),
    )
    yield gauge(
        "ota_devices_as_of_timestamp_seconds",
        "As of when the devices are counted (Unix time).",
        _of_fleets(products, lambda fleet: _time(fleet.as_of_ms)),
    )
    yield gauge(
        "ota_device_last_seen_timestamp_seconds",
        "When a device of the product was heard from last (Unix time).",
        _of_fleets(products, lambda fleet: _time(fleet.last_seen_ms)),
    )
    yield gauge(
        "ota_hold",
        "Whether the product is on hold, so that no device is offered anything: 1 or 0.",
        _of_products(products, lambda product: [Sample(product.is_held)]),
    )
    yield gauge(
        "ota_hold_since_timestamp_seconds",
        "Since when the product is on hold (Unix time).",
        _of_products(products, lambda product: _time(product.held_since_ms)),
    )
    yield from _controller_families(products)
    yield from _rollout_families(products)


def _controller_families(products: Sequence[ProductFigures]) -> Iterator[MetricFamily]:
    yield gauge(
        "ota_rollouts_attended",
        "Whether a controller looks after the rollouts of the product: 1 or 0.",
        _of_products(products, lambda product: [Sample(product.is_attended)]),
    )
    yield gauge(
        "ota_rollouts_readable",
        "Whether the files of the product's rollouts can be read: 1 or 0.",
        _of_products(products, lambda product: [Sample(product.rollouts is not None)]),
    )


def _rollout_families(products: Sequence[ProductFigures]) -> Iterator[MetricFamily]:
    yield gauge(
        "ota_rollout_state",
        "Last rollout to the fleet, or to a group: 1 for the state that it is in, 0 for others.",
        _of_rollouts(products, _state),
    )
    yield gauge(
        "ota_rollout_devices",
        "Devices in the waves that are open, by what became of them.",
        _of_rollouts(products, _outcomes),
    )
    yield gauge(
        "ota_rollout_silent_anyway",
        "Devices in the waves that are open that would be silent without the release, on average.",
        _of_rollouts(products, lambda each: [Sample(each.outcomes.get("silent_anyway", 0))]),
    )
    yield gauge(
        "ota_rollout_waits_for_person",
        "Whether a rollout waits for a person, or was halted and nobody has answered: 1 or 0.",
        _of_rollouts(products, lambda rollout: [Sample(rollout.waits_for_person)]),
    )
    yield gauge(
        "ota_rollout_wave",
        "The wave that is open, counted from 1; 0: none.",
        _of_rollouts(products, lambda rollout: [Sample(rollout.wave)]),
    )
    yield gauge(
        "ota_rollout_waves",
        "How many waves the rollout has.",
        _of_rollouts(products, lambda rollout: [Sample(rollout.waves)]),
    )
    yield gauge(
        "ota_rollout_last_change_timestamp_seconds",
        "When the plan or the progress of the rollout was written last (Unix time).",
        _of_rollouts(products, lambda rollout: _time(rollout.changed_ms)),
    )
    yield gauge(
        "ota_rollout_info",
        "Always 1; the label says which version is rolled out.",
        _of_rollouts(products, _info),
    )


def _of_products(
    products: Sequence[ProductFigures], samples: Callable[[ProductFigures], Iterable[Sample]]
) -> Iterator[Sample]:
    for product in products:
        for sample in samples(product):
            yield sample._replace(labels={"product": product.name, **sample.labels})


def _of_fleets(
    products: Sequence[ProductFigures], samples: Callable[[FleetFigures], Iterable[Sample]]
) -> Iterator[Sample]:
    return _of_products(
        products, lambda product: () if product.fleet is None else samples(product.fleet)
    )


def _of_rollouts(
    products: Sequence[ProductFigures], samples: Callable[[RolloutFigures], Iterable[Sample]]
) -> Iterator[Sample]:
    def of_product(product: ProductFigures) -> Iterator[Sample]:
        rollouts = product.rollouts
        if rollouts is None:
            return
        if not any(rollout.group == "" for rollout in rollouts):
            rollouts = (_NONE_YET, *rollouts)
        for rollout in rollouts[:MOST_ROLLOUTS]:
            for sample in samples(rollout):
                yield sample._replace(labels={"group": rollout.group, **sample.labels})

    return _of_products(products, of_product)


def _states(states: Mapping[Condition, int]) -> list[Sample]:
    return [Sample(states.get(each, 0), {"state": word_of(each)}) for each in Condition]


def _versions(versions: Mapping[str, int]) -> Iterator[Sample]:
    counts: Counter[str] = Counter()
    for version, count in versions.items():
        counts[label_text(version) or "?"] += count
    # A device may say that it runs `other`: two samples with the same labels are an error.
    named = [each for each in counts if each != OTHER_VERSIONS]
    named.sort(key=lambda version: (-counts[version], version))
    for version in named[:MOST_VERSIONS]:
        yield Sample(counts[version], {"version": version})
    rest = sum(counts[version] for version in named[MOST_VERSIONS:]) + counts[OTHER_VERSIONS]
    yield Sample(rest, {"version": OTHER_VERSIONS})


def _state(rollout: RolloutFigures) -> list[Sample]:
    return [Sample(each == rollout.state, {"state": each}) for each in ROLLOUT_STATES]


def _outcomes(rollout: RolloutFigures) -> list[Sample]:
    return [Sample(rollout.outcomes.get(each, 0), {"outcome": each}) for each in OUTCOMES]


def _info(rollout: RolloutFigures) -> list[Sample]:
    return [Sample(1, {"version": rollout.version})] if rollout.version else []


def _time(ms: int) -> list[Sample]:
    return [Sample(ms / 1000)] if ms else []
