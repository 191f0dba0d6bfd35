"""What one answer teaches."""

import msgspec
import pytest

from olla.admission.feedback import learn
from olla.admission.queue_types import AnswerStats
from olla.fleet.instance import InFlightRequest, ModelInstance
from tests.views import MODEL, features, twins, view

TOLD = AnswerStats(
    prompt_bytes=4000,
    prompt_tokens=1000,
    output_tokens=100,
    prompt_seconds=0.5,
    output_seconds=2.0,
    load_seconds=0.01,
    total_seconds=2.55,
)


def instance_of(num_parallel: int | None = None) -> ModelInstance:
    """A line with the model in memory."""
    kept = twins(view("a", resident=["m:latest"], num_parallel=num_parallel))
    return kept.by_name["a"].names[MODEL]


def teach(
    instance: ModelInstance,
    answer: AnswerStats,
    *,
    crowd: int = 0,
    began: float = 0.5,
    times: int = 60,
) -> None:
    """Let the same answer come again and again."""
    for _ in range(times):
        flight = InFlightRequest(instance, 0.0, 1.0)
        flight.crowd, flight.began = crowd, began
        learn(flight, features(), answer, 2.5)


def test_the_endpoints_own_times_are_believed() -> None:
    """Rates per token, length of output, bytes per token."""
    instance = instance_of()
    teach(instance, TOLD)
    assert instance.rates.prefill == pytest.approx(0.0005, rel=0.1)
    assert instance.rates.decode == pytest.approx(0.02, rel=0.1)
    assert instance.habits.output_tokens == pytest.approx(100, rel=0.1)
    assert instance.habits.tokens(4000) == pytest.approx(1000, rel=0.05)


def test_without_times_the_first_byte_tells() -> None:
    """Of a stream that was alone on its line."""
    instance = instance_of()
    teach(instance, AnswerStats(4000, 1000, 100), began=0.25)
    assert instance.rates.prefill == pytest.approx(0.00025, rel=0.1)
    assert instance.rates.decode == pytest.approx(2.25 / 100, rel=0.1)


def test_a_whole_answer_without_times_teaches_no_rates() -> None:
    """Its first byte comes with its last."""
    instance = instance_of()
    before = instance.rates.prefill, instance.rates.decode
    teach(instance, AnswerStats(4000, 1000, 100, streamed=False))
    assert (instance.rates.prefill, instance.rates.decode) == before


def test_a_load_spoils_no_rate() -> None:
    """A first byte that waited for a load tells nothing of reading."""
    instance = instance_of()
    before = instance.rates.prefill
    teach(instance, AnswerStats(4000, 1000, None, load_seconds=8.0), began=9.0)
    assert instance.rates.prefill == before


def test_one_more_than_fits_that_did_not_wait_raises_the_slots() -> None:
    """The node's own sum of times shows no gap."""
    instance = instance_of()
    assert instance.slots.limit == 1
    teach(instance, TOLD, crowd=1, times=1)
    assert instance.slots.limit == 2


def test_one_that_waited_raises_nothing() -> None:
    """Two seconds of its time went into nothing it did."""
    instance = instance_of()
    waited = AnswerStats(4000, 1000, 100, 0.5, 2.0, 0.0, total_seconds=4.6)
    teach(instance, waited, crowd=1, times=1)
    assert instance.slots.limit == 1


@pytest.mark.parametrize(
    "told",
    [
        AnswerStats(400, 15, None, 0.9),
        AnswerStats(4000, 1000, None, 0.0),
        AnswerStats(4000, 1000, 0, None, 9.0),
        AnswerStats(4000, 1000, 100, None, 0.0),
    ],
    ids=["a short prompt", "no time for the prompt", "no output", "no time for the output"],
)
def test_counts_and_times_that_say_nothing_teach_no_rate(told: AnswerStats) -> None:
    """A few tokens tell of the overhead, and nothing takes no time at all."""
    instance = instance_of()
    before = instance.rates.prefill, instance.rates.decode
    teach(instance, told, crowd=1)
    assert (instance.rates.prefill, instance.rates.decode) == before


def test_a_first_byte_tells_of_the_whole_prompt_only() -> None:
    """Not where a part of it was in the cache, and not where others were worked on before it."""
    instance = instance_of()
    before = instance.rates.prefill
    teach(instance, AnswerStats(4000, 1000, None), crowd=1)
    cached = msgspec.structs.replace(features(), cached={"a": 900.0})
    for _ in range(60):
        flight = InFlightRequest(instance, 0.0, 1.0)
        flight.began = 0.1
        learn(flight, cached, AnswerStats(4000, 1000, None), 2.5)
    assert instance.rates.prefill == before


@pytest.mark.parametrize(("total", "slots"), [(4.6, 2), (4.7, 1)])
def test_a_gap_that_is_a_part_of_the_prompt_s_time_is_no_wait(total: float, slots: int) -> None:
    """Some of the time goes into neither prompt nor output: three tenths of a prompt of two
    seconds are 0.6 s."""
    instance = instance_of()
    teach(instance, AnswerStats(4000, 1000, 100, 2.0, 2.0, 0.0, total), crowd=1, times=1)
    assert instance.slots.limit == slots


def test_a_whole_answer_without_times_tells_nothing_of_slots() -> None:
    """Its first byte comes with its last, however long it waited."""
    instance = instance_of()
    for began in (0.1, 100.0):
        teach(instance, AnswerStats(4000, 1000, 100, streamed=False), crowd=1, began=began)
        assert instance.slots.limit == 1


@pytest.mark.parametrize(("began", "slots"), [(0.1, 2), (9.0, 1)])
def test_a_late_first_byte_of_a_stream_tells_that_it_had_to_wait(began: float, slots: int) -> None:
    """Where the endpoint tells no times: by what the prompt should have taken."""
    instance = instance_of()
    teach(instance, AnswerStats(4000, 1000, 100), crowd=1, began=began, times=1)
    assert instance.slots.limit == slots
