"""The models that simulated nodes may have."""

import re

import pytest

from olla.simulation.model_catalogue import CATALOGUE, full_name, model_spec


def test_every_row_is_whole() -> None:
    """Names have a tag, digests are hex, sizes and parameters are there."""
    for name, spec in CATALOGUE.items():
        assert name == spec.name == full_name(name)
        assert re.fullmatch(r"[0-9a-f]{64}", spec.digest)
        assert spec.size > 0
        assert spec.parameters > 1e8
        assert spec.embedding_length > 0


def test_one_file_may_have_two_names() -> None:
    """llama2 and llama2:7b share their digest, others do not."""
    assert CATALOGUE["llama2:latest"].digest == CATALOGUE["llama2:7b"].digest
    assert CATALOGUE["llama2:latest"].digest != CATALOGUE["llama2:13b"].digest


@pytest.mark.parametrize(
    "name",
    ["llama3.2", "llama3.2:latest", "library/llama3.2", "registry.ollama.ai/library/llama3.2"],
)
def test_a_name_has_many_spellings(name: str) -> None:
    """Default host, namespace and tag may be left out."""
    assert model_spec(name) == CATALOGUE["llama3.2:latest"]


def test_an_unknown_name_is_made_up_the_same_way_each_time() -> None:
    """A made-up model has a digest of its own."""
    assert model_spec("mine") == model_spec("mine:latest")
    assert model_spec("mine").digest != model_spec("yours").digest
