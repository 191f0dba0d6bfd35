"""What all APIs of a simulated node share: limits of an answer, the prompt's, the busy node's."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from olla.simulation.execution import Measures
from olla.simulation.inference import embed_all, talk, whole_number
from olla.simulation.model_catalogue import model_spec
from olla.simulation.responses import ApiError
from olla.simulation.server import NodeOptions, SimulatedNode

MODEL = model_spec("llama3.2")


@pytest.fixture
def tools() -> SimulatedNode:
    """A node that listens nowhere."""
    return SimulatedNode(NodeOptions(time_scale=0.0005))


async def say(tools: SimulatedNode, prompt: str, **options: Any) -> tuple[str, Measures, str]:
    """What is said, measures, and the reason for the end."""
    measures = Measures(tools.executor.now)
    end: list[str] = []
    async with aclosing(talk(tools, MODEL, prompt, measures, end, options=options)) as said:
        text = "".join([token async for token in said])
    tools.executor.close()
    return text, measures, end[0]


async def test_a_prompt_is_cut_to_the_context(tools: SimulatedNode) -> None:
    """No more is read than fits."""
    _, measures, _ = await say(tools, "word " * 500, num_ctx=128, num_predict=1)
    assert measures.prompt_tokens == 128


async def test_the_requests_seed_decides_too(tools: SimulatedNode) -> None:
    """Another seed says something else, the same one the same."""
    first, again, other = [(await say(tools, "x", seed=seed))[0] for seed in (1, 1, 2)]
    assert first == again != other


async def test_odd_options_do_no_harm(tools: SimulatedNode) -> None:
    """Nulls and values of another kind are as if they were not there."""
    plain = (await say(tools, "x"))[0]
    odd = {"num_predict": None, "stop": [None, 5], "num_ctx": "big", "temperature": "hot"}
    assert (await say(tools, "x", **odd))[0] == plain


async def test_a_busy_node_is_503() -> None:
    """With the words of Ollama."""
    tools = SimulatedNode(NodeOptions(time_scale=0.05, max_queue=0))
    loading = asyncio.ensure_future(embed_all(tools, MODEL, ["x"], Measures(tools.executor.now)))
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match=r"server busy, please try again\.  maximum") as caught:
        await embed_all(tools, model_spec("mistral"), ["x"], Measures(tools.executor.now))
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    tools.executor.close()
    assert caught.value.status == 503


def test_whole_numbers() -> None:
    """A truth value is no number."""
    assert [whole_number(value) for value in (3, True, "3", 3.0, None)] == [
        3,
        None,
        None,
        None,
        None,
    ]
