"""The `X-Olla-*` fields of a response."""

from olla.proxy.exchange.response_headers import ResponseHeaders
from olla.record import AttemptRecord, RequestRecord


def record(**more: object) -> RequestRecord:
    """Return the record of a routed request."""
    fields: dict[str, object] = {
        "endpoint": "gpu-1",
        "model": "m:latest",
        "endpoint_type": "ollama",
        "strategy": "strict",
        "decision": "routed",
        "reason": "model_loaded",
    }
    return RequestRecord("r-1", "POST", "/", "", 1.0, 0.0, **{**fields, **more})  # type: ignore[arg-type]


def fields_of(request: RequestRecord, explanation: str | None = None) -> dict[str, str]:
    """Return the fields by name, as of half a second after the start."""
    raw = ResponseHeaders().fields(request, 1.5, explanation)
    assert raw.endswith(b"\r\n")
    return dict(line.split(": ", 1) for line in raw.decode().splitlines())


def test_every_response_names_its_endpoint_and_decision() -> None:
    """Id, endpoint, model, type, strategy, decision, reason, time."""
    assert fields_of(record()) == {
        "X-Olla-Request-ID": "r-1",
        "X-Olla-Endpoint": "gpu-1",
        "X-Olla-Model": "m:latest",
        "X-Olla-Backend-Type": "ollama",
        "X-Olla-Routing-Strategy": "strict",
        "X-Olla-Routing-Decision": "routed",
        "X-Olla-Mode": "passthrough",
        "X-Olla-Routing-Reason": "model_loaded",
        "X-Olla-Response-Time": "0.500s",
    }


def test_retries_waits_and_explanations_are_reported() -> None:
    """The explanation includes the predicted and the observed time."""
    attempts = [AttemptRecord("a", "x", 0.0), AttemptRecord("b", "x", 0.0)]
    request = record(attempts=attempts, queue_seconds=0.25, predicted=0.1, first_byte=1.2)
    fields = fields_of(request, "a=0.1s()")
    assert fields["X-Olla-Attempts"] == "2"
    assert fields["X-Olla-Queue-Time"] == "0.250s"
    assert fields["X-Olla-Explanation"] == "a=0.1s(); predicted=0.100s; observed=0.200s"


def test_a_rejected_request_has_no_endpoint() -> None:
    """And a model's name cannot inject a field."""
    request = record(endpoint=None, endpoint_type=None, decision="", reason="", model="a\r\nb: c")
    fields = fields_of(request)
    assert "X-Olla-Endpoint" not in fields
    assert fields["X-Olla-Routing-Decision"] == "rejected"
    assert fields["X-Olla-Model"] == "a%0D%0Ab: c"


def test_the_cache_is_bounded() -> None:
    """Clients choose the models' names."""
    response_headers = ResponseHeaders()
    for number in range(5000):
        response_headers.fields(record(model=f"m{number}"), 1.5)
    assert len(response_headers._cache) <= 1024
