"""Ollama's own API on a simulated node, over real sockets."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from olla.simulation.server import SimulatedNode
from tests.simulation.asking import ask, in_background, lines

HELLO: list[dict[str, str]] = [{"role": "user", "content": "Why is the sky blue?"}]


async def ps(http: aiohttp.ClientSession, node: SimulatedNode) -> list[dict[str, Any]]:
    """What is in memory."""
    async with http.get(node.url + "/api/ps") as answer:
        models: list[dict[str, Any]] = (await answer.json())["models"]
        return models


async def test_heartbeat_and_version(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """GET and HEAD of `/` and the version answer as Ollama's do."""
    async with http.get(node.url + "/") as answer:
        assert await answer.text() == "Ollama is running"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    for path in ("/", "/api/version", "/api/tags"):
        async with http.head(node.url + path) as answer:
            assert answer.status == 200
    async with http.get(node.url + "/api/version") as answer:
        assert await answer.json() == {"version": "0.33.0"}
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_tags_list_what_is_on_disk(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Each model with size, digest, details and capabilities; newest first."""
    async with http.get(node.url + "/api/tags") as answer:
        models = (await answer.json())["models"]
    assert [each["name"] for each in models] == ["llama3.2:latest", "nomic-embed-text:latest"]
    first = models[0]
    assert first["model"] == first["name"]
    assert len(first["digest"]) == 64
    assert first["size"] == 2_019_393_189
    assert first["details"]["family"] == "llama"
    assert first["capabilities"] == ["completion", "tools"]
    assert datetime.fromisoformat(first["modified_at"]).tzinfo is not None


async def test_an_empty_list_is_a_list(
    http: aiohttp.ClientSession, start: Callable[..., Any]
) -> None:
    """With no models, tags are `[]` and `/v1/models` has null."""
    node = await start("only")
    await ask(http, node, "/api/delete", {"model": "only"}, "DELETE")
    async with http.get(node.url + "/api/tags") as answer:
        assert await answer.json() == {"models": []}
    async with http.get(node.url + "/v1/models") as answer:
        assert await answer.json() == {"object": "list", "data": None}


@pytest.mark.parametrize("key", ["model", "name"])
async def test_show_describes_a_model(
    http: aiohttp.ClientSession, node: SimulatedNode, key: str
) -> None:
    """Under the new field and the old one."""
    status, shown = await ask(http, node, "/api/show", {key: "Llama3.2"})
    assert status == 200
    assert shown["details"]["parameter_size"] == "3.2B"
    assert shown["model_info"]["general.parameter_count"] == 3_200_000_000
    assert shown["model_info"]["llama.context_length"] == 131072
    assert {"modelfile", "parameters", "template", "capabilities", "modified_at"} <= set(shown)


async def test_generate_streams_by_default(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Pieces, then one last record with counts, durations and context; the name as it was sent."""
    records = await lines(http, node, "/api/generate", {"model": "LLAMA3.2", "prompt": "Why?"})
    assert all(record["model"] == "LLAMA3.2" for record in records)
    assert all(record["done"] is False for record in records[:-1])
    last = records[-1]
    assert last["done"] is True
    assert last["response"] == ""
    assert last["done_reason"] == "stop"
    assert last["eval_count"] == len(records) - 1
    assert last["prompt_eval_count"] == 1
    assert len(last["context"]) == last["eval_count"] + 1
    scale = node.options.time_scale
    assert last["load_duration"] == pytest.approx(2.02e9 * scale, rel=0.01)
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert last["total_duration"] >= parts
    rate = last["eval_count"] / last["eval_duration"] * 1e9
    assert rate == pytest.approx(60 * 4e9 / 2_019_393_189 / scale, rel=0.01)


async def test_generate_whole_is_the_stream_in_one(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """The same request says the same, streamed or whole."""
    body = {"model": "llama3.2", "prompt": "Why?", "options": {"seed": 3}}
    records = await lines(http, node, "/api/generate", body)
    status, whole = await ask(http, node, "/api/generate", {**body, "stream": False})
    assert status == 200
    assert whole["response"] == "".join(record["response"] for record in records)
    assert whole["done"] is True


async def test_chat_has_messages(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Tools and format are taken and ignored; there is no context."""
    body = {"model": "llama3.2", "messages": HELLO, "tools": [], "format": "json"}
    records = await lines(http, node, "/api/chat", body)
    assert all(record["message"]["role"] == "assistant" for record in records)
    assert records[0]["message"]["content"]
    assert "context" not in records[-1]
    status, whole = await ask(http, node, "/api/chat", {**body, "stream": False})
    assert status == 200
    assert whole["message"]["content"]


async def test_num_predict_and_stop_are_heeded(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """A limit ends with `length`, a stop string with `stop` before it shows."""
    body: dict[str, Any] = {"model": "llama3.2", "prompt": "Why?", "stream": False}
    _, short = await ask(http, node, "/api/generate", {**body, "options": {"num_predict": 5}})
    assert (short["eval_count"], short["done_reason"]) == (5, "length")
    word = short["response"].split()[3]
    options = {"stop": [word], "num_predict": 5}
    _, stopped = await ask(http, node, "/api/generate", {**body, "options": options})
    assert stopped["done_reason"] == "stop"
    assert word not in stopped["response"].split()
    assert short["response"].startswith(stopped["response"])


async def test_a_hot_answer_has_a_load_duration_of_milliseconds(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Finding a model that is in memory takes a moment, loading it takes seconds."""
    body = {"model": "llama3.2", "prompt": "Why?", "stream": False}
    _, cold = await ask(http, node, "/api/generate", body)
    _, hot = await ask(http, node, "/api/generate", body)
    second = 1e9 * node.options.time_scale
    assert cold["load_duration"] > second
    assert 0 < hot["load_duration"] < 0.1 * second
    assert node.loads == 1


async def test_an_empty_prompt_loads(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Generate and chat without anything to say only load, in one object even when streaming."""
    for path, more in (("/api/generate", {"stream": True}), ("/api/chat", {"messages": []})):
        status, answer = await ask(http, node, path, {"model": "llama3.2", **more})
        assert status == 200
        assert answer["done"] is True
        assert answer["done_reason"] == "load"
    assert [each["name"] for each in await ps(http, node)] == ["llama3.2:latest"]
    assert node.tokens_generated == 0


async def test_an_empty_prompt_with_keep_alive_zero_unloads(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Also when the model was not loaded, which does not load it."""
    body = {"model": "llama3.2", "keep_alive": 0}
    for _ in range(2):
        status, answer = await ask(http, node, "/api/generate", body)
        assert (status, answer["done_reason"]) == (200, "unload")
        assert await ps(http, node) == []
        await ask(http, node, "/api/embed", {"model": "nomic-embed-text", "keep_alive": "0s"})
    assert node.loads == 2
    await ask(http, node, "/api/generate", {"model": "llama3.2"})
    await ask(http, node, "/api/chat", body)
    assert await ps(http, node) == []


async def test_ps_shows_what_is_in_memory(
    http: aiohttp.ClientSession, start: Callable[..., Any]
) -> None:
    """With size, memory, context and expiry; for ever is some 292 years ahead."""
    node = await start(keep_alive=600_000.0)
    await ask(http, node, "/api/generate", {"model": "llama3.2", "options": {"num_ctx": 2048}})
    await ask(http, node, "/api/embed", {"model": "nomic-embed-text", "keep_alive": -1})
    forever, timed = await ps(http, node)
    assert (forever["name"], timed["name"]) == ("nomic-embed-text:latest", "llama3.2:latest")
    assert timed["context_length"] == 2048
    assert timed["size"] == timed["size_vram"] > 2_019_393_189
    assert "context_length" not in timed["details"]
    now = node.clock.wall()
    left = datetime.fromisoformat(timed["expires_at"]).timestamp() - now
    assert left == pytest.approx(600, abs=5)
    years = (datetime.fromisoformat(forever["expires_at"]).timestamp() - now) / 31_557_600
    assert years == pytest.approx(292, abs=1)


async def test_ps_does_not_show_a_model_that_is_loading(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """While one loads the list is empty, and no head has come."""
    node = await start(time_scale=0.3)
    request = http.post(node.url + "/api/generate", json={"model": "llama3.2", "prompt": "x"})
    async with in_background(request) as answering:
        await until(lambda: node.executor.node.loading)
        assert await ps(http, node) == []
        assert not answering.done()
        answer = await answering
        assert answer.status == 200
        assert [each["name"] for each in await ps(http, node)] == ["llama3.2:latest"]


async def test_embed_gives_vectors_of_length_one(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """One per input, the same each time, shorter where asked for."""
    body = {"model": "nomic-embed-text", "input": ["one", "two"]}
    _, answer = await ask(http, node, "/api/embed", body)
    assert answer["model"] == "nomic-embed-text"
    assert [len(vector) for vector in answer["embeddings"]] == [768, 768]
    assert all(math.isclose(sum(x * x for x in v), 1) for v in answer["embeddings"])
    assert answer["prompt_eval_count"] == 2
    _, single = await ask(http, node, "/api/embed", {**body, "input": "one", "dimensions": 64})
    assert len(single["embeddings"][0]) == 64
    _, old = await ask(http, node, "/api/embeddings", {**body, "prompt": "one"})
    assert old == {"embedding": answer["embeddings"][0]}


async def test_embedding_nothing_loads(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """No input is an empty list, and the model is there afterwards."""
    assert await ask(http, node, "/api/embed", {"model": "nomic-embed-text"}) == (
        200,
        {"model": "nomic-embed-text", "embeddings": []},
    )
    _, old = await ask(http, node, "/api/embeddings", {"model": "nomic-embed-text"})
    assert old == {"embedding": []}
    assert len(await ps(http, node)) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/generate", {"model": "no"}, 404, "model 'no' not found"),
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/chat", {"model": "no"}, 404, "model 'no' not found"),
        ("/api/chat", {}, 400, "model is required"),
        ("/api/show", {"model": "no"}, 404, "model 'no' not found"),
        ("/api/show", {}, 400, "model is required"),
        ("/api/embed", {"model": "no"}, 404, 'model "no" not found, try pulling it first'),
        ("/api/embeddings", {"model": "no"}, 404, 'model "no" not found, try pulling it first'),
        ("/api/embed", {"model": "llama3.2", "input": [1]}, 400, "invalid input type"),
        (
            "/api/generate",
            {"model": "nomic-embed-text", "prompt": "x"},
            400,
            '"nomic-embed-text" does not support generate',
        ),
        (
            "/api/chat",
            {"model": "nomic-embed-text", "messages": HELLO},
            400,
            '"nomic-embed-text" does not support chat',
        ),
        (
            "/api/generate",
            {"model": "llama3.2", "prompt": "x", "keep_alive": "300"},
            400,
            'time: missing unit in duration "300"',
        ),
    ],
)
async def test_errors_are_ollamas(
    http: aiohttp.ClientSession,
    node: SimulatedNode,
    path: str,
    body: object,
    status: int,
    message: str,
) -> None:
    """With its status and its words, before anything has been sent."""
    assert await ask(http, node, path, body) == (status, {"error": message})


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/api/show"])
@pytest.mark.parametrize("body", ["", "{", "[]", "NaN", '{"model": 5}', '"text"'])
async def test_a_bad_body_is_400(
    http: aiohttp.ClientSession, node: SimulatedNode, path: str, body: str
) -> None:
    """No body, no JSON, no object, a field of another kind."""
    async with http.post(node.url + path, data=body) as answer:
        assert answer.status == 400
        message = (await answer.json())["error"]
    assert message == "missing request body" if not body else message


@pytest.mark.parametrize("field", ["options", "prompt", "system"])
async def test_a_field_of_another_kind_is_400(
    http: aiohttp.ClientSession, node: SimulatedNode, field: str
) -> None:
    """Not a 500: the complaint names the field."""
    body = {"model": "llama3.2", "prompt": "x", field: [1]}
    status, answer = await ask(http, node, "/api/generate", body)
    assert status == 400
    assert field in answer["error"]


async def test_a_full_queue_is_503(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """Loads wait in a queue of `max_queue`; who finds it full is told that the server is busy."""
    node = await start("llama3.2", "mistral", "codellama", max_queue=1, time_scale=0.5)
    first = http.post(node.url + "/api/generate", json={"model": "llama3.2"})
    second = http.post(node.url + "/api/generate", json={"model": "mistral"})
    async with in_background(first):
        await until(lambda: node.executor.node.queue_length == 1)
        async with in_background(second):
            await until(lambda: node.executor.node.queue_length == 2)
            answer = await ask(http, node, "/api/generate", {"model": "codellama", "prompt": "x"})
    text = "server busy, please try again.  maximum pending requests exceeded"
    assert answer == (503, {"error": text})
