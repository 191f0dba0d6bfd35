"""Export Prometheus metrics: a fold over finished requests, and live gauges at scrape time.

`metric_catalogue` lists the metrics; a surface serves them over HTTP.
"""

from collections.abc import Callable, Generator, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.samples import Sample

from olla.access.visibility import EVERYTHING, Visibility
from olla.clock import Clock, SystemClock
from olla.failures import Failure
from olla.fleet.snapshot import Snapshot
from olla.fleet.twins import Twins
from olla.record import AttemptRecord, RequestRecord
from olla.telemetry.counters import Bins, Tallies, Tally
from olla.telemetry.live_gauges import LiveGauges
from olla.telemetry.model_labels import OTHER, ModelLabels

__all__ = ["METRICS_TYPE", "Metrics"]

METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The content type of the exported text."""
_UNKNOWN = "unknown"
"""The label of a request that failed before its operation was known."""

_REMOVED_SECONDS = 300.0
"""Seconds for which the series of a removed endpoint are exported after its last response."""
_OF_THE_PROCESS = (
    *("process_", "python_", "olla_build_info", "olla_config_reloads", "olla_event_loop_lag"),
    *("olla_log_lines_dropped", "olla_shared_state_up", "olla_store_up"),
)
"""Name prefixes of metrics that are not about requests."""
_LOAD_SECONDS_MIN = 0.1
"""Ollama reports some milliseconds for a loaded model: less is not a load."""


class _Row:
    """The counters of requests with the same operation, dialect, endpoint and status. They are
    looked up once per request, because a look-up costs more than an addition."""

    __slots__ = ("attempts", "duration", "error", "first_byte", "requests", "tokens")

    def __init__(
        self,
        requests: Tally,
        duration: Bins,
        first_byte: Bins | None,
        error: Bins | None,
        attempts: Tally | None,
    ) -> None:
        self.requests = requests
        self.duration = duration
        self.first_byte = first_byte
        self.error = error
        self.attempts = attempts
        self.tokens: dict[str, tuple[Tally, Tally]] = {}


class Metrics:
    """Counts finished requests and renders all metrics of one router.

    It has a registry of its own, so that two routers in one process do not mix. Labels come from
    closed sets (operations, dialects, failure kinds, status codes), from the configuration
    (endpoints) or from `ModelLabels`. Nothing that a client chooses becomes a label.
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
        retries: Callable[[], Mapping[str, int]] = dict,
        access: Callable[[], Mapping[str, float]] = dict,
        dropped_lines: Callable[[], Mapping[str, int]] = dict,
        models_max: int = 200,
        clock: Clock | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self._models = ModelLabels(snapshot, models_max)
        self._snapshot = snapshot
        self._clock = clock or SystemClock()
        self._removed: dict[str, tuple[float, float]] = {}
        """Removed endpoints: their counts, and the time of removal."""
        tallies = self._tallies = Tallies()
        self._requests_total = tallies.counter("olla_requests_total")
        self._duration = tallies.histogram("olla_request_duration_seconds")
        self._first_byte = tallies.histogram("olla_time_to_first_byte_seconds")
        self._attempts_total = tallies.counter("olla_attempts_total")
        self._failures_total = tallies.counter("olla_failures_total")
        self._tokens_total = tallies.counter("olla_tokens_total")
        self._load = tallies.histogram("olla_model_load_seconds")
        self._queue = tallies.histogram("olla_queue_seconds").labels()
        self._error = tallies.histogram("olla_prediction_error_seconds")
        self._limits = tallies.counter("olla_limits_exceeded_total")
        self._reloads = tallies.counter("olla_config_reloads_total")
        self._rows: dict[tuple[str, str, str | None, int], _Row] = {}
        self.registry.register(tallies)
        self.registry.register(
            LiveGauges(
                version=version,
                snapshot=snapshot,
                twins=twins,
                open_connections=open_connections,
                loop_lag=loop_lag,
                queue_length=queue_length,
                retries=retries,
                access=access,
                dropped_lines=dropped_lines,
                models=self._models,
            )
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def __call__(self, record: RequestRecord) -> None:
        """Count a finished request."""
        key = (record.operation, record.dialect, record.endpoint, record.status)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._row(*key)
        row.requests.value += 1
        row.duration.observe(max(0.0, record.ended - record.started))
        if record.first_byte is not None and row.first_byte is not None:
            first = max(0.0, record.first_byte - record.started)
            row.first_byte.observe(first)
            if record.predicted is not None and row.error is not None:
                row.error.observe(record.predicted - first)
        if record.prompt_tokens is not None or record.output_tokens is not None:
            self._count_tokens(row, record)
        attempts = record.attempts
        if len(attempts) == 1 and attempts[0].failure is None and row.attempts is not None:
            row.attempts.value += 1
        else:
            for attempt in attempts:
                self._count_attempt(attempt)
        if record.queue_seconds is not None:
            self._queue.observe(record.queue_seconds)
        if record.failure is not None:
            self._count_failure(record.failure)
        if record.load_seconds is not None and record.load_seconds >= _LOAD_SECONDS_MIN:
            self.loaded(record.endpoint or "", record.load_seconds)

    def limit_exceeded(self, limit: str, shadow: bool) -> None:
        """Count a request that reached a limit; a `shadow` limit does not reject."""
        self._limits.labels(limit, "passed" if shadow else "refused").value += 1

    def reloaded(self, *, well: bool) -> None:
        """Count a reload, successful or not."""
        self._reloads.labels("ok" if well else "failed").value += 1

    def rendering(self, visible: Visibility = EVERYTHING) -> Generator[None, None, bytes]:
        """Render all metrics in Prometheus' text format, without samples that the caller may not
        see. Yields after each metric, see `Slices`."""
        self._forget_removed()
        parts: list[bytes] = []
        for family in self.registry.collect():
            yield
            if not visible.everything:
                family.samples = [each for each in family.samples if _seen(each, visible)]
                if not family.samples:
                    continue
            parts.append(generate_latest(_One(family)))
        return b"".join(parts)

    def _forget_removed(self) -> None:
        """Drop the series of removed endpoints some time after their last response. Until then a
        scrape can read it."""
        known, now = self._snapshot().by_name, self._clock.now()
        removed: dict[str, tuple[float, float]] = {}
        for endpoint, count in self._tallies.endpoints().items():
            if not endpoint or endpoint in known:
                continue
            before = self._removed.get(endpoint)
            since = before[1] if before is not None and before[0] == count else now
            if now - since < _REMOVED_SECONDS:
                removed[endpoint] = (count, since)
                continue
            self._tallies.forget(endpoint)
            for key in [each for each in self._rows if each[2] == endpoint]:
                del self._rows[key]
        self._removed = removed

    def loaded(self, endpoint: str, seconds: float) -> None:
        """Record the duration of a model load."""
        self._load.labels(endpoint).observe(seconds)

    def _count_attempt(self, attempt: AttemptRecord) -> None:
        outcome = "ok" if attempt.failure is None else attempt.failure.kind.value
        self._attempts_total.labels(attempt.endpoint, outcome).value += 1

    def _count_failure(self, failure: Failure) -> None:
        facts = failure.facts
        labels = failure.kind.value, facts.origin.value, facts.phase.value
        self._failures_total.labels(*labels).value += 1

    def _count_tokens(self, row: _Row, record: RequestRecord) -> None:
        label = self._models.label(record.model or "")
        tallies = row.tokens.get(label)
        if tallies is None:
            counter, endpoint = self._tokens_total, record.endpoint or ""
            tallies = row.tokens[label] = (
                counter.labels(endpoint, label, "prompt"),
                counter.labels(endpoint, label, "output"),
            )
        tallies[0].value += max(0, record.prompt_tokens or 0)
        tallies[1].value += max(0, record.output_tokens or 0)

    def _row(self, operation: str, dialect: str, endpoint: str | None, status: int) -> _Row:
        operation, where = operation or _UNKNOWN, endpoint or ""
        labels = (operation, dialect or _UNKNOWN, where, _status_label(status))
        return _Row(
            self._requests_total.labels(*labels),
            self._duration.labels(operation),
            # responses of olla itself have no queue time
            self._first_byte.labels(operation, where) if endpoint else None,
            self._error.labels(where) if endpoint and status == 200 else None,
            self._attempts_total.labels(where, "ok") if endpoint else None,
        )


class _One:
    """A registry with one metric."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """Yield that metric."""
        yield self._family


def _seen(sample: Sample, visible: Visibility) -> bool:
    """Return whether a caller who may see a part of the fleet may see a sample.

    Samples of requests without an endpoint cover the whole router, and those of the model `other`
    any model.
    """
    endpoint, model = sample.labels.get("endpoint"), sample.labels.get("model")
    if endpoint is None:
        return sample.name.startswith(_OF_THE_PROCESS)
    if not endpoint or not visible.sees_endpoint(endpoint):
        return False
    if model is None or visible.all_models:
        return True
    return model != OTHER and visible.sees_model(model)


def _status_label(status: int) -> str:
    # An endpoint may send any three digits; 0 means that no status was sent.
    return str(status) if 100 <= status < 600 else "none" if status == 0 else "other"
