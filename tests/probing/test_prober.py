"""All endpoints under watch, over real sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from olla.failures import Failure, Kind
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.probing.prober import Prober
from olla.simulation.server import NodeOptions, SimulatedNode
from tests.probing.scripted import HANG, OLLAMA, ScriptedServer, endpoint, model_list

Serve = Callable[[dict[str, Any]], Awaitable[ScriptedServer]]
Probe = Callable[..., Awaitable[Prober]]
M = canonical("m")


async def test_before_it_starts_nothing_is_known(serve: Serve, probe: Probe) -> None:
    """All endpoints are there, in configuration order, and none takes requests."""
    hung = await serve({**OLLAMA, "/": HANG})
    prober = await probe(endpoint(hung.url, "b"), endpoint(hung.url, "a"))
    assert [view.name for view in prober.snapshot.endpoints] == ["b", "a"]
    assert {view.health for view in prober.snapshot.endpoints} == {Health.UNKNOWN}
    assert not any(view.routable for view in prober.snapshot.endpoints)


async def test_a_first_pass_tells_everything(probe: Probe) -> None:
    """Health, models with digest and size, version; and nothing was loaded by asking."""
    async with SimulatedNode(NodeOptions(models=("llama3.2:latest", "llama2:7b"))) as node:
        prober = await probe(endpoint(node.url))
        await prober.first_pass()
        view = prober.snapshot.by_name["e"]
        assert view.health is Health.HEALTHY
        assert set(view.models) == {canonical("llama3.2"), canonical("llama2:7b")}
        assert view.models[canonical("llama3.2")].size == 2_019_393_189
        assert view.version == "0.33.0"
        assert not view.resident
        assert node.executor.node.loading is None
        assert {seen.method for seen in node.seen} == {"GET"}


async def test_an_endpoint_that_was_gone_comes_back(probe: Probe) -> None:
    """Offline while it refuses connections, healthy with its models once it accepts them."""
    async with SimulatedNode(NodeOptions()) as node:
        prober = await probe(endpoint(node.url))
        await prober.first_pass()
        await node.refuse()
        gone = await prober.probed("e")
        assert gone.health is Health.OFFLINE
        assert gone.last_error == "connection refused"
        await node.accept()
        back = await prober.probed("e")
        assert back.health is Health.HEALTHY
        assert back.last_error is None
        assert prober.snapshot.having(canonical("llama3.2")) == (back,)


async def test_a_hung_endpoint_delays_no_other(serve: Serve, probe: Probe) -> None:
    """The others' first rounds end while it has not answered."""
    hung = await serve({**OLLAMA, "/": HANG})
    well = await serve(OLLAMA)
    prober = await probe(endpoint(hung.url, "hung", check_timeout=60.0), endpoint(well.url, "well"))
    await hung.was_asked("/")
    view = await prober.probed("well")
    assert view.health is Health.HEALTHY
    assert prober.snapshot.by_name["hung"].health is Health.UNKNOWN


async def test_a_removed_model_vanishes(serve: Serve, probe: Probe) -> None:
    """And a new one appears, with the next list."""
    server = await serve({**OLLAMA, "/api/tags": model_list("m", "old")})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert canonical("old") in prober.snapshot.holders
    server.answers["/api/tags"] = model_list("m", "new")
    await prober.probed("e")
    assert set(prober.snapshot.holders) == {M, canonical("new")}


async def test_an_old_snapshot_stays_as_it_was(serve: Serve, probe: Probe) -> None:
    """Whoever holds one goes on with a consistent picture."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    held = prober.snapshot
    server.answers["/api/tags"] = model_list()
    await prober.probed("e")
    assert M in held.holders
    assert M not in prober.snapshot.holders


async def test_refreshes_at_one_time_ask_once(serve: Serve, probe: Probe) -> None:
    """However many clients want a fresh list, an endpoint is asked for it one time."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    before = server.asked["/api/tags"]
    server.answers["/api/tags"] = model_list("fresh")
    snapshots = await asyncio.gather(*(prober.refresh("models", 0.0, 5.0) for _ in range(20)))
    assert server.asked["/api/tags"] == before + 1
    assert all(canonical("fresh") in snapshot.holders for snapshot in snapshots)


