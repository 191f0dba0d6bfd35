"""Count requests per endpoint and per model, for the status pages.

The counts start with the process and are bounded. `metrics` has time series; these numbers are for
people.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import ceil

from olla.access.visibility import Visibility
from olla.failures import Origin
from olla.fleet.snapshot import Snapshot
from olla.record import AttemptRecord, RequestRecord
from olla.telemetry.model_labels import OTHER, ModelLabels

__all__ = ["Counts", "EndpointTraffic", "ModelTraffic", "Traffic", "Window"]


class Window:
    """The last measurements, in seconds, up to a maximum number."""

    __slots__ = ("_values",)

    def __init__(self, size: int = 256) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Add one, and drop the oldest if it is full."""
        self._values.append(seconds)

    def mean(self) -> float | None:
        """The mean; None without measurements."""
        return sum(self._values) / len(self._values) if self._values else None

    def quantiles(self, fractions: Iterable[float]) -> list[float | None]:
        """Return, for each fraction in [0, 1], the smallest value that this share does not
        exceed."""
        ordered = sorted(self._values)
        if not ordered:
            return [None for _ in fractions]
        # the nearest rank
        return [ordered[max(0, ceil(fraction * len(ordered)) - 1)] for fraction in fractions]


class Counts:
    """Finished requests. `failures` excludes errors of clients; bytes are of bodies."""

    __slots__ = ("bytes_in", "bytes_out", "client_errors", "failures", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.client_errors = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def count(self, record: RequestRecord, *, failed: bool, client_error: bool) -> None:
        """Count one request."""
        self.requests += 1
        self.failures += failed
        self.client_errors += client_error
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out

    def add(self, other: "Counts") -> None:
        """Add other counts."""
        self.requests += other.requests
        self.failures += other.failures
        self.client_errors += other.client_errors
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


class EndpointTraffic:
    """Outcomes of attempts at one endpoint.

    `successes` and `failures` count attempts that say something about the endpoint. `abandoned`
    counts those that the client gave up or that olla itself ended.
    """

    __slots__ = ("abandoned", "failures", "first_byte", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.abandoned = 0
        self.first_byte = Window()


class ModelTraffic:
    """Outcomes of requests for one model. `failures` excludes errors of clients."""

    __slots__ = (
        *("client_errors", "duration", "failures", "first_byte"),
        *("last_requested", "output_tokens", "prompt_tokens", "requests"),
    )

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.client_errors = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.last_requested = 0.0
        self.duration = Window()
        self.first_byte = Window()


class Traffic:
    """Counts finished requests in total, per endpoint and per model.

    Models for which `ModelLabels` has no label count as `other`.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], models_max: int = 200) -> None:
        self._all = Counts()
        self._parts: dict[tuple[str, str], Counts] = {}
        """The same by answering endpoint and model label, empty without one: for callers who may
        see only a part of the fleet."""
        self.endpoints: dict[str, EndpointTraffic] = {}
        self.models: dict[str, ModelTraffic] = {}
        self._labels = ModelLabels(snapshot, models_max)
        self._snapshot = snapshot

    def __call__(self, record: RequestRecord) -> None:
        """Count a finished request."""
        failed, client_error = _verdict(record)
        self._all.count(record, failed=failed, client_error=client_error)
        for attempt in record.attempts:
            self._count_attempt(attempt)
        label = self._labels.label(record.model) if record.model else ""
        key = (record.endpoint or "", label)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Counts()
        part.count(record, failed=failed, client_error=client_error)
        if label:
            self._count_model(label, record, failed, client_error)

    def counts(self, visible: Visibility) -> Counts:
        """Count the requests for visible models that visible endpoints answered.

        Requests without an endpoint or a model are visible only to callers who may see all
        endpoints or all models.
        """
        if visible.everything:
            return self._all
        seen: dict[str, bool] = {"": visible.all_models, OTHER: visible.all_models}
        total = Counts()
        for (endpoint, label), part in self._parts.items():
            if visible.endpoints is not None and endpoint not in visible.endpoints:
                continue
            if label not in seen:
                seen[label] = visible.sees_model(label)
            if seen[label]:
                total.add(part)
        return total

    def _count_attempt(self, attempt: AttemptRecord) -> None:
        endpoint = self.endpoints.get(attempt.endpoint)
        if endpoint is None:
            self._forget_removed()
            endpoint = self.endpoints[attempt.endpoint] = EndpointTraffic()
        failure = attempt.failure
        if failure is None:
            endpoint.successes += 1
        elif failure.facts.origin is Origin.ENDPOINT:
            endpoint.failures += 1
        else:
            endpoint.abandoned += 1
        if attempt.first_byte is not None:
            endpoint.first_byte.add(max(0.0, attempt.first_byte - attempt.started))

    def _forget_removed(self) -> None:
        """Bound the memory if reloads replace endpoint names repeatedly."""
        known = self._snapshot().by_name
        for name in [each for each in self.endpoints if each not in known]:
            del self.endpoints[name]
        for key in [each for each in self._parts if each[0] and each[0] not in known]:
            del self._parts[key]

    def _count_model(
        self, label: str, record: RequestRecord, failed: bool, client_error: bool
    ) -> None:
        model = self.models.get(label)
        if model is None:
            model = self.models[label] = ModelTraffic()
        model.requests += 1
        model.failures += failed
        model.client_errors += client_error
        model.prompt_tokens += record.prompt_tokens or 0
        model.output_tokens += record.output_tokens or 0
        model.last_requested = record.started_wall
        if failed or client_error:
            return  # the time to an error says nothing about the model's speed
        model.duration.add(max(0.0, record.ended - record.started))
        if record.first_byte is not None:
            model.first_byte.add(max(0.0, record.first_byte - record.started))


def _verdict(record: RequestRecord) -> tuple[bool, bool]:
    """Return whether olla or an endpoint failed the request, and whether the client was at
    fault."""
    if record.failure is not None:
        by_client = record.failure.facts.origin is Origin.CLIENT
        return not by_client, by_client
    return record.status >= 500, 400 <= record.status < 500
