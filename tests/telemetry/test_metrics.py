"""Metrics: counted per request, read at scrape time, bounded in labels."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from olla.failures import Failure, Kind
from olla.fleet.instance import InFlightRequest
from olla.fleet.snapshot import ResidentModel, Snapshot
from olla.fleet.twins import Twins
from olla.record import AttemptRecord
from olla.telemetry.metrics import METRICS_TYPE, Metrics
from tests.surfaces.known_fleet import all_of
from tests.telemetry.samples import fleet, record


class Scraped:
    """Metrics of a fleet, and their samples as Prometheus would read them."""

    def __init__(self, snapshot: Snapshot, **more: Any) -> None:
        self.snapshot = snapshot
        self.twins = Twins()
        self.metrics = Metrics(
            version="1.2.3", snapshot=lambda: self.snapshot, twins=self.twins, **more
        )

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        body = all_of(self.metrics.rendering())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def scraped() -> Scraped:
    """Metrics over a fleet with one model."""
    return Scraped(fleet("llama3:latest"))


def test_a_request_counts_once_everywhere(scraped: Scraped) -> None:
    """One record adds one to each of its series, and its times to the histograms."""
    scraped.metrics(record(load_seconds=3.0))
    asked = {"operation": "chat", "dialect": "ollama", "endpoint": "gpu-1", "status": "200"}
    assert scraped.value("olla_requests_total", **asked) == 1
    assert scraped.value("olla_request_duration_seconds_sum", operation="chat") == 2.5
    assert scraped.value("olla_request_duration_seconds_count", operation="chat") == 1
    where = {"operation": "chat", "endpoint": "gpu-1"}
    assert scraped.value("olla_time_to_first_byte_seconds_sum", **where) == 0.25
    assert scraped.value("olla_time_to_first_byte_seconds_bucket", le="0.25", **where) == 1
    assert scraped.value("olla_time_to_first_byte_seconds_bucket", le="0.1", **where) == 0
    assert scraped.value("olla_attempts_total", endpoint="gpu-1", outcome="ok") == 1
    tokens = {"endpoint": "gpu-1", "model": "llama3:latest"}
    assert scraped.value("olla_tokens_total", direction="prompt", **tokens) == 12
    assert scraped.value("olla_tokens_total", direction="output", **tokens) == 80
    assert scraped.value("olla_model_load_seconds_sum", endpoint="gpu-1") == 3.0


def test_a_failover_counts_both_attempts(scraped: Scraped) -> None:
    """Each attempt counts for its own endpoint with its own outcome."""
    refused = Failure(Kind.CONNECT_REFUSED, "refused", endpoint="gpu-2")
    scraped.metrics(
        record(
            attempts=[
                AttemptRecord("gpu-2", "cold_load", 100.0, failure=refused),
                AttemptRecord("gpu-1", "cold_load", 100.1, 100.25, 102.5, 200),
            ]
        )
    )
    assert scraped.value("olla_attempts_total", endpoint="gpu-2", outcome="connect_refused") == 1
    assert scraped.value("olla_attempts_total", endpoint="gpu-1", outcome="ok") == 1
    assert not [key for key in scraped.samples() if key[0] == "olla_failures_total"]


def test_a_failure_says_who_and_how_far(scraped: Scraped) -> None:
    """A failed request counts by kind, origin and phase."""
    failure = Failure(Kind.BODY_RESET, "reset", endpoint="gpu-1")
    scraped.metrics(record(failure=failure))
    labels = {"kind": "body_reset", "origin": "endpoint", "phase": "body"}
    assert scraped.value("olla_failures_total", **labels) == 1


def test_a_request_that_got_nowhere_has_no_endpoint(scraped: Scraped) -> None:
    """What failed before it was understood is counted without an endpoint or first byte."""
    scraped.metrics(
        record(
            operation="",
            dialect="",
            endpoint=None,
            model=None,
            first_byte=None,
            attempts=[],
            prompt_tokens=None,
            output_tokens=None,
            status=404,
        )
    )
    labels = {"operation": "unknown", "dialect": "unknown", "endpoint": "", "status": "404"}
    assert scraped.value("olla_requests_total", **labels) == 1
    names = {name for name, _ in scraped.samples()}
    assert "olla_time_to_first_byte_seconds_count" not in names


def test_what_olla_answers_itself_has_no_first_byte(scraped: Scraped) -> None:
    """The time to the first byte is endpoints' alone, so that lists do not sweeten it."""
    scraped.metrics(record(operation="list", endpoint=None, attempts=[]))
    names = {name for name, _ in scraped.samples()}
    assert "olla_time_to_first_byte_seconds_count" not in names


@pytest.mark.parametrize(("status", "label"), [(0, "none"), (999, "other"), (299, "299")])
def test_status_labels_are_statuses(scraped: Scraped, status: int, label: str) -> None:
    """Numbers that are no HTTP status share a label."""
    scraped.metrics(record(status=status))
    statuses = {dict(labels).get("status") for name, labels in scraped.samples()}
    assert label in statuses


def test_clients_cannot_invent_labels(scraped: Scraped) -> None:
    """A thousand made-up models are one label, and a known one in any spelling is its own."""
    for number in range(1000):
        scraped.metrics(record(model=f"made-up-{number}"))
    scraped.metrics(record(model=" LLAMA3 "))
    models = {dict(labels).get("model") for _, labels in scraped.samples()} - {None}
    assert models == {"other", "llama3:latest"}


