"""Tests of the detection of server types."""

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
async def probe_client() -> AsyncIterator[ProbeClient]:
    """Return a client that is closed after the test."""
    made = ProbeClient(SystemClock())
    yield made
    await made.close()


def owned(by: object) -> dict[str, Any]:
    """Return an OpenAI list with one model."""
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
async def test_a_server_type_is_detected(
    serve: Serve, probe_client: ProbeClient, answers: dict[str, Any], name: str
) -> None:
    """By version, lists or headers; malformed values in them are ignored."""
    server = await serve(answers)
    profile, _ = await detect(probe_client, endpoint(server.url, type="auto"))
    assert profile is not None
    assert profile.name == name


async def test_a_simulated_node_is_detected_as_ollama(probe_client: ProbeClient) -> None:
    """Even without models, when its OpenAI list is null."""
    async with SimulatedNode(NodeOptions(models=())) as node:
        profile, _ = await detect(probe_client, endpoint(node.url, type="auto"))
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
async def test_an_unknown_server_type_is_not_guessed(
    serve: Serve, probe_client: ProbeClient, answers: dict[str, Any], verdict: Verdict
) -> None:
    """The reply says why. One late answer does not turn an Ollama into another type."""
    server = await serve(answers)
    profile, reply = await detect(
        probe_client, endpoint(server.url, type="auto", check_timeout=0.3)
    )
    assert profile is None
    assert reply.verdict is verdict
    assert reply.error


async def test_the_configured_list_path_is_used(serve: Serve, probe_client: ProbeClient) -> None:
    """Some servers have their list at another path."""
    server = await serve({"/own": owned("vllm")})
    profile, _ = await detect(probe_client, endpoint(server.url, type="auto", list_path="/own"))
    assert profile is not None
    assert profile.name == "vllm"
