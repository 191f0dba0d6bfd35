"""What was asked so far, for the status pages."""

import re

import pytest

from olla.access.visibility import EVERYTHING, Visibility
from olla.failures import Failure, Kind
from olla.record import AttemptRecord
from olla.telemetry.traffic import Traffic, Window
from tests.telemetry.samples import fleet, record


@pytest.fixture
def traffic() -> Traffic:
    """Traffic of a fleet with one model."""
    return Traffic(lambda: fleet("llama3:latest"), models_max=3)


def test_a_client_that_is_wrong_is_no_failure(traffic: Traffic) -> None:
    """Failures are what olla or an endpoint did; what clients did is counted apart."""
    traffic(record())
    traffic(record(failure=Failure(Kind.RESET, "reset"), status=502))
    traffic(record(failure=Failure(Kind.CLIENT_GONE, "gone"), status=499))
    traffic(record(status=404))
    traffic(record(status=500))
    counts = traffic.counts(EVERYTHING)
    assert (counts.requests, counts.failures, counts.client_errors) == (5, 2, 2)
    model = traffic.models["llama3:latest"]
    assert (model.requests, model.failures, model.client_errors) == (5, 2, 2)
    assert model.duration.quantiles([0.5]) == [2.5]


def test_bytes_and_tokens_add_up(traffic: Traffic) -> None:
    """Sums are over all requests."""
    traffic(record())
    traffic(record(prompt_tokens=None, output_tokens=None))
    counts = traffic.counts(EVERYTHING)
    assert (counts.bytes_in, counts.bytes_out) == (80, 8000)
    model = traffic.models["llama3:latest"]
    assert (model.prompt_tokens, model.output_tokens) == (12, 80)


def test_attempts_tell_evidence_from_the_rest(traffic: Traffic) -> None:
    """An attempt the client gave up says nothing against the endpoint."""
    kinds = [None, Kind.CONNECT_REFUSED, Kind.CLIENT_GONE]
    attempts = [
        AttemptRecord("gpu-1", "", 1.0, 1.5, failure=None if kind is None else Failure(kind, ""))
        for kind in kinds
    ]
    traffic(record(attempts=attempts))
    endpoint = traffic.endpoints["gpu-1"]
    assert (endpoint.successes, endpoint.failures, endpoint.abandoned) == (1, 1, 1)
    assert endpoint.first_byte.mean() == 0.5


def test_made_up_models_share_one_row(traffic: Traffic) -> None:
    """Names that clients invent do not grow the table."""
    for number in range(50):
        traffic(record(model=f"made-up-{number}", status=404))
    assert set(traffic.models) == {"other"}


def test_a_window_forgets() -> None:
    """Only the last measurements count."""
    window = Window(3)
    assert window.mean() is None
    assert window.quantiles([0.5, 0.95]) == [None, None]
    for seconds in (100.0, 1.0, 2.0, 3.0):
        window.add(seconds)
    assert window.mean() == 2.0


@pytest.mark.parametrize(
    ("fraction", "value"), [(0.0, 1.0), (0.5, 50.0), (0.95, 95.0), (0.951, 96.0), (1.0, 100.0)]
)
def test_quantiles_are_the_nearest_rank(fraction: float, value: float) -> None:
    """A quantile is a value that was measured."""
    window = Window(100)
    for number in range(100, 0, -1):
        window.add(float(number))
    assert window.quantiles([fraction]) == [value]


def test_endpoints_that_were_removed_are_forgotten_when_others_come() -> None:
    """However often the configuration names them anew."""
    snapshot = [fleet("llama3:latest")]
    traffic = Traffic(lambda: snapshot[0])
    for number in range(100):
        traffic(record(attempts=[AttemptRecord(f"pod-{number}", "", 100.0)]))
    traffic(record())
    assert set(traffic.endpoints) <= {"pod-99", "gpu-1"}
    assert traffic.counts(EVERYTHING).requests == 101


def test_a_part_of_the_fleet_is_counted_for_those_who_see_a_part() -> None:
    """By the endpoint that answered and by the model; what has neither belongs to the whole."""
    traffic = Traffic(lambda: fleet("llama3:latest"), models_max=3)
    for endpoint, model in (
        ("gpu-1", "llama3"),
        ("gpu-1", "unlisted"),
        (None, "llama3"),
        (None, None),
    ):
        traffic(record(endpoint=endpoint, model=model))
    llamas = re.compile("llama3.*|other.*")

    def total(**visible: object) -> int:
        return traffic.counts(Visibility(**visible)).requests  # type: ignore[arg-type]

    assert total() == 4
    assert total(endpoints=frozenset({"gpu-1"})) == 2
    assert total(models=llamas) == 2
    assert total(endpoints=frozenset({"gpu-1"}), models=llamas) == 1
    assert total(endpoints=frozenset({"elsewhere"})) == 0
