"""A real llama.cpp server answers through the router as it does directly."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from olla.app import App
from olla.settings import parse
from tests.waiting import until

ALIAS = "tiny-random"
CHAT: dict[str, Any] = {
    "model": ALIAS,
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 40,
    "temperature": 0,
    "seed": 7,
}
TEXT: dict[str, Any] = {
    "model": ALIAS,
    "prompt": "hello there",
    "max_tokens": 40,
    "temperature": 0,
    "seed": 7,
}
CASES = [
    ("chat/completions", CHAT),
    ("chat/completions", {**CHAT, "stream": True}),
    (
        "chat/completions",
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
    ),
    ("completions", TEXT),
    ("completions", {**TEXT, "stream": True}),
]
VOLATILE = re.compile(
    r'"(id|created|timings|cache_n|prompt_ms|predicted_ms|prompt_tokens_details)":'
    r'(\{[^}]*\}|"[^"]*"|[0-9.e+-]+),?'
)


@pytest.fixture(params=["llamacpp", "openai-compatible", "auto"])
async def app(request: pytest.FixtureRequest, llama: str) -> AsyncIterator[App]:
    """Run a router over the server, under each type it can be configured as."""
    text = f"""
    server: {{host: 127.0.0.1, port: 0}}
    discovery:
      static:
        endpoints: [{{name: cpp, url: "{llama}", type: {request.param}}}]
    """
    running = App(parse(text, {}))
    await running.start()
    await running.prober.first_pass()
    yield running
    await running.stop()
    assert running.dispatcher.leases == 0
    assert running.pool.open == 0


async def ask(url: str, body: dict[str, Any]) -> tuple[int, str, Any]:
    """Send a request; returns the status, body and headers of the response."""
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return response.status, await response.text(), response.headers


def stable(text: str) -> str:
    """Remove what differs between two equal responses: IDs and times."""
    return VOLATILE.sub("", text)


@pytest.mark.parametrize(("path", "body"), CASES, ids=[f"{p} {len(b)}" for p, b in CASES])
async def test_a_relayed_response_equals_the_direct_one(
    app: App, llama: str, path: str, body: dict[str, Any]
) -> None:
    """This covers chat and completion, streamed and not, with the same seed."""
    status, direct, _ = await ask(f"{llama}/v1/{path}", body)
    assert status == 200
    bases = ["/olla/openai/v1", "/olla/proxy/v1"]
    bases.append({"llamacpp": "/olla/llamacpp/v1"}.get(type_of(app), f"/olla/{type_of(app)}/v1"))
    for base in bases:
        status, relayed, headers = await ask(f"{app.url}{base}/{path}", body)
        assert status == 200
        assert stable(relayed) == stable(direct)
        assert headers["X-Olla-Endpoint"] == "cpp"
        assert headers["X-Olla-Backend-Type"] == type_of(app)
    if body.get("stream"):
        assert relayed.endswith("data: [DONE]\n\n")


def type_of(app: App) -> str:
    """Return the type that the endpoint was configured as or detected as."""
    profile = app.prober.snapshot.by_name["cpp"].profile
    assert profile is not None
    return profile.name


async def test_its_models_are_listed(app: App) -> None:
    """The list has the entry of the server."""
    url = f"{app.url}/olla/openai/v1/models"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        listed = await response.json()
    assert [model["id"] for model in listed["data"]] == [ALIAS]


async def test_server_specific_paths_are_forwarded(app: App) -> None:
    """The server answers `/tokenize` and `/props`."""
    base = f"{app.url}/olla/{type_of(app)}"
    status, text, _ = await ask(f"{base}/tokenize", {"content": "hello"})
    assert status == 200
    assert json.loads(text)["tokens"]
    # Of other types it is not known that the path only reads.
    expected = 200 if type_of(app) == "llamacpp" else 403
    async with aiohttp.ClientSession() as session, session.get(f"{base}/props") as response:
        assert response.status == expected


async def test_a_closed_keep_alive_connection_costs_no_request(app: App) -> None:
    """The server closes a connection after a hundred responses; no request fails or is retried."""
    body = {**TEXT, "max_tokens": 1}
    async with aiohttp.ClientSession() as session:
        for _ in range(120):
            url = f"{app.url}/olla/openai/v1/completions"
            async with session.post(url, json=body) as response:
                assert response.status == 200
                assert "X-Olla-Attempts" not in response.headers
                await response.read()


async def test_hanging_up_frees_its_slot(app: App, llama: str) -> None:
    """A client that hangs up within a stream frees the server's slot."""
    body = {**TEXT, "stream": True, "max_tokens": 2000, "logit_bias": [[2, False]]}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{app.url}/olla/openai/v1/completions", json=body) as response:
            await response.content.readline()
            response.close()

        async def idle() -> bool:
            async with session.get(f"{llama}/slots") as response:
                return not any(slot["is_processing"] for slot in await response.json())

        await until(idle, 5)
