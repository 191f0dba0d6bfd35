"""Tests of the `routing` section."""

import pytest

from olla.settings import SettingsError, parse
from olla.settings.endpoint_specs import endpoint_specs

FLEET = """
discovery:
  static:
    endpoints:
      - {url: "http://a:1", name: a}
      - {url: "http://b:1", name: b}
"""


def problems(text: str) -> list[str]:
    """Return the problems of a file."""
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    return [str(each) for each in caught.value.problems]


def test_durations_and_counts_are_parsed() -> None:
    """In the units of the rest of the file."""
    routing = parse("routing: {spillover: 500ms, queue_timeout: 1m, max_queue: 7}", {}).settings
    assert routing.routing.spillover == 0.5
    assert routing.routing.queue_timeout == 60.0
    assert routing.routing.max_queue == 7


@pytest.mark.parametrize(
    "text", ["max_queue: -1", "queue_timeout: 0s", "spillover: -1s", "num_ctx: {max: 0}", "max: 1"]
)
def test_invalid_values_are_rejected(text: str) -> None:
    """The problem has its line."""
    assert any("1" in each for each in problems(f"routing: {{{text}}}"))


def test_the_context_limit_must_be_a_multiple_of_its_rounding() -> None:
    """Otherwise rounding up would exceed it."""
    (problem,) = problems("routing: {num_ctx: {max: 10000, round_to: 4096}}")
    assert "multiple" in problem


def test_endpoints_reserved_for_embeddings_must_exist() -> None:
    """A misspelled name is reported with the nearest one."""
    (problem,) = problems(
        FLEET.replace("name: b", "name: gpu-b") + "routing: {embedding_endpoints: [gpub]}"
    )
    assert "gpub" in problem
    assert "gpu-b" in problem


def test_not_every_endpoint_can_be_reserved_for_embeddings() -> None:
    """No endpoint would be left for other requests."""
    (problem,) = problems(FLEET + "routing: {embedding_endpoints: [a, b]}")
    assert "every endpoint" in problem


@pytest.mark.parametrize("start", ["", "discovery:\n", "discovery: {static: {endpoints: }}\n"])
def test_references_are_checked_against_the_default_endpoint(start: str) -> None:
    """If the file has no endpoint list."""
    (unknown,) = problems(start + "routing: {embedding_endpoints: [remote-ollama]}")
    assert "did you mean local-ollama?" in unknown
    (all_reserved,) = problems(start + "routing: {embedding_endpoints: [local-ollama]}")
    assert "every endpoint" in all_reserved


def test_an_invalid_endpoint_name_is_reported_only_once() -> None:
    """References to it are not reported as well."""
    (problem,) = problems(
        FLEET.replace("name: b", "name: [b]") + "routing: {embedding_endpoints: [b]}"
    )
    assert "must be a string" in problem


@pytest.mark.parametrize("name", ["''", "' '", '"a\\0b"'])
def test_a_decision_log_needs_a_file_name(name: str) -> None:
    """The problem is reported at load, not when the log is opened."""
    (problem,) = problems(f"routing: {{decision_log: {name}}}")
    assert "name a file" in problem


def test_node_capacities_reach_the_fleet() -> None:
    """Sizes are in bytes, the bandwidth in bytes per second."""
    text = FLEET.replace(
        "name: a}", "name: a, vram: 24GB, max_loaded_models: 2, load_bandwidth: 1GB/s}"
    )
    spec, other = endpoint_specs(parse(text, {}).settings)
    assert (spec.vram, spec.max_loaded_models, spec.load_bandwidth) == (24 << 30, 2, 1 << 30)
    assert (other.vram, other.max_loaded_models, other.load_bandwidth) == (None, None, None)
