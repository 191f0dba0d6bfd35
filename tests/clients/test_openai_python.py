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
    """A client of the router, at each of its OpenAI addresses."""
    with openai.OpenAI(
        base_url=fleet.url + request.param, api_key="unused", max_retries=0
    ) as client:
        yield client


def test_chat_completion_answers_with_usage(client: openai.OpenAI) -> None:
    """A whole answer has a message, a reason for its end, and usage."""
    answer = client.chat.completions.create(model="llama3.2", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_chat_completion_streams(client: openai.OpenAI) -> None:
    """A streamed answer ends with a finish reason, and carries usage where it was asked for."""
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


def test_completion_answers(client: openai.OpenAI) -> None:
    """The older completion works, streamed and not."""
    assert client.completions.create(model="llama3.2", prompt="Once").choices[0].text
    parts = client.completions.create(model="llama3.2", prompt="Once", stream=True)
    assert "".join(part.choices[0].text for part in parts)


def test_embeddings_come_in_the_encoding_the_client_asks_for(client: openai.OpenAI) -> None:
    """The client asks for base64 and gives back floats."""
    answer = client.embeddings.create(model="nomic-embed-text", input=["one", "two"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) > 10


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    """The list is the fleet's, and each model can be asked for."""
    ids = {model.id for model in client.models.list()}
    assert {"llama3.2:latest", "mistral:latest"} <= ids
    assert client.models.retrieve("mistral:latest").id == "mistral:latest"


def test_responses_answer(fleet: ThreadedFleet) -> None:
    """The responses API works, streamed and not."""
    with openai.OpenAI(base_url=fleet.url + "/v1", api_key="unused", max_retries=0) as client:
        assert client.responses.create(model="llama3.2", input="Hello").output_text
        events = list(client.responses.create(model="llama3.2", input="Hello", stream=True))
    assert events[-1].type == "response.completed"


def test_an_unknown_model_is_not_found_error(client: openai.OpenAI) -> None:
    """The client raises its own error type with the router's message."""
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
    """503 is the client's InternalServerError; the answer says when to come again."""
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
