"""The OpenAI API on a simulated node: over real sockets, and with the official client."""

import gzip
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from backports import zstd

from olla.simulation.server import SimulatedNode
from tests.simulation.asking import ask, events

HELLO = [{"role": "user", "content": "Why is the sky blue?"}]
CHAT: dict[str, Any] = {"model": "Llama3.2", "messages": HELLO, "max_tokens": 6}


@pytest.fixture
async def client(node: SimulatedNode) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client of a node."""
    async with openai.AsyncOpenAI(
        base_url=node.url + "/v1", api_key="unused", max_retries=0
    ) as client:
        yield client


async def test_models_are_listed_and_found(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Each with its id and owner; one that is not there is a 404 in OpenAI's shape."""
    async with http.get(node.url + "/v1/models") as answer:
        assert answer.headers["Content-Type"] == "application/json"
        listed = await answer.json()
    assert [each["id"] for each in listed["data"]] == ["llama3.2:latest", "nomic-embed-text:latest"]
    assert listed["data"][0]["owned_by"] == "library"
    async with http.get(node.url + "/v1/models/LLAMA3.2") as answer:
        assert (await answer.json())["id"] == "llama3.2:latest"
    async with http.get(node.url + "/v1/models/no") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["type"] == "not_found_error"
    async with http.get(node.url + "/v1/models/user/name") as answer:
        assert answer.status == 404


async def test_chat_is_whole_by_default(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """One object, with usage and the name as it was sent."""
    status, answer = await ask(http, node, "/v1/chat/completions", CHAT)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "Llama3.2"
    assert answer["system_fingerprint"] == "fp_ollama"
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 6


async def test_a_stream_ends_with_reason_and_done(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Pieces, the finish reason, `[DONE]`; no usage unless it is asked for."""
    found = [data for _, data in await events(http, node, "/v1/chat/completions", CHAT)]
    assert found[-1] == "[DONE]"
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert all(each["choices"][0]["finish_reason"] is None for each in found[:-2])
    assert not any("usage" in each for each in found[:-1])
    body = {**CHAT, "stream_options": {"include_usage": True}}
    found = [data for _, data in await events(http, node, "/v1/chat/completions", body)]
    assert found[-2]["choices"] == []
    assert found[-2]["usage"]["completion_tokens"] == 6


async def test_content_may_come_in_parts(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Parts of text are the same as the text."""
    parts = [{"type": "text", "text": HELLO[0]["content"]}]
    body = {**CHAT, "messages": [{"role": "user", "content": parts}]}
    _, in_parts = await ask(http, node, "/v1/chat/completions", body)
    _, whole = await ask(http, node, "/v1/chat/completions", CHAT)
    assert in_parts["choices"] == whole["choices"]


async def test_completions(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """The older completion has text, streamed and whole."""
    body = {"model": "llama3.2", "prompt": "Once", "max_tokens": 4}
    _, answer = await ask(http, node, "/v1/completions", body)
    assert answer["object"] == "text_completion"
    found = [data for _, data in await events(http, node, "/v1/completions", body)]
    text = "".join(each["choices"][0]["text"] for each in found[:-1])
    assert text == answer["choices"][0]["text"]


async def test_embeddings_as_floats_and_in_base64(
    node: SimulatedNode, http: aiohttp.ClientSession, client: openai.AsyncOpenAI
) -> None:
    """The official client asks for base64, and gets the numbers that are sent without it."""
    body = {"model": "nomic-embed-text", "input": ["one", "two"]}
    _, plain = await ask(http, node, "/v1/embeddings", body)
    answer = await client.embeddings.create(model="nomic-embed-text", input=["one", "two"])
    for sent, got in zip(plain["data"], answer.data, strict=True):
        assert got.embedding == pytest.approx(sent["embedding"], abs=1e-6)
        assert math.isclose(sum(x * x for x in got.embedding), 1, abs_tol=1e-5)
    assert answer.usage.prompt_tokens == 2


async def test_the_official_client_streams(client: openai.AsyncOpenAI) -> None:
    """Chat, with usage at the end."""
    stream = await client.chat.completions.create(
        model="llama3.2",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None


async def test_transcriptions(client: openai.AsyncOpenAI) -> None:
    """A file in a form becomes text."""
    answer = await client.audio.transcriptions.create(
        model="llama3.2", file=("speech.wav", b"RIFF" * 1000)
    )
    assert answer.text


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "no"}, 404, "not_found_error"),
        ("/v1/chat/completions", {"messages": HELLO}, 400, "invalid_request_error"),
        ("/v1/chat/completions", {"model": "llama3.2"}, 400, "invalid_request_error"),
        ("/v1/chat/completions", {"model": "llama3.2", "messages": [5]}, 400, None),
        ("/v1/chat/completions", {**CHAT, "model": "nomic-embed-text"}, 400, None),
        ("/v1/embeddings", {"model": "nomic-embed-text"}, 400, None),
        ("/v1/audio/transcriptions", {}, 400, None),
    ],
)
async def test_errors_have_openais_shape(
    http: aiohttp.ClientSession,
    node: SimulatedNode,
    path: str,
    body: object,
    status: int,
    kind: str | None,
) -> None:
    """Message, type, param and code; before anything is sent, streamed or not."""
    got, answer = await ask(http, node, path, body)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == (kind or "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "coding", "status"),
    [
        *((f"/v1/{name}", "zstd", 200) for name in ("chat/completions", "completions")),
        *((f"/v1/{name}", "zstd", 200) for name in ("embeddings", "responses", "messages")),
        *((f"/v1/{name}", "gzip", 400) for name in ("chat/completions", "responses")),
        ("/api/chat", "zstd", 400),
        ("/api/generate", "gzip", 400),
    ],
)
async def test_compressed_bodies_are_taken_where_ollama_takes_them(
    http: aiohttp.ClientSession, node: SimulatedNode, path: str, coding: str, status: int
) -> None:
    """Zstd, on five paths; everything else is no JSON."""
    body: dict[str, Any] = {**CHAT, "prompt": "hi", "input": "hi"}
    if path == "/v1/embeddings":
        body["model"] = "nomic-embed-text"
    raw = json.dumps(body).encode()
    packed = zstd.compress(raw) if coding == "zstd" else gzip.compress(raw)
    headers = {"Content-Encoding": coding}
    async with http.post(node.url + path, data=packed, headers=headers) as answer:
        assert answer.status == status
    async with http.post(node.url + path, data=packed[:-2], headers=headers) as answer:
        assert answer.status == 400
