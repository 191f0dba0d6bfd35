"""Collect the gauges that are read on demand: endpoints, models, load, the event loop.

Nothing is stored between two scrapes, so a gauge can neither drift nor outlive its endpoint.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.instance import ModelInstance
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.fleet.twins import Twins
from olla.telemetry.metric_catalogue import metric_row
from olla.telemetry.model_labels import OTHER, ModelLabels

__all__ = ["LiveGauges", "resident_models"]


def resident_models(view: EndpointView) -> Iterable[tuple[str, int]]:
    """Return the loaded models of an endpoint as (name, bytes of VRAM), each once.

    A snapshot lists a loaded model under every name of its file; here it counts once.
    """
    return {each.name: each.size_vram or 0 for each in view.resident.values()}.items()


class LiveGauges(Collector):
    """Collects the current values of the injected objects.

    `open_connections` counts client connections. `loop_lag` returns the event loop's lag in
    seconds. `retries` counts retries by outcome, `dropped_lines` dropped lines by log. `access`
    returns values of keys, usage and shared state by metric.
    """

    def __init__(
        self,
        *,
        version: str,
        snapshot: Callable[[], Snapshot],
        twins: Twins,
        open_connections: Callable[[], int],
        loop_lag: Callable[[], float],
        queue_length: Callable[[], int],
        retries: Callable[[], Mapping[str, int]],
        access: Callable[[], Mapping[str, float]],
        dropped_lines: Callable[[], Mapping[str, int]],
        models: ModelLabels,
    ) -> None:
        self._version = version
        self._snapshot = snapshot
        self._twins = twins
        self._open_connections = open_connections
        self._loop_lag = loop_lag
        self._queue_length = queue_length
        self._retries = retries
        self._access = access
        self._dropped_lines = dropped_lines
        self._models = models

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry then does not collect to learn names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield one family after the other."""
        views = self._snapshot().endpoints
        yield from self._endpoint_states(views)
        yield from self._endpoint_counts(views)
        yield from self._estimates(views)
        yield _gauge("olla_queue_length", [((), self._queue_length())])
        yield _counter("olla_retries_total", self._retries())
        yield _counter("olla_log_lines_dropped_total", self._dropped_lines())
        for name, value in self._access().items():
            row = metric_row(name)
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(row.name, row.meaning, value)
        yield _gauge("olla_open_connections", [((), self._open_connections())])
        yield _gauge("olla_event_loop_lag_seconds", [((), self._loop_lag())])
        yield _gauge("olla_build_info", [((self._version,), 1)])

    def _endpoint_states(self, views: tuple[EndpointView, ...]) -> Iterator[Metric]:
        yield _gauge(
            "olla_endpoint_up", [((view.name, _type(view)), int(view.routable)) for view in views]
        )
        yield _gauge(
            "olla_endpoint_health",
            [
                ((view.name, state.value), int(view.health is state))
                for view in views
                for state in Health
            ],
        )
        yield _gauge(
            "olla_endpoint_breaker",
            [
                ((view.name, state.value), int(view.breaker is state))
                for view in views
                for state in BreakerState
            ],
        )

    def _endpoint_counts(self, views: tuple[EndpointView, ...]) -> Iterator[Metric]:
        yield _gauge(
            "olla_requests_in_flight", [((view.name,), self._twins.on(view.name)) for view in views]
        )
        yield _gauge("olla_models_available", [((view.name,), len(view.models)) for view in views])
        resident = [((view.name,), dict(resident_models(view))) for view in views]
        yield _gauge("olla_models_resident", [(labels, len(each)) for labels, each in resident])
        yield _gauge(
            "olla_resident_vram_bytes", [(labels, sum(each.values())) for labels, each in resident]
        )

    def _estimates(self, views: tuple[EndpointView, ...]) -> Iterator[Metric]:
        """Return the estimates for loaded models. Names beyond the label limit are omitted, because
        a mean over many models is meaningless."""
        twins = [
            self._twins.by_name[view.name] for view in views if view.name in self._twins.by_name
        ]
        yield _gauge(
            "olla_loads_in_progress",
            [((twin.name,), len(twin.pending) + (twin.loading is not None)) for twin in twins],
        )
        yield _gauge("olla_models_stuck", [((twin.name,), len(twin.stuck)) for twin in twins])
        instances = [
            ((twin.name, label), instance)
            for twin in twins
            for instance in twin.residents.values()
            if (label := self._models.label(_own_name(instance))) != OTHER
        ]
        rates = "olla_estimate_prompt_tokens_per_second", "olla_estimate_output_tokens_per_second"
        yield _gauge(
            rates[0], [(labels, 1 / instance.rates.prefill) for labels, instance in instances]
        )
        yield _gauge(
            rates[1], [(labels, 1 / instance.rates.decode) for labels, instance in instances]
        )
        yield _gauge(
            "olla_estimate_load_seconds",
            [(labels, instance.rates.load_seconds(warm=True)) for labels, instance in instances],
        )
        yield _gauge(
            "olla_estimate_slots",
            [(labels, instance.slots.limit) for labels, instance in instances],
        )


def _own_name(instance: ModelInstance) -> str:
    model = instance.twin.view.models.get(instance.model)
    return model.name if model is not None else instance.model


def _gauge(name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    row = metric_row(name)
    family = GaugeMetricFamily(name, row.meaning, labels=row.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _counter(name: str, counts: Mapping[str, int]) -> Metric:
    row = metric_row(name)
    family = CounterMetricFamily(row.name, row.meaning, labels=row.labels)
    for label, count in counts.items():
        family.add_metric((label,), count)
    return family


def _type(view: EndpointView) -> str:
    return view.profile.name if view.profile is not None else view.spec.type
