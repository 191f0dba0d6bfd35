"""The catalogue is what is exported."""

from prometheus_client.parser import text_string_to_metric_families

from olla.failures import Failure, Kind
from olla.fleet.snapshot import ResidentModel
from olla.fleet.twins import Twins
from olla.telemetry.metric_catalogue import CATALOGUE, table
from olla.telemetry.metrics import Metrics
from tests.surfaces.known_fleet import all_of
from tests.telemetry.samples import fleet, record

_ACCESS = (
    "olla_api_keys",
    "olla_store_up",
    "olla_usage_written_total",
    "olla_usage_lost_total",
    "olla_usage_pending",
    "olla_shared_state_up",
    "olla_shared_state_fallbacks_total",
)
"""What the composition root tells of keys, usage and shared state."""


def test_every_exported_metric_is_a_row_and_every_row_is_exported() -> None:
    """Names, kinds and labels of the text are those of the catalogue, both ways."""
    snapshot = fleet("llama3", resident=(ResidentModel("llama3:latest", "d" * 64),))
    twins = Twins()
    twins.follow(snapshot, 0.0)
    metrics = Metrics(
        version="1",
        snapshot=lambda: snapshot,
        twins=twins,
        retries=lambda: {"made": 1},
        access=lambda: dict.fromkeys(_ACCESS, 1.0),
        dropped_lines=lambda: {"requests": 1},
    )
    metrics.limit_exceeded("access.tiers.member.requests_per_minute", False)
    metrics.reloaded(well=True)
    metrics(record(load_seconds=1.0, predicted=0.2, queue_seconds=0.1))
    metrics(record(failure=Failure(Kind.RESET, "reset")))
    body = all_of(metrics.rendering())
    exported = {}
    for family in text_string_to_metric_families(body.decode()):
        # The parser takes a counter's suffix off its family's name.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exported[name] = (family.type, labels)
    assert exported == {row.name: (row.kind.value, set(row.labels)) for row in CATALOGUE}


def test_buckets_rise_and_span_tokens_to_loads() -> None:
    """Histograms reach from some milliseconds to ten minutes."""
    for row in CATALOGUE:
        assert bool(row.buckets) == (row.kind.value == "histogram")
        assert list(row.buckets) == sorted(set(row.buckets))
        if row.buckets and "error" in row.name:
            assert [-bound for bound in reversed(row.buckets)] == list(row.buckets)
        elif row.buckets:
            assert (row.buckets[0], row.buckets[-1]) == (0.005, 600.0)


def test_the_table_has_a_line_for_each_row() -> None:
    """The Markdown table lists every metric."""
    assert len(table().splitlines()) == len(CATALOGUE) + 2
