"""Tests of the watch of one endpoint, over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from olla.failures import Failure, Kind
from olla.fleet.endpoint import ModelFilter
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.probing.prober import Prober
from tests.probing.scripted import HANG, OLLAMA, ScriptedServer, endpoint, model_list

Serve = Callable[[dict[str, Any]], Awaitable[ScriptedServer]]
Probe = Callable[..., Awaitable[Prober]]
M = canonical("m")
LOADING = (503, {"error": {"message": "Loading model", "code": 503}}, {})


@pytest.mark.parametrize(
    ("path", "answer", "health"),
    [
        ("/", 500, Health.UNHEALTHY),
        ("/", (500, "broken", {}), Health.UNHEALTHY),
        ("/", (401, "who are you", {}), Health.CONFIG_ERROR),
        ("/", (403, "not you", {}), Health.CONFIG_ERROR),
        ("/", (429, "later", {}), Health.RATE_LIMITED),
        ("/", LOADING, Health.WARMING),
        ("/api/tags", (401, "who are you", {}), Health.CONFIG_ERROR),
        ("/api/tags", b"{not JSON", Health.UNHEALTHY),
        ("/api/tags", b"[]", Health.UNHEALTHY),
        ("/api/tags", {"models": "many"}, Health.UNHEALTHY),
        ("/api/tags", {"data": []}, Health.UNHEALTHY),
        ("/api/tags", {"models": [{"nothing": 1}]}, Health.UNHEALTHY),
        ("/api/ps", (500, "broken", {}), Health.UNHEALTHY),
        ("/api/ps", b"\x00", Health.UNHEALTHY),
        ("/api/version", (500, "broken", {}), Health.HEALTHY),
        ("/api/version", b"\x00", Health.HEALTHY),
    ],
)
async def test_each_bad_answer_leads_to_a_health_state(
    serve: Serve, probe: Probe, path: str, answer: Any, health: Health
) -> None:
    """With the reason for the operator. The endpoint recovers with the next good answer."""
    if isinstance(answer, int):
        answer = (answer, "", {})
    server = await serve({**OLLAMA, path: answer})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert view.health is health
    assert (view.last_error is None) == (health is Health.HEALTHY)
    assert view.routable == (health is Health.HEALTHY)
    if health is not Health.RATE_LIMITED:  # its pause is not over
        server.answers = dict(OLLAMA)
        assert (await prober.probed("e")).health is Health.HEALTHY


async def test_retry_after_delays_the_next_probe(serve: Serve, probe: Probe) -> None:
    """The next probe is sent after Retry-After."""
    server = await serve({**OLLAMA, "/": (429, "later", {"Retry-After": "120"})})
    prober = await probe(endpoint(server.url, check_interval=1.0))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert view.health is Health.RATE_LIMITED
    assert view.retry_at is not None
    assert view.checked_at is not None
    assert view.next_check_at is not None
    assert view.retry_at - view.checked_at == pytest.approx(120.0, abs=1.0)
    assert view.next_check_at >= view.retry_at


async def test_a_hung_list_of_loaded_models_means_busy(serve: Serve, probe: Probe) -> None:
    """The endpoint is alive, has its models and takes requests: it may be loading a model."""
    server = await serve({**OLLAMA, "/api/ps": HANG})
    prober = await probe(endpoint(server.url, check_timeout=0.2))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert view.health is Health.BUSY
    assert view.routable
    assert M in view.models
    server.answers["/api/ps"] = model_list("m:latest")
    view = await prober.probed("e")
    assert view.health is Health.HEALTHY
    assert M in view.resident


async def test_a_silent_endpoint_is_busy_before_it_is_unhealthy(serve: Serve, probe: Probe) -> None:
    """It stays routable for two probes that time out, and its models stay known."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url, check_timeout=0.1))
    await prober.first_pass()
    server.answers["/"] = HANG
    seen = [prober.snapshot.by_name["e"].health]
    async with asyncio.timeout(10.0):
        while seen[-1] is not Health.UNHEALTHY:
            seen.append((await prober.probed("e")).health)
    assert seen == [Health.HEALTHY, Health.BUSY, Health.BUSY, Health.UNHEALTHY]
    assert M in prober.snapshot.holders


