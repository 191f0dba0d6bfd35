"""What is in flight, by olla's own count.

Ollama reports neither its queue nor its busy slots, so olla counts what it sent and has not yet
seen finish. Mutable, owned by the dispatcher; routing reads it.
"""

__all__ = ["Load"]


class Load:
    """Requests in flight per endpoint, and per endpoint and model."""

    __slots__ = ("_by_endpoint", "_by_model", "_trials")

    def __init__(self) -> None:
        self._by_endpoint: dict[str, int] = {}
        self._by_model: dict[tuple[str, str], int] = {}
        self._trials: set[str] = set()

    def on(self, endpoint: str) -> int:
        """Inference requests in flight on an endpoint."""
        return self._by_endpoint.get(endpoint, 0)

    def on_model(self, endpoint: str, model: str) -> int:
        """Inference requests in flight on an endpoint for a model (canonical name)."""
        return self._by_model.get((endpoint, model), 0)

    def total(self) -> int:
        """Inference requests in flight everywhere."""
        return sum(self._by_endpoint.values())

    def on_trial(self, endpoint: str) -> bool:
        """Whether a request is on its way that tries out a half-open endpoint."""
        return endpoint in self._trials

    def begin_trial(self, endpoint: str) -> None:
        """The next request to a half-open endpoint is its trial."""
        self._trials.add(endpoint)

    def end_trial(self, endpoint: str) -> None:
        """The trial is over, however it ended."""
        self._trials.discard(endpoint)

    def add(self, endpoint: str, model: str | None) -> None:
        """Count one more."""
        self._by_endpoint[endpoint] = self._by_endpoint.get(endpoint, 0) + 1
        if model is not None:
            key = (endpoint, model)
            self._by_model[key] = self._by_model.get(key, 0) + 1

    def remove(self, endpoint: str, model: str | None) -> None:
        """Count one less. Counts at zero are forgotten, so that names do not pile up."""
        count = self._by_endpoint[endpoint] - 1
        if count:
            self._by_endpoint[endpoint] = count
        else:
            del self._by_endpoint[endpoint]
        if model is not None:
            key = (endpoint, model)
            count = self._by_model[key] - 1
            if count:
                self._by_model[key] = count
            else:
                del self._by_model[key]
