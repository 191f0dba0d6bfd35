"""Prometheus metrics: a fold over finished requests, and live gauges at scrape time.

Which metrics there are is `catalogue`'s; serving them over HTTP is a surface's business.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from olla.failures import Failure
from olla.fleet.snapshot import Snapshot
from olla.fleet.twins import Twins
from olla.record import AttemptRecord, RequestRecord
from olla.telemetry.catalogue import metric_row
from olla.telemetry.live_gauges import LiveGauges
from olla.telemetry.model_labels import ModelLabels

__all__ = ["Metrics"]

_Add = Callable[[float], None]

_UNKNOWN = "unknown"
"""The label of a request that failed before it was known what it asks."""

_LOAD_SECONDS_MIN = 0.1
"""Ollama reports some milliseconds for a model that is in memory: less is no load."""


class Metrics:
    """Counts finished requests and renders all metrics of one router.

    Owns its registry, so that two routers in one process do not mix. Labels come from closed sets
    (operations, dialects, failure kinds, status codes), from the configuration (endpoints) or
    from `ModelLabels`; nothing a client can choose becomes one.
    """

    def __init__(
        self,
        *,
        version: str,
        snapshot: Callable[[], Snapshot],
        twins: Twins,
        open_connections: Callable[[], int] = lambda: 0,
        loop_lag: Callable[[], float] = lambda: 0.0,
        queue_length: Callable[[], int] = lambda: 0,
        models_max: int = 200,
    ) -> None:
        self.registry = CollectorRegistry()
        self._models = ModelLabels(snapshot, models_max)
        self._requests_total = self._counter("olla_requests_total")
        self._duration = self._histogram("olla_request_duration_seconds")
        self._first_byte = self._histogram("olla_time_to_first_byte_seconds")
        self._attempts_total = self._counter("olla_attempts_total")
        self._failures_total = self._counter("olla_failures_total")
        self._tokens_total = self._counter("olla_tokens_total")
        self._load = self._histogram("olla_model_load_seconds")
        self._queue = self._histogram("olla_queue_seconds")
        self._error = self._histogram("olla_prediction_error_seconds")
        # Looking a child up by its labels costs several times what adding to it does.
        self._of_requests: dict[tuple[str, str, str, int], tuple[_Add, _Add]] = {}
        self._of_first_bytes: dict[tuple[str, str], _Add] = {}
        self._of_attempts: dict[tuple[str, str], _Add] = {}
        self._of_tokens: dict[tuple[str, str], tuple[_Add, _Add]] = {}
        self._of_loads: dict[str, _Add] = {}
        self._of_errors: dict[str, _Add] = {}
        self.registry.register(
            LiveGauges(
                version=version,
                snapshot=snapshot,
                twins=twins,
                open_connections=open_connections,
                loop_lag=loop_lag,
                queue_length=queue_length,
                models=self._models,
            )
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def __call__(self, record: RequestRecord) -> None:
        """Count a finished request."""
        endpoint = record.endpoint or ""
        key = (record.operation, record.dialect, endpoint, record.status)
        adds = self._of_requests.get(key)
        if adds is None:
            adds = self._of_requests[key] = self._request_children(*key)
        adds[0](1)
        adds[1](max(0.0, record.ended - record.started))
        if endpoint and record.first_byte is not None:  # olla's own answers have no wait
            self._observe_first_byte(endpoint, record)
            if record.predicted is not None and record.status == 200:
                self._observe_error(endpoint, record.predicted, record.first_byte - record.started)
        if record.queue_seconds is not None:
            self._queue.observe(record.queue_seconds)
        for attempt in record.attempts:
            self._count_attempt(attempt)
        if record.failure is not None:
            self._count_failure(record.failure)
        if record.prompt_tokens is not None or record.output_tokens is not None:
            self._count_tokens(endpoint, record)
        if record.load_seconds is not None and record.load_seconds >= _LOAD_SECONDS_MIN:
            self.loaded(endpoint, record.load_seconds)

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(_WithoutCreated(self.registry)), CONTENT_TYPE_PLAIN_0_0_4

    def _observe_first_byte(self, endpoint: str, record: RequestRecord) -> None:
        key = (record.operation or _UNKNOWN, endpoint)
        add = self._of_first_bytes.get(key)
        if add is None:
            add = self._of_first_bytes[key] = self._first_byte.labels(*key).observe
        add(max(0.0, (record.first_byte or 0.0) - record.started))

    def _observe_error(self, endpoint: str, predicted: float, observed: float) -> None:
        add = self._of_errors.get(endpoint)
        if add is None:
            add = self._of_errors[endpoint] = self._error.labels(endpoint).observe
        add(predicted - observed)

    def _count_attempt(self, attempt: AttemptRecord) -> None:
        key = (attempt.endpoint, "ok" if attempt.failure is None else attempt.failure.kind.value)
        add = self._of_attempts.get(key)
        if add is None:
            add = self._of_attempts[key] = self._attempts_total.labels(*key).inc
        add(1)

    def _count_failure(self, failure: Failure) -> None:
        facts = failure.facts
        self._failures_total.labels(failure.kind.value, facts.origin.value, facts.phase.value).inc()

    def _count_tokens(self, endpoint: str, record: RequestRecord) -> None:
        key = (endpoint, self._models.label(record.model or ""))
        adds = self._of_tokens.get(key)
        if adds is None:
            total = self._tokens_total
            adds = total.labels(*key, "prompt").inc, total.labels(*key, "output").inc
            self._of_tokens[key] = adds
        adds[0](max(0, record.prompt_tokens or 0))
        adds[1](max(0, record.output_tokens or 0))

    def loaded(self, endpoint: str, seconds: float) -> None:
        """A load of a model took so long."""
        add = self._of_loads.get(endpoint)
        if add is None:
            add = self._of_loads[endpoint] = self._load.labels(endpoint).observe
        add(seconds)

    def _request_children(
        self, operation: str, dialect: str, endpoint: str, status: int
    ) -> tuple[_Add, _Add]:
        operation = operation or _UNKNOWN
        labels = (operation, dialect or _UNKNOWN, endpoint, _status_label(status))
        return self._requests_total.labels(*labels).inc, self._duration.labels(operation).observe

    def _counter(self, name: str) -> Counter:
        row = metric_row(name)
        return Counter(name, row.meaning, row.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        row = metric_row(name)
        return Histogram(name, row.meaning, row.labels, registry=self.registry, buckets=row.buckets)


def _status_label(status: int) -> str:
    # An endpoint may send any three digits; a status of 0 means that nothing was sent.
    return str(status) if 100 <= status < 600 else "none" if status == 0 else "other"


class _WithoutCreated(Collector):
    """A registry without the `_created` samples, which double its size and which nobody reads.

    prometheus_client can leave them out only for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric
