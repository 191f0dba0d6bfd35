"""What has been asked so far, per endpoint and per model: the numbers of the status pages.

A bounded fold over finished requests, since the start of the process. For time series there are
`metrics`; this answers a person who asks now.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import ceil

from olla.failures import Origin
from olla.fleet.snapshot import Snapshot
from olla.record import AttemptRecord, RequestRecord
from olla.telemetry.model_labels import ModelLabels

__all__ = ["EndpointTraffic", "ModelTraffic", "Traffic", "Window"]


class Window:
    """The last so many measurements, in seconds."""

    __slots__ = ("_values",)

    def __init__(self, size: int = 256) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Keep one more, forgetting the oldest when full."""
        self._values.append(seconds)

    def mean(self) -> float | None:
        """Their mean; None when there are none."""
        return sum(self._values) / len(self._values) if self._values else None

    def quantiles(self, fractions: Iterable[float]) -> list[float | None]:
        """For each fraction in [0, 1] the smallest value that so large a part does not exceed."""
        ordered = sorted(self._values)
        if not ordered:
            return [None for _ in fractions]
        # the nearest rank
        return [ordered[max(0, ceil(fraction * len(ordered)) - 1)] for fraction in fractions]


class EndpointTraffic:
    """What became of the attempts at one endpoint.

    `successes` and `failures` count attempts whose outcome says something of the endpoint;
    `abandoned` those the client gave up or that failed for olla's own reasons.
    """

    __slots__ = ("abandoned", "failures", "first_byte", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self.abandoned = 0
        self.first_byte = Window()


class ModelTraffic:
    """What became of the requests for one model. `failures` leaves out what clients did wrong."""

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
    """Counts finished requests, in all, per endpoint and per model.

    Models that `ModelLabels` gives no label of their own share the one named `other`.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], models_max: int = 200) -> None:
        self.requests = 0
        self.failures = 0
        self.client_errors = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.endpoints: dict[str, EndpointTraffic] = {}
        self.models: dict[str, ModelTraffic] = {}
        self._labels = ModelLabels(snapshot, models_max)
        self._snapshot = snapshot

    def __call__(self, record: RequestRecord) -> None:
        """Count a finished request."""
        self.requests += 1
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        failed, client_error = _verdict(record)
        self.failures += failed
        self.client_errors += client_error
        for attempt in record.attempts:
            self._count_attempt(attempt)
        if record.model:
            self._count_model(record.model, record, failed, client_error)

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
        """So that a configuration which names endpoints anew again and again takes no memory."""
        known = self._snapshot().by_name
        for name in [each for each in self.endpoints if each not in known]:
            del self.endpoints[name]

    def _count_model(
        self, name: str, record: RequestRecord, failed: bool, client_error: bool
    ) -> None:
        label = self._labels.label(name)
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
            return  # how soon an error came says nothing of the model's speed
        model.duration.add(max(0.0, record.ended - record.started))
        if record.first_byte is not None:
            model.first_byte.add(max(0.0, record.first_byte - record.started))


def _verdict(record: RequestRecord) -> tuple[bool, bool]:
    """Whether olla or an endpoint failed the request, and whether the client got it wrong."""
    if record.failure is not None:
        by_client = record.failure.facts.origin is Origin.CLIENT
        return not by_client, by_client
    return record.status >= 500, 400 <= record.status < 500
