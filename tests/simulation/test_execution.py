"""A request's work in simulated time: rates, slots, and what a hang-up leaves behind."""

import asyncio
from contextlib import aclosing

import pytest

from olla.clock import SystemClock
from olla.simulation.events import NodeLimits
from olla.simulation.execution import Busy, Executor, Measures
from olla.simulation.model_catalogue import ModelSpec, model_spec

FOUR_GB = ModelSpec("four", 4_000_000_000, context=4096, digest="four")
WORDS = ["a", "b", "c", "d", "e", "f"]


def executor(**limits: object) -> Executor:
    """60 tokens a second out, 1500 in, a thousand times faster than real."""
    return Executor(
        NodeLimits(**limits),  # type: ignore[arg-type]
        SystemClock(),
        scale=0.001,
        tokens_per_second=60,
        prompt_tokens_per_second=1500,
    )


async def speak(shop: Executor, spec: ModelSpec, prompt_tokens: int = 0) -> tuple[str, Measures]:
    """What is said, and its measures."""
    measures = Measures(shop.now)
    said = shop.speak(spec, (), None, prompt_tokens, WORDS, measures)
    return "".join([token async for token in said]), measures


async def test_durations_are_what_the_rates_say() -> None:
    """A load of four gigabytes, 3000 tokens read, six said."""
    shop = executor()
    said, measures = await speak(shop, FOUR_GB, 3000)
    shop.close()
    assert said == "abcdef"
    assert measures.load == pytest.approx(4)
    assert measures.prompt == pytest.approx(2)
    assert measures.decode == pytest.approx(6 / 60)
    assert measures.total >= 4 + 2 + 6 / 60


async def test_small_models_are_faster() -> None:
    """Rates go with the size."""
    shop = executor()
    _, large = await speak(shop, FOUR_GB)
    _, small = await speak(shop, model_spec("llama3.2:1b"))
    shop.close()
    assert large.decode / small.decode == pytest.approx(4e9 / 1_321_098_329)


async def test_what_does_not_fit_is_slow() -> None:
    """A model with half of it on the processor takes much longer per token."""
    fitting, tight = executor(), executor(vram=2_200_000_000)
    _, fast = await speak(fitting, FOUR_GB)
    _, slow = await speak(tight, FOUR_GB)
    fitting.close()
    tight.close()
    assert slow.decode > 4 * fast.decode


async def test_a_second_request_waits_for_the_slot() -> None:
    """Its total contains the wait, its load does not."""
    shop = executor()
    await shop.load(FOUR_GB, (), None, Measures(shop.now))
    async with aclosing(shop.speak(FOUR_GB, (), None, 0, WORDS, Measures(shop.now))) as first:
        assert await anext(first) == "a"
        second = asyncio.ensure_future(speak(shop, FOUR_GB))
        await asyncio.sleep(0)
        assert [token async for token in first] == WORDS[1:]
    _, measures = await second
    shop.close()
    assert measures.load == 0
    assert measures.total > measures.decode
    assert (shop.running, shop.cancelled, shop.tokens) == (0, 0, 12)


async def test_closing_gives_the_slot_back() -> None:
    """What has begun and is closed counts as cancelled, and the next gets the slot."""
    shop = executor()
    said = shop.speak(FOUR_GB, (), None, 0, WORDS, Measures(shop.now))
    assert await anext(said) == "a"
    await said.aclose()
    assert (shop.running, shop.cancelled) == (0, 1)
    assert (await speak(shop, FOUR_GB))[0] == "abcdef"
    shop.close()


async def test_a_full_queue_is_busy() -> None:
    """Whoever comes too many is told at once."""
    shop = executor(max_queue=0)
    first = asyncio.ensure_future(speak(shop, FOUR_GB))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await speak(shop, model_spec("mistral"))
    await first
    shop.close()


async def test_an_empty_token_takes_its_time_and_is_not_said() -> None:
    """It counts, but does not come out."""
    shop = executor()
    measures = Measures(shop.now)
    said = [token async for token in shop.speak(FOUR_GB, (), None, 0, ["", "ab"], measures)]
    shop.close()
    assert said == ["ab"]
    assert measures.tokens == 2


async def test_a_model_expires_by_itself() -> None:
    """A timer unloads it, though nobody asks."""
    shop = executor(keep_alive=5.0)
    await shop.load(FOUR_GB, (), None, Measures(shop.now))
    assert shop.node.unloads == 0
    async with asyncio.timeout(5):
        while shop.node.unloads == 0:
            await asyncio.sleep(0.002)
    shop.close()