async def test_a_refresh_asks_nobody_whose_list_is_young(serve: Serve, probe: Probe) -> None:
    """Younger than the age it was given."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    before = server.asked["/api/tags"]
    await prober.refresh("models", 600.0, 5.0)
    assert server.asked["/api/tags"] == before


async def test_a_refresh_waits_no_longer_than_it_may(serve: Serve, probe: Probe) -> None:
    """Endpoints that take longer are shown as they were."""
    slow = await serve(OLLAMA)
    well = await serve(OLLAMA)
    prober = await probe(endpoint(slow.url, "slow", check_timeout=60.0), endpoint(well.url, "well"))
    await prober.first_pass()
    slow.answers["/api/ps"] = HANG
    well.answers["/api/ps"] = model_list("m:latest")
    async with asyncio.timeout(5.0):
        snapshot = await prober.refresh("resident", 0.0, 0.2)
    assert snapshot.by_name["slow"].health is Health.HEALTHY
    assert M in snapshot.by_name["well"].resident


async def test_it_leaves_no_task(serve: Serve, probe: Probe) -> None:
    """Not even when it stops in the middle of a round and a refresh that hang."""
    hung = await serve(OLLAMA)
    before = asyncio.all_tasks()
    prober = await probe(endpoint(hung.url, check_timeout=60.0))
    await prober.first_pass()
    hung.answers.update({"/api/tags": HANG, "/api/ps": HANG})
    asked = hung.asked["/api/ps"]
    prober.probe_now("e")
    refreshing = asyncio.create_task(prober.refresh("resident", 0.0, 60.0))
    await hung.was_asked("/api/ps", asked + 1)
    await prober.stop()
    async with asyncio.timeout(5.0):
        await refreshing
        while any("olla/probing" in _source(task) for task in asyncio.all_tasks() - before):
            await asyncio.sleep(0.002)


def _source(task: "asyncio.Task[Any]") -> str:
    """The file whose code a task runs."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code is not None else ""


async def test_traffic_that_cannot_connect_makes_offline_at_once(
    serve: Serve, probe: Probe
) -> None:
    """No probe has to find out first."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    prober.observe("e", Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    assert prober.snapshot.by_name["e"].health is Health.OFFLINE
    assert prober.snapshot.by_name["e"].last_error == "connection refused"
    assert (await prober.probed("e")).health is Health.HEALTHY


async def test_failures_of_traffic_open_the_breaker(serve: Serve, probe: Probe) -> None:
    """Five in a row; one success between them, and they are counted anew."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    failure = Failure(Kind.RESET, "connection reset")

    def breaker() -> BreakerState:
        return prober.snapshot.by_name["e"].breaker

    for outcome in (*[failure] * 4, None, *[failure] * 4):
        prober.observe("e", outcome, M)
    assert breaker() is BreakerState.CLOSED
    prober.observe("e", failure, M)
    assert breaker() is BreakerState.OPEN
    async with asyncio.timeout(5.0):
        while breaker() is not BreakerState.HALF_OPEN:
            await asyncio.sleep(0.01)
    prober.observe("e", None, M)
    assert breaker() is BreakerState.CLOSED


async def test_failures_that_are_not_its_fault_do_not_count(serve: Serve, probe: Probe) -> None:
    """A client that hangs up says nothing of the endpoint."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    for _ in range(20):
        prober.observe("e", Failure(Kind.CLIENT_GONE, "the client has left"), M)
    view = prober.snapshot.by_name["e"]
    assert (view.breaker, view.health) == (BreakerState.CLOSED, Health.HEALTHY)


async def test_an_answer_of_a_model_that_was_not_resident_is_looked_into(
    serve: Serve, probe: Probe
) -> None:
    """It must be in memory now: what is there is asked for, without waiting for a round."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    server.answers["/api/ps"] = model_list("m:latest")
    prober.observe("e", None, M)
    async with asyncio.timeout(5.0):
        while M not in prober.snapshot.by_name["e"].resident:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("name", ["nobody", ""])
