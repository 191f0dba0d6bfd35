"""The official `openai` client works through the router."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from tests.routers import ThreadedFleet, threaded_fleet

MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(params=["/v1", "/olla/ollama/v1", "/olla/openai/v1", "/olla/proxy/v1"])
def client(request: pytest.FixtureRequest, fleet: ThreadedFleet) -> Iterator[openai.OpenAI]:
    """Provide a client for each of the router's OpenAI base URLs."""
    with openai.OpenAI(
        base_url=fleet.url + request.param, api_key="unused", max_retries=0
    ) as client:
        yield client


def test_a_chat_completion_has_usage(client: openai.OpenAI) -> None:
    """A complete response has a message, a finish reason and usage."""
    answer = client.chat.completions.create(model="llama3.2", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_a_streamed_chat_completion_ends_with_usage(client: openai.OpenAI) -> None:
    """It has a finish reason, and usage if the request asks for it."""
    stream = client.chat.completions.create(
        model="llama3.2",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert any(c.choices and c.choices[0].finish_reason for c in chunks)
    assert chunks[-1].usage is not None


def test_completions_work(client: openai.OpenAI) -> None:
    """The legacy completions API works, streamed and not."""
    assert client.completions.create(model="llama3.2", prompt="Once").choices[0].text
    parts = client.completions.create(model="llama3.2", prompt="Once", stream=True)
    assert "".join(part.choices[0].text for part in parts)


def test_embeddings_work_in_the_clients_encoding(client: openai.OpenAI) -> None:
    """The client requests base64 and returns floats."""
    answer = client.embeddings.create(model="nomic-embed-text", input=["one", "two"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) > 10


def test_models_can_be_listed_and_retrieved(client: openai.OpenAI) -> None:
    """The list covers the fleet, and each model can be retrieved."""
    ids = {model.id for model in client.models.list()}
    assert {"llama3.2:latest", "mistral:latest"} <= ids
    assert client.models.retrieve("mistral:latest").id == "mistral:latest"


def test_the_responses_api_works(fleet: ThreadedFleet) -> None:
    """Streamed and not."""
    with openai.OpenAI(base_url=fleet.url + "/v1", api_key="unused", max_retries=0) as client:
        assert client.responses.create(model="llama3.2", input="Hello").output_text
        events = list(client.responses.create(model="llama3.2", input="Hello", stream=True))
    assert events[-1].type == "response.completed"


def test_an_unknown_model_is_a_not_found_error(client: openai.OpenAI) -> None:
    """The client raises its error type with the router's message."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert "no-such-model" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_the_async_client_works_too(fleet: ThreadedFleet) -> None:
    """Chat, stream and embed through AsyncOpenAI."""
    async with openai.AsyncOpenAI(base_url=fleet.url + "/v1", api_key="unused") as client:
        answer = await client.chat.completions.create(model="llama3.2", messages=MESSAGES)
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(
            model="llama3.2", messages=MESSAGES, stream=True
        )
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason
        assert (await client.embeddings.create(model="nomic-embed-text", input="one")).data


def test_all_nodes_down_is_an_internal_server_error_with_retry_after() -> None:
    """A 503 is the client's InternalServerError; the response has Retry-After."""
    with ExitStack() as stack:
        fleet = stack.enter_context(threaded_fleet({"only": ("llama3.2:latest",)}))
        client = stack.enter_context(
            openai.OpenAI(base_url=fleet.url + "/v1", api_key="unused", max_retries=0)
        )
        fleet.call(fleet.fleet.nodes["only"].refuse())
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="llama3.2", messages=MESSAGES)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
