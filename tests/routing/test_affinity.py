"""Which endpoints have the beginning of a prompt."""

from hypothesis import given
from hypothesis import strategies as st

from olla.routing.affinity import CUTS, PrefixCache, prefix_blocks
from tests.views import MODEL, twins, view

KB = 1024
FIRST = b"a" * (3 * KB)
NEXT = FIRST + b"b" * (2 * KB)


@given(st.binary(max_size=8 * KB), st.binary(max_size=4 * KB))
def test_a_longer_prompt_begins_with_the_blocks_of_the_shorter(head: bytes, tail: bytes) -> None:
    """So a conversation's next turn finds its last one."""
    blocks = prefix_blocks(head)
    assert prefix_blocks(head + tail)[: len(blocks)] == blocks
    assert len(blocks) == sum(cut <= len(head) for cut in CUTS)


def test_who_served_the_beginning_is_known_with_how_much_of_it() -> None:
    """Three of the five kilobytes."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1, resident=["m:latest"]))
    instances, cache = kept.instances(MODEL), PrefixCache()
    cache.remember(instances[0], prefix_blocks(FIRST))
    assert cache.cached(instances, prefix_blocks(NEXT)) == {"a": 3.0 * KB}


def test_what_came_after_takes_its_place() -> None:
    """A slot that has served others since has forgotten."""
    kept = twins(view("a", resident=["m:latest"], num_parallel=1))
    instances, cache = kept.instances(MODEL), PrefixCache()
    cache.remember(instances[0], prefix_blocks(FIRST))
    instances[0].finished += 10
    assert cache.cached(instances, prefix_blocks(NEXT)) == {}


def test_a_model_that_was_unloaded_has_forgotten() -> None:
    """Its cache went with it."""
    kept = twins(view("a", resident=["m:latest"]))
    instances, cache = kept.instances(MODEL), PrefixCache()
    cache.remember(instances[0], prefix_blocks(FIRST))
    instances[0].resident = False
    assert cache.cached(instances, prefix_blocks(FIRST)) == {}


def test_memory_is_bounded() -> None:
    """However many prompts there are."""
    kept = twins(view("a", resident=["m:latest"]))
    cache = PrefixCache()
    for number in range(30_000):
        cache.remember(kept.instances(MODEL)[0], (number,))
    assert len(cache._seen) <= 20_001
