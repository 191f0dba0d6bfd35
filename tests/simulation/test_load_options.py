"""What a model becomes under load options, and when an instance can be shared."""

import pytest

from olla.simulation.load_options import compatible, context_length, load_options, needed
from olla.simulation.model_catalogue import model_spec

GIB = 1 << 30
MODEL = model_spec("llama3.2")


def options(**given: object) -> tuple[tuple[str, float], ...]:
    """Load options of a request."""
    return load_options(given.items())


@pytest.mark.parametrize(
    ("loaded", "wanted", "shared"),
    [
        ({}, {}, True),
        ({}, {"temperature": 0.5, "seed": 1, "num_predict": 9}, True),
        ({}, {"num_ctx": None}, True),
        ({}, {"num_batch": 512, "num_thread": 0, "main_gpu": 0}, True),
        ({"num_ctx": 4096}, {"num_ctx": 4096}, True),
        ({"num_ctx": 4096}, {}, False),
        ({}, {"num_ctx": 4096}, False),
        ({}, {"num_batch": 256}, False),
        ({}, {"use_mmap": False}, False),
        ({}, {"num_thread": 4}, False),
        ({"num_gpu": 10}, {}, True),
        ({"num_gpu": 10}, {"num_gpu": -1}, True),
        ({"num_gpu": 10}, {"num_gpu": 20}, False),
        ({}, {"num_gpu": 0}, False),
    ],
)
def test_who_can_share_an_instance(
    loaded: dict[str, object], wanted: dict[str, object], shared: bool
) -> None:
    """Load options must agree; defaults and nulls count as omitted; num_gpu may be left open."""
    assert compatible(options(**loaded), options(**wanted)) is shared


@pytest.mark.parametrize(
    ("vram", "given", "context"),
    [
        (12 * GIB, {}, 4096),
        (24 * GIB, {}, 32768),
        (80 * GIB, {}, 131072),
        (24 * GIB, {"num_ctx": 8192}, 8192),
        (24 * GIB, {"num_ctx": 10**9}, 131072),
        (24 * GIB, {"num_ctx": 1}, 4),
    ],
)
def test_context_is_asked_for_or_by_memory(
    vram: int, given: dict[str, object], context: int
) -> None:
    """Automatic context follows the memory; never more than the model can, never less than 4."""
    assert context_length(MODEL, options(**given), vram) == context


def test_memory_grows_with_context_and_slots() -> None:
    """Weights once, context once per slot."""
    assert needed(MODEL, 4096, 1) > MODEL.size
    per_slot = needed(MODEL, 4096, 2) - needed(MODEL, 4096, 1)
    assert per_slot == pytest.approx(needed(MODEL, 8192, 1) - needed(MODEL, 4096, 1), abs=1)
