"""Counters and histograms as plain numbers."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.exposition import generate_latest

from olla.telemetry.counters import Tallies
from olla.telemetry.metric_catalogue import metric_row

NAME = "olla_request_duration_seconds"


@given(st.lists(st.one_of(st.floats(0, 1000), st.sampled_from(metric_row(NAME).buckets))))
def test_a_histogram_reads_as_prometheus_clients_own_does(values: list[float]) -> None:
    """Buckets, bounds included, count; sum as far as adding up is exact."""
    row = metric_row(NAME)
    tallies, registry = Tallies(), CollectorRegistry()
    ours = tallies.histogram(NAME).labels("chat")
    theirs = Reference(NAME, row.meaning, row.labels, registry=registry, buckets=row.buckets)
    for value in values:
        ours.observe(value)
        theirs.labels("chat").observe(value)
    if not values:
        theirs.labels("chat")
    own_registry = CollectorRegistry()
    own_registry.register(tallies)
    expected = [
        line for line in generate_latest(registry).decode().splitlines() if "_created" not in line
    ]
    assert generate_latest(own_registry).decode().splitlines() == expected


def test_a_counter_has_a_child_for_each_set_of_labels() -> None:
    """The same labels lead to the same child."""
    tallies = Tallies()
    counter = tallies.counter("olla_attempts_total")
    counter.labels("a", "ok").value += 1
    counter.labels("a", "ok").value += 1
    counter.labels("b", "reset").value += 1
    (family,) = tallies.collect()
    found = {tuple(each.labels.values()): each.value for each in family.samples}
    assert found == {("a", "ok"): 2, ("b", "reset"): 1}


def test_a_histogram_without_labels_is_there_before_anything_happened() -> None:
    """So that a rate can be asked for from the start."""
    tallies = Tallies()
    tallies.histogram("olla_queue_seconds")
    (family,) = tallies.collect()
    assert {each.value for each in family.samples} == {0}
