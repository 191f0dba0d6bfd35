"""What rounds of questions make of one endpoint: over real sockets."""

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
async def test_a_bad_answer_has_its_health(
    serve: Serve, probe: Probe, path: str, answer: Any, health: Health
) -> None:
    """With the reason for the operator, and over as soon as the answer is a good one again."""
    if isinstance(answer, int):
        answer = (answer, "", {})
    server = await serve({**OLLAMA, path: answer})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert view.health is health
    assert (view.last_error is None) == (health is Health.HEALTHY)
    assert view.routable == (health is Health.HEALTHY)
    if health is not Health.RATE_LIMITED:  # that has to wait
        server.answers = dict(OLLAMA)
        assert (await prober.probed("e")).health is Health.HEALTHY


async def test_who_asks_for_a_pause_gets_it(serve: Serve, probe: Probe) -> None:
    """The next probe is not before its Retry-After is over."""
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


async def test_a_hung_list_of_memory_makes_busy(serve: Serve, probe: Probe) -> None:
    """It lives, has its models and takes requests: it may be loading one."""
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


async def test_silence_is_a_suspicion_before_it_is_a_verdict(serve: Serve, probe: Probe) -> None:
    """A well endpoint stays routable for two silent probes, and what it has stays known."""
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


async def test_what_is_gone_has_nothing_in_memory(serve: Serve, probe: Probe) -> None:
    """Its models stay known, so that a request for one is told that it is unavailable."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m:latest")})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert M in prober.snapshot.by_name["e"].resident
    prober.observe("e", Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    view = prober.snapshot.by_name["e"]
    assert not view.resident
    assert M in view.models


async def test_a_filter_hides_models(serve: Serve, probe: Probe) -> None:
    """Those that the operator does not want olla to use are not known at all."""
    server = await serve({**OLLAMA, "/api/tags": model_list("m:latest", "m:70b", "other:7b")})
    allowed = ModelFilter(include=("m*",), exclude=("*:70b",))
    prober = await probe(endpoint(server.url, models=allowed))
    await prober.first_pass()
    assert set(prober.snapshot.holders) == {M}


async def test_a_model_in_memory_is_known_under_all_its_names(serve: Serve, probe: Probe) -> None:
    """Two names of one digest are one instance."""
    tags = {"models": [{"name": name, "digest": "same"} for name in ("one", "two")]}
    loaded = {"models": [{"name": "one:latest", "digest": "same"}]}
    server = await serve({**OLLAMA, "/api/tags": tags, "/api/ps": loaded})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert set(prober.snapshot.by_name["e"].resident) == {canonical("one"), canonical("two")}


async def test_an_endpoints_own_paths_are_asked(serve: Serve, probe: Probe) -> None:
    """Where the operator names them; a server of another kind is not asked for Ollama's."""
    server = await serve({"/up": "yes", "/list": {"object": "list", "data": [{"id": "m"}]}})
    spec = endpoint(server.url, type="openai", alive_path="/up", list_path="/list")
    prober = await probe(spec)
    await prober.first_pass()
    await prober.refresh("resident", 0.0, 5.0)
    assert prober.snapshot.by_name["e"].health is Health.HEALTHY
    assert M in prober.snapshot.holders
    assert set(server.asked) == {"/up", "/list"}


async def test_the_type_is_found_out(serve: Serve, probe: Probe) -> None:
    """And while it is unknown, the endpoint takes no requests."""
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


async def test_asking_at_once_waits_for_a_round_of_its_own(serve: Serve, probe: Probe) -> None:
    """One that was under way may have read what was there before."""
    server = await serve({**OLLAMA, "/api/version": HANG})
    prober = await probe(endpoint(server.url, check_timeout=0.5))
    await server.was_asked("/api/tags")
    server.answers = {**OLLAMA, "/api/tags": model_list("new")}
    asking = asyncio.create_task(prober.probed("e"))
    try:
        async with asyncio.timeout(10.0):
            view = await asking
        assert set(view.models) == {canonical("new")}
    finally:
        asking.cancel()


async def test_it_asks_again_by_itself(serve: Serve, probe: Probe) -> None:
    """At its interval, without being told to."""
    server = await serve(OLLAMA)
    await probe(endpoint(server.url, check_interval=0.05))
    async with asyncio.timeout(5.0):
        await server.was_asked("/", 4)


async def test_lists_are_read_at_their_own_interval(serve: Serve, probe: Probe) -> None:
    """They may be long: a sign of life does not need them."""
    server = await serve(OLLAMA)
    await probe(endpoint(server.url, check_interval=0.05), list_interval=600.0)
    async with asyncio.timeout(5.0):
        await server.was_asked("/", 4)
    assert server.asked["/api/tags"] == 1
    assert server.asked["/api/version"] == 1