async def test_who_is_not_watched_is_not_missed(probe: Probe, name: str) -> None:
    """An endpoint that a reload has taken away may still have requests that end."""
    prober = await probe()
    prober.probe_now(name)
    prober.observe(name, None, None)
    assert (await prober.refresh("models", 0.0, 1.0)).endpoints == ()


async def test_other_endpoints_can_be_watched(serve: Serve, probe: Probe) -> None:
    """What is known of those that stay is kept; one with other settings starts anew."""
    server = await serve(OLLAMA)
    stays, goes, changes = (endpoint(server.url, name) for name in ("stays", "goes", "changes"))
    prober = await probe(goes, stays, changes)
    await prober.first_pass()
    comes = endpoint(server.url, "comes")
    await prober.set_specs([comes, endpoint(server.url, "changes", priority=1), stays])
    known = {view.name: view.health for view in prober.snapshot.endpoints}
    assert known == {
        "comes": Health.UNKNOWN,
        "changes": Health.UNKNOWN,
        "stays": Health.HEALTHY,
    }
    assert [view.position for view in prober.snapshot.endpoints] == [0, 1, 2]
    await prober.first_pass()
    assert {view.health for view in prober.snapshot.endpoints} == {Health.HEALTHY}
    prober.observe("goes", Failure(Kind.RESET, "connection reset"), M)
    assert "goes" not in prober.snapshot.by_name


async def test_a_429_of_traffic_is_a_pause(serve: Serve, probe: Probe) -> None:
    """Probes that are answered meanwhile do not end it; an Ollama only passes the cloud's on."""
    server = await serve({**OLLAMA, "/health": "", "/v1/models": {"data": [{"id": "m"}]}})
    prober = await probe(endpoint(server.url, "ollama"), endpoint(server.url, "vllm", type="vllm"))
    await prober.first_pass()
    for name in ("ollama", "vllm"):
        failure = Failure(Kind.UPSTREAM_STATUS, "too many", retry_after=120.0, endpoint_status=429)
        prober.observe(name, failure, M)
    assert (await prober.probed("ollama")).health is Health.HEALTHY
    assert (await prober.probed("vllm")).health is Health.RATE_LIMITED


async def test_one_endpoint_that_answers_rubbish_harms_no_other(serve: Serve, probe: Probe) -> None:
    """It alone is unhealthy, and the others' lists are read."""
    well, odd = await serve(OLLAMA), await serve({**OLLAMA, "/api/tags": b"<html>"})
    prober = await probe(endpoint(odd.url, "odd"), endpoint(well.url, "well"))
    await prober.first_pass()
    assert prober.snapshot.by_name["odd"].health is Health.UNHEALTHY
    assert prober.snapshot.by_name["well"].health is Health.HEALTHY
    assert [view.name for view in prober.snapshot.having(M)] == ["well"]


