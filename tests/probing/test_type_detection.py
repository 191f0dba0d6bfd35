"""Finding out what kind of server an endpoint is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from olla.clock import SystemClock
from olla.probing.probe_client import ProbeClient, Verdict
from olla.probing.type_detection import detect
from olla.simulation.server import NodeOptions, SimulatedNode
from tests.probing.scripted import HANG, OLLAMA, ScriptedServer, endpoint

Serve = Callable[[dict[str, Any]], Awaitable[ScriptedServer]]
LOADING = (503, {"error": {"message": "Loading model", "code": 503}}, {})


@pytest.fixture
async def asker() -> AsyncIterator[ProbeClient]:
    """One that is closed with the test."""
    made = ProbeClient(SystemClock())
    yield made
    await made.close()


def owned(by: object) -> dict[str, Any]:
    """An OpenAI list with one model."""
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": by}]}


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (OLLAMA, "ollama"),
        ({"/v1/models": owned("llamacpp")}, "llamacpp"),
        ({"/v1/models": (200, owned("me"), {"Server": "llama.cpp"})}, "llamacpp"),
        ({"/v1/models": LOADING}, "llamacpp"),
        ({"/v1/models": owned("vllm")}, "vllm"),
        ({"/v1/models": owned("sglang")}, "sglang"),
        ({"/v1/models": owned("lmdeploy")}, "lmdeploy"),
        ({"/v1/models": owned("organization_owner")}, "lm-studio"),
        ({"/v1/models": owned("lemonade")}, "lemonade"),
        ({"/api/v1/models": {"models": []}}, "lm-studio"),
        ({"/v1/models": {"data": []}, "/api/v1/models": {"models": []}}, "lm-studio"),
        ({"/api/v1/models": {"object": "list", "data": []}}, "lemonade"),
        ({"/v1/models": {"object": "list", "data": None}}, "openai-compatible"),
        ({"/api/version": (500, "broken", {}), "/v1/models": owned("vllm")}, "vllm"),
        ({"/v1/models": owned("somebody")}, "openai-compatible"),
        ({"/v1/models": owned(["not", "a", "name"])}, "openai-compatible"),
        ({"/v1/models": {"object": "list", "data": []}}, "openai-compatible"),
        ({"/v1/models": {"object": "list", "data": [5, None]}}, "openai-compatible"),
        ({"/api/version": {"version": "1"}, "/v1/models": owned("vllm")}, "vllm"),
    ],
)
async def test_a_server_gives_itself_away(
    serve: Serve, asker: ProbeClient, answers: dict[str, Any], name: str
) -> None:
    """By its version, its lists or its headers; what is strange in them does no harm."""
    server = await serve(answers)
    profile, _ = await detect(asker, endpoint(server.url, type="auto"))
    assert profile is not None
    assert profile.name == name


async def test_a_simulated_node_is_an_ollama(asker: ProbeClient) -> None:
    """With no model as well, when its OpenAI list is null."""
    async with SimulatedNode(NodeOptions(models=())) as node:
        profile, _ = await detect(asker, endpoint(node.url, type="auto"))
    assert profile is not None
    assert profile.name == "ollama"


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ({}, Verdict.BROKEN),
        ({"/v1/models": "hello"}, Verdict.BROKEN),
        ({"/v1/models": {"data": "many"}}, Verdict.BROKEN),
        ({"/v1/models": (500, "broken", {})}, Verdict.BROKEN),
        ({"/v1/models": (401, "who are you", {})}, Verdict.UNAUTHORIZED),
        ({"/api/version": (429, "later", {})}, Verdict.RATE_LIMITED),
        ({"/api/version": HANG}, Verdict.TIMEOUT),
        ({**OLLAMA, "/": HANG, "/v1/models": owned("library")}, Verdict.TIMEOUT),
        ({**OLLAMA, "/": (429, "later", {}), "/v1/models": owned("library")}, Verdict.RATE_LIMITED),
        ({"/v1/models": b"<html>"}, Verdict.BROKEN),
    ],
)
async def test_what_cannot_be_told_is_not_guessed(
    serve: Serve, asker: ProbeClient, answers: dict[str, Any], verdict: Verdict
) -> None:
    """The reply says why; one late answer does not make an Ollama something else."""
    server = await serve(answers)
    profile, reply = await detect(asker, endpoint(server.url, type="auto", check_timeout=0.3))
    assert profile is None
    assert reply.verdict is verdict
    assert reply.error


async def test_the_operators_list_path_is_asked(serve: Serve, asker: ProbeClient) -> None:
    """Where a server has its list elsewhere."""
    server = await serve({"/own": owned("vllm")})
    profile, _ = await detect(asker, endpoint(server.url, type="auto", list_path="/own"))
    assert profile is not None
    assert profile.name == "vllm"
