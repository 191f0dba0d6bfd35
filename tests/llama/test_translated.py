"""Official clients of other dialects in front of a real llama.cpp server.

Its type is `openai-compatible` here, which speaks OpenAI's dialect only: what the clients of Ollama
and Anthropic send is translated, and they check what comes back.
"""

from collections.abc import AsyncIterator

import aiohttp
import ollama
import pytest
from anthropic import AsyncAnthropic, BadRequestError

from olla.app import App
from olla.settings import parse

ALIAS = "tiny-random"
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def address(llama: str) -> AsyncIterator[str]:
    """A router in front of it."""
    text = f"""
    server: {{host: 127.0.0.1, port: 0}}
    discovery:
      static:
        endpoints: [{{name: cpp, url: "{llama}", type: openai-compatible}}]
    """
    running = App(parse(text, {}))
    await running.start()
    await running.prober.first_pass()
    yield running.url
    await running.stop()
    assert running.dispatcher.leases == 0


async def test_the_anthropic_client_gets_a_message(address: str) -> None:
    """With text, a reason and counts."""
    async with AsyncAnthropic(base_url=address, api_key="unused", max_retries=0) as client:
        message = await client.messages.create(
            model=ALIAS, max_tokens=20, messages=HELLO, system="Be brief."
        )
    assert message.type == "message"
    assert message.model == ALIAS
    assert message.stop_reason in ("max_tokens", "end_turn")
    assert message.usage.input_tokens > 0
    assert 0 < message.usage.output_tokens <= 20


async def test_the_anthropic_client_streams(address: str) -> None:
    """It puts the message together from the events, and checks their order."""
    async with (
        AsyncAnthropic(base_url=address, api_key="unused", max_retries=0) as client,
        client.messages.stream(model=ALIAS, max_tokens=20, messages=HELLO) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert "".join(block.text for block in final.content if block.type == "text") == text
    assert final.usage.output_tokens > 0


async def test_the_anthropic_client_gets_its_own_errors(address: str) -> None:
    """With the type that it knows."""
    async with AsyncAnthropic(base_url=address, api_key="unused", max_retries=0) as client:
        with pytest.raises(BadRequestError, match="max_tokens"):
            await client.messages.create(model=ALIAS, max_tokens=0, messages=HELLO)


async def test_the_ollama_client_chats(address: str) -> None:
    """Whole and streamed, with the counts that it divides by durations."""
    client = ollama.AsyncClient(host=address)
    options = {"num_predict": 20, "temperature": 0}
    whole = await client.chat(model=ALIAS, messages=HELLO, options=options)
    assert whole.done
    assert whole.eval_count
    assert whole.eval_duration
    pieces = [part async for part in await client.chat(ALIAS, HELLO, options=options, stream=True)]
    assert pieces[-1].done
    assert pieces[-1].eval_count
    text = "".join(part.message.content or "" for part in pieces)
    assert text == whole.message.content
    await client._client.aclose()


async def test_the_ollama_client_generates_and_lists(address: str) -> None:
    """The model is in its list, and can be asked by the name that it has there."""
    client = ollama.AsyncClient(host=address)
    (model,) = (await client.list()).models
    assert model.model is not None
    answer = await client.generate(model.model, "hello there", options={"num_predict": 5})
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count
    await client._client.aclose()


async def test_a_model_is_found_by_every_path(address: str) -> None:
    """One door: OpenAI's, Anthropic's and Ollama's dialect reach the same server."""
    async with aiohttp.ClientSession(address) as session:
        for path, mode in (
            ("/v1/chat/completions", "passthrough"),
            ("/v1/messages", "translated"),
            ("/api/chat", "translated"),
            ("/olla/proxy/api/chat", "translated"),
            ("/olla/anthropic/v1/messages", "translated"),
        ):
            body = {"model": ALIAS, "messages": HELLO, "max_tokens": 4, "stream": False}
            async with session.post(path, json=body) as response:
                assert (response.status, response.headers["X-Olla-Mode"]) == (200, mode), path
        async with session.post("/olla/ollama/api/chat", json=body) as response:
            assert response.status == 404