async def test_traffic_that_cannot_connect_has_it_checked_at_once(
    serve: Serve, probe: Probe
) -> None:
    """An endpoint that answers is back long before its next turn, and nobody had to ask for it."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    prober.observe("e", Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    async with asyncio.timeout(5.0):
        while prober.snapshot.by_name["e"].health is not Health.HEALTHY:
            await asyncio.sleep(0.005)


async def test_a_llama_cpp_server_is_warming_until_it_has_loaded(
    serve: Serve, probe: Probe
) -> None:
    """Its kind is known before it can do anything, and it is used as soon as it can."""
    loading = (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, {})
    server = await serve(dict.fromkeys(("/health", "/api/version", "/v1/models"), loading))
    prober = await probe(endpoint(server.url, type="auto"))
    await prober.first_pass()
    view = prober.snapshot.by_name["e"]
    assert view.profile is not None
    assert (view.profile.name, view.health) == ("llamacpp", Health.WARMING)
    models = {"data": [{"id": "tiny", "owned_by": "llamacpp"}]}
    server.answers = {"/health": {"status": "ok"}, "/v1/models": models}
    view = await prober.probed("e")
    assert view.health is Health.HEALTHY
    assert set(view.models) == {canonical("tiny")}


async def test_what_comes_after_a_refresh_is_not_lost(serve: Serve, probe: Probe) -> None:
    """An endpoint that was too late for one client has answered for the next."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url, check_timeout=60.0))
    await prober.first_pass()
    late = asyncio.get_running_loop().create_future()
    server.answers["/api/tags"] = late
    snapshot = await prober.refresh("models", 0.0, 0.1)
    assert set(snapshot.holders) == {M}
    late.set_result((200, model_list("new"), {}))
    async with asyncio.timeout(5.0):
        while canonical("new") not in prober.snapshot.holders:
            await asyncio.sleep(0.002)


async def test_a_refresh_that_is_given_up_takes_the_answer_from_nobody(
    serve: Serve, probe: Probe
) -> None:
    """A client hangs up; the one beside it is served, by the same question."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url, check_timeout=60.0))
    await prober.first_pass()
    held = asyncio.get_running_loop().create_future()
    server.answers["/api/ps"] = held
    leaving, staying = (asyncio.create_task(prober.refresh("resident", 0.0, 5.0)) for _ in range(2))
    await server.was_asked("/api/ps", 2)
    leaving.cancel()
    held.set_result((200, model_list("m"), {}))
    assert M in (await staying).by_name["e"].resident
    assert server.asked["/api/ps"] == 2


async def test_an_endpoint_that_breaks_in_a_refresh_is_probed(serve: Serve, probe: Probe) -> None:
    """Who asked gets what is known, and the fleet learns of the trouble."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    await server.refuse()
    assert M in (await prober.refresh("models", 0.0, 5.0)).holders
    async with asyncio.timeout(5.0):
        while prober.snapshot.by_name["e"].health is not Health.OFFLINE:
            await asyncio.sleep(0.005)


async def test_only_lists_can_be_refreshed(probe: Probe) -> None:
    """Another word is a mistake in the program, and says so."""
    prober = await probe()
    with pytest.raises(ValueError, match="colours"):
        await prober.refresh("colours", 0.0, 1.0)


async def test_one_that_left_says_nothing_more(serve: Serve, probe: Probe) -> None:
    """An answer that comes while it is stopped does not bring it back."""
    stays, goes = await serve(OLLAMA), await serve(OLLAMA)
    specs = endpoint(stays.url, "stays"), endpoint(goes.url, "goes", check_timeout=60.0)
    prober = await probe(*specs)
    await prober.first_pass()
    goes.answers["/api/tags"] = HANG
    asking = asyncio.create_task(prober.probed("goes"))
    await goes.was_asked("/api/tags", 2)
    await prober.set_specs(specs[:1])
    assert (await asking).name == "goes"
    assert [view.name for view in prober.snapshot.endpoints] == ["stays"]
    with pytest.raises(KeyError):
        await prober.probed("goes")


async def test_one_that_was_replaced_does_not_speak_for_its_successor(
    serve: Serve, probe: Probe
) -> None:
    """What is heard of the old address, while it is stopped, is not said of the new one."""
    old, new = await serve(OLLAMA), await serve(OLLAMA)
    prober = await probe(endpoint(old.url))
    await prober.first_pass()
    watch = prober._watches["e"]
    replacing = asyncio.create_task(prober.set_specs([endpoint(new.url)]))
    await asyncio.sleep(0)
    watch.observe(Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    assert watch.view.health is Health.OFFLINE
    view = prober.snapshot.by_name["e"]
    assert (view.spec, view.health) == (endpoint(new.url), Health.UNKNOWN)
    await replacing
