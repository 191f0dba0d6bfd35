"""Provide what every API of a simulated node needs to generate and embed.

It knows no wire format: `native_api` and `openai_api` read requests and write responses themselves.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from olla.clock import Clock
from olla.simulation.execution import Busy, Executor, Measures
from olla.simulation.load_options import context_length, load_options
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.responses import ApiError
from olla.simulation.storage import Storage
from olla.simulation.text_generator import count_tokens, embedding, limited, speech

__all__ = ["Tools", "embed_all", "load", "talk", "whole_number"]

_BUSY = "server busy, please try again.  maximum pending requests exceeded"


class Tools(Protocol):
    """What the parts of a node's API share."""

    name: str
    version: str
    seed: int
    clock: Clock
    storage: Storage
    executor: Executor


async def talk(
    tools: Tools,
    spec: ModelSpec,
    prompt: str,
    measures: Measures,
    end: list[str],
    *,
    options: dict[str, Any] | None = None,
    keep_alive: float | None = None,
) -> AsyncGenerator[str, None]:
    """Say something about a prompt; `end` gets the reason for the end, `stop` or `length`.

    Of `options` it heeds `num_predict`, `stop`, `seed` and the load options. A prompt longer than
    the context is cut to it.

    Raises:
        ApiError: the node is busy.
    """
    options = options or {}
    stops = options.get("stop")
    words = limited(
        speech(tools.seed, spec.digest, prompt, options.get("seed")),
        whole_number(options.get("num_predict")),
        [stop for stop in (stops if isinstance(stops, list) else [stops]) if isinstance(stop, str)],
        end,
    )
    wanted = load_options(options.items())
    context = context_length(spec, wanted, tools.executor.node.limits.vram)
    prompt_tokens = min(count_tokens(prompt), context)
    spoken = tools.executor.speak(spec, wanted, keep_alive, prompt_tokens, words, measures)
    try:
        async with aclosing(spoken) as tokens:
            async for token in tokens:
                yield token
    except Busy:
        raise ApiError(503, _BUSY) from None


async def embed_all(
    tools: Tools,
    spec: ModelSpec,
    texts: list[str],
    measures: Measures,
    *,
    options: dict[str, Any] | None = None,
    keep_alive: float | None = None,
    dimensions: int | None = None,
) -> list[list[float]]:
    """The vectors of texts; with no texts the model is only loaded.

    Raises:
        ApiError: the node is busy.
    """
    if not texts:
        await load(tools, spec, measures, options=options, keep_alive=keep_alive)
        return []
    wanted = load_options((options or {}).items())
    context = context_length(spec, wanted, tools.executor.node.limits.vram)
    prompt = sum(min(count_tokens(text), context) for text in texts)
    spoken = tools.executor.speak(spec, wanted, keep_alive, prompt, (), measures)
    try:
        async with aclosing(spoken) as tokens:
            async for _ in tokens:
                pass
    except Busy:
        raise ApiError(503, _BUSY) from None
    length = spec.embedding_length
    if dimensions is not None and 0 < dimensions < length:
        length = dimensions
    return [embedding(spec.digest, text, length) for text in texts]


async def load(
    tools: Tools,
    spec: ModelSpec,
    measures: Measures,
    *,
    options: dict[str, Any] | None = None,
    keep_alive: float | None = None,
) -> None:
    """Have a model loaded.

    Raises:
        ApiError: the node is busy.
    """
    try:
        wanted = load_options((options or {}).items())
        await tools.executor.load(spec, wanted, keep_alive, measures)
    except Busy:
        raise ApiError(503, _BUSY) from None


def whole_number(value: object) -> int | None:
    """The value where it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