def test_model_labels_are_capped() -> None:
    """A fleet with more models than the limit has `other` for the rest."""
    names = [f"model-{number}:latest" for number in range(10)]
    scraped = Scraped(fleet(*names), models_max=4)
    for name in names:
        scraped.metrics(record(model=name))
    models = {dict(labels).get("model") for _, labels in scraped.samples()} - {None}
    assert len(models) == 5
    assert scraped.value(
        "olla_tokens_total", endpoint="gpu-1", model="other", direction="prompt"
    ) == pytest.approx(6 * 12)


def test_a_model_keeps_its_label_when_it_is_gone(scraped: Scraped) -> None:
    """A counter does not change its name because an endpoint went away."""
    scraped.metrics(record())
    scraped.snapshot = fleet()
    scraped.metrics(record())
    labels = {"endpoint": "gpu-1", "model": "llama3:latest", "direction": "prompt"}
    assert scraped.value("olla_tokens_total", **labels) == 24


def test_gauges_are_what_is_now() -> None:
    """Endpoint gauges come from the snapshot and the load at the moment of the scrape."""
    resident_model = ResidentModel("llama3:latest", "d" * 64, size_vram=500)
    scraped = Scraped(
        fleet("llama3:latest", "alias:latest", resident=(resident_model,)),
        open_connections=lambda: 3,
        loop_lag=lambda: 0.125,
    )
    scraped.twins.follow(scraped.snapshot, 0.0)
    scraped.twins.by_name["gpu-1"].sent(InFlightRequest(None, 0.0, 1.0), 0.0)
    assert scraped.value("olla_endpoint_up", endpoint="gpu-1", type="ollama") == 1
    assert scraped.value("olla_endpoint_up", endpoint="gpu-2", type="auto") == 0
    assert scraped.value("olla_requests_in_flight", endpoint="gpu-1") == 1
    assert scraped.value("olla_models_available", endpoint="gpu-1") == 2
    assert scraped.value("olla_models_resident", endpoint="gpu-1") == 1
    assert scraped.value("olla_resident_vram_bytes", endpoint="gpu-1") == 500
    assert scraped.value("olla_open_connections") == 3
    assert scraped.value("olla_event_loop_lag_seconds") == 0.125
    assert scraped.value("olla_build_info", version="1.2.3") == 1
    scraped.snapshot = Snapshot.of(())
    assert scraped.value("olla_endpoint_up", endpoint="gpu-1", type="ollama") is None


@pytest.mark.parametrize("name", ["olla_endpoint_health", "olla_endpoint_breaker"])
def test_states_are_one_hot(scraped: Scraped, name: str) -> None:
    """Exactly one state of an endpoint is 1."""
    per_endpoint: dict[str, float] = {}
    for (sample, labels), value in scraped.samples().items():
        if sample == name:
            endpoint = dict(labels)["endpoint"]
            per_endpoint[endpoint] = per_endpoint.get(endpoint, 0) + value
    assert per_endpoint == {"gpu-1": 1, "gpu-2": 1}


def test_two_routers_do_not_mix(scraped: Scraped) -> None:
    """Each router has a registry of its own."""
    other = Scraped(fleet("llama3:latest"))
    scraped.metrics(record())
    assert not [key for key in other.samples() if key[0] == "olla_requests_total"]


def test_the_text_has_its_type_and_no_noise(scraped: Scraped) -> None:
    """The content type is the text format's; `_created` samples are left out."""
    scraped.metrics(record())
    body = all_of(scraped.metrics.rendering())
    assert METRICS_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert b"_created" not in body
    assert b"# TYPE olla_requests_total counter\n" in body


class SetClock:
    """Time in the test's hand."""

    at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


def test_the_series_of_a_removed_endpoint_go_some_time_after_its_last_answer() -> None:
    """They can be scraped until then, whoever scrapes; those of others stay, and one that comes
    back begins anew."""
    clock = SetClock()
    scraped = Scraped(fleet("llama3:latest"), clock=clock)
    failure = Failure(Kind.RESET, "reset", "gpu-1")
    other = [AttemptRecord("gpu-2", "", 100.0), AttemptRecord("gpu-1", "", 100.0, failure=failure)]
    scraped.metrics(record(predicted=0.1, load_seconds=3.0))
    scraped.metrics(record(endpoint="gpu-2", attempts=other, predicted=0.1))

    def of(endpoint: str) -> set[str]:
        return {name for name, labels in scraped.samples() if ("endpoint", endpoint) in labels}

    assert {name.partition("_seconds")[0] for name in of("gpu-1")} >= {
        *("olla_requests_total", "olla_time_to_first_byte", "olla_attempts_total"),
        *("olla_tokens_total", "olla_model_load", "olla_prediction_error"),
    }
    whole = scraped.snapshot
    scraped.snapshot = Snapshot.of(whole.endpoints[1:])
    there = of("gpu-1")
    clock.at += 290.0
    assert of("gpu-1") == there
    scraped.metrics(record())  # a stream that was under way
    clock.at += 290.0
    assert of("gpu-1") == there
    clock.at += 310.0
    assert of("gpu-1") == set()
    assert "olla_requests_total" in of("gpu-2")
    scraped.metrics(record())
    assert scraped.value("olla_attempts_total", endpoint="gpu-1", outcome="ok") == 1
    scraped.snapshot = whole
    clock.at += 10_000.0
    assert "olla_requests_total" in of("gpu-1")