async def test_an_offline_endpoint_has_no_loaded_models(serve: Serve, probe: Probe) -> None:
    """Its models stay known, so that a request for one is answered as unavailable."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m:latest")})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert M in prober.snapshot.by_name["e"].resident
    prober.observe("e", Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    view = prober.snapshot.by_name["e"]
    assert not view.resident
    assert M in view.models


async def test_a_filter_hides_models(serve: Serve, probe: Probe) -> None:
    """Models that the operator excludes are unknown to olla."""
    server = await serve({**OLLAMA, "/api/tags": model_list("m:latest", "m:70b", "other:7b")})
    allowed = ModelFilter(include=("m*",), exclude=("*:70b",))
    prober = await probe(endpoint(server.url, models=allowed))
    await prober.first_pass()
    assert set(prober.snapshot.holders) == {M}


async def test_a_loaded_model_is_known_by_all_of_its_names(serve: Serve, probe: Probe) -> None:
    """Two names of one digest are one instance."""
    tags = {"models": [{"name": name, "digest": "same"} for name in ("one", "two")]}
    loaded = {"models": [{"name": "one:latest", "digest": "same"}]}
    server = await serve({**OLLAMA, "/api/tags": tags, "/api/ps": loaded})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert set(prober.snapshot.by_name["e"].resident) == {canonical("one"), canonical("two")}


async def test_configured_paths_are_probed(serve: Serve, probe: Probe) -> None:
    """A server of another type is not probed for Ollama's paths."""
    server = await serve({"/up": "yes", "/list": {"object": "list", "data": [{"id": "m"}]}})
    spec = endpoint(server.url, type="openai", alive_path="/up", list_path="/list")
    prober = await probe(spec)
    await prober.first_pass()
    await prober.refresh("resident", 0.0, 5.0)
    assert prober.snapshot.by_name["e"].health is Health.HEALTHY
    assert M in prober.snapshot.holders
    assert set(server.request_counts) == {"/up", "/list"}


async def test_the_type_is_detected(serve: Serve, probe: Probe) -> None:
    """While it is unknown, the endpoint takes no requests."""
    server = await serve({"/": "hello"})
    prober = await probe(endpoint(server.url, type="auto"))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert (view.profile, view.routable) == (None, False)
    server.answers = dict(OLLAMA)
    view = await prober.probed("e")
    assert view.profile is not None
    assert (view.profile.name, view.health) == ("ollama", Health.HEALTHY)
    assert M in view.models


async def test_a_requested_probe_waits_for_a_new_round(serve: Serve, probe: Probe) -> None:
    """The current round may have read data from before the request."""
    server = await serve({**OLLAMA, "/api/version": HANG})
    prober = await probe(endpoint(server.url, check_timeout=0.5))
    await server.wait_for_requests("/api/tags")
    server.answers = {**OLLAMA, "/api/tags": model_list("new")}
    probing = asyncio.create_task(prober.probed("e"))
    try:
        async with asyncio.timeout(10.0):
            view = await probing
        assert set(view.models) == {canonical("new")}
    finally:
        probing.cancel()


async def test_probes_repeat_at_the_interval(serve: Serve, probe: Probe) -> None:
    """Without any request."""
    server = await serve(OLLAMA)
    await probe(endpoint(server.url, check_interval=0.05))
    async with asyncio.timeout(5.0):
        await server.wait_for_requests("/", 4)


async def test_lists_are_read_at_their_own_interval(serve: Serve, probe: Probe) -> None:
    """Lists may be long, and a health check does not need them."""
    server = await serve(OLLAMA)
    await probe(endpoint(server.url, check_interval=0.05), list_interval=600.0)
    async with asyncio.timeout(5.0):
        await server.wait_for_requests("/", 4)
    assert server.request_counts["/api/tags"] == 1
    assert server.request_counts["/api/version"] == 1
