"""Tests of the prober of all endpoints, over real sockets."""

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


async def test_before_the_first_answer_no_endpoint_is_routable(serve: Serve, probe: Probe) -> None:
    """All endpoints are listed in configuration order, with unknown health."""
    hung = await serve({**OLLAMA, "/": HANG})
    prober = await probe(endpoint(hung.url, "b"), endpoint(hung.url, "a"))
    assert [view.name for view in prober.snapshot.endpoints] == ["b", "a"]
    assert {view.health for view in prober.snapshot.endpoints} == {Health.UNKNOWN}
    assert not any(view.routable for view in prober.snapshot.endpoints)


async def test_a_first_pass_reads_everything(probe: Probe) -> None:
    """Health, models with digest and size, version. No probe loads a model."""
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


async def test_an_offline_endpoint_recovers(probe: Probe) -> None:
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


async def test_a_hung_endpoint_does_not_delay_others(serve: Serve, probe: Probe) -> None:
    """The first rounds of the others end before it has answered."""
    hung = await serve({**OLLAMA, "/": HANG})
    well = await serve(OLLAMA)
    prober = await probe(endpoint(hung.url, "hung", check_timeout=60.0), endpoint(well.url, "well"))
    await hung.wait_for_requests("/")
    view = await prober.probed("well")
    assert view.health is Health.HEALTHY
    assert prober.snapshot.by_name["hung"].health is Health.UNKNOWN


async def test_a_removed_model_disappears(serve: Serve, probe: Probe) -> None:
    """And a new one appears, with the next list."""
    server = await serve({**OLLAMA, "/api/tags": model_list("m", "old")})
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    assert canonical("old") in prober.snapshot.holders
    server.answers["/api/tags"] = model_list("m", "new")
    await prober.probed("e")
    assert set(prober.snapshot.holders) == {M, canonical("new")}


async def test_a_snapshot_is_immutable(serve: Serve, probe: Probe) -> None:
    """Code that holds a snapshot keeps a consistent view."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    old = prober.snapshot
    server.answers["/api/tags"] = model_list()
    await prober.probed("e")
    assert M in old.holders
    assert M not in prober.snapshot.holders


async def test_concurrent_refreshes_share_one_probe(serve: Serve, probe: Probe) -> None:
    """However many clients request a fresh list, the endpoint gets one probe."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    before = server.request_counts["/api/tags"]
    server.answers["/api/tags"] = model_list("fresh")
    snapshots = await asyncio.gather(*(prober.refresh("models", 0.0, 5.0) for _ in range(20)))
    assert server.request_counts["/api/tags"] == before + 1
    assert all(canonical("fresh") in snapshot.holders for snapshot in snapshots)


async def test_a_refresh_skips_endpoints_with_a_recent_list(serve: Serve, probe: Probe) -> None:
    """Recent means younger than `max_age`."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    before = server.request_counts["/api/tags"]
    await prober.refresh("models", 600.0, 5.0)
    assert server.request_counts["/api/tags"] == before


async def test_a_refresh_times_out(serve: Serve, probe: Probe) -> None:
    """Slower endpoints are returned with their previous data."""
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


async def test_stop_leaves_no_task(serve: Serve, probe: Probe) -> None:
    """Not even in the middle of a hung round and a hung refresh."""
    hung = await serve(OLLAMA)
    before = asyncio.all_tasks()
    prober = await probe(endpoint(hung.url, check_timeout=60.0))
    await prober.first_pass()
    hung.answers.update({"/api/tags": HANG, "/api/ps": HANG})
    count = hung.request_counts["/api/ps"]
    prober.probe_now("e")
    refreshing = asyncio.create_task(prober.refresh("resident", 0.0, 60.0))
    await hung.wait_for_requests("/api/ps", count + 1)
    await prober.stop()
    async with asyncio.timeout(5.0):
        await refreshing
        while any("olla/probing" in _source(task) for task in asyncio.all_tasks() - before):
            await asyncio.sleep(0.002)


def _source(task: "asyncio.Task[Any]") -> str:
    """Return the file whose code a task runs."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code is not None else ""


async def test_a_failed_connection_means_offline_immediately(serve: Serve, probe: Probe) -> None:
    """Without waiting for a probe."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    prober.observe("e", Failure(Kind.CONNECT_REFUSED, "connection refused"), M)
    assert prober.snapshot.by_name["e"].health is Health.OFFLINE
    assert prober.snapshot.by_name["e"].last_error == "connection refused"
    assert (await prober.probed("e")).health is Health.HEALTHY


async def test_failures_of_traffic_open_the_breaker(serve: Serve, probe: Probe) -> None:
    """After five in a row; a success in between resets the count."""
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


async def test_failures_of_the_client_do_not_count_against_the_endpoint(
    serve: Serve, probe: Probe
) -> None:
    """A client that hangs up says nothing about the endpoint."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    for _ in range(20):
        prober.observe("e", Failure(Kind.CLIENT_GONE, "the client has left"), M)
    view = prober.snapshot.by_name["e"]
    assert (view.breaker, view.health) == (BreakerState.CLOSED, Health.HEALTHY)


async def test_an_answer_of_a_model_not_known_as_loaded_triggers_a_probe(
    serve: Serve, probe: Probe
) -> None:
    """It must be loaded now, so the loaded models are read without waiting for a round."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    server.answers["/api/ps"] = model_list("m:latest")
    prober.observe("e", None, M)
    async with asyncio.timeout(5.0):
        while M not in prober.snapshot.by_name["e"].resident:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("name", ["nobody", ""])
async def test_reports_about_unknown_endpoints_are_ignored(probe: Probe, name: str) -> None:
    """Requests to an endpoint that a reload removed may still end."""
    prober = await probe()
    prober.probe_now(name)
    prober.observe(name, None, None)
    assert (await prober.refresh("models", 0.0, 1.0)).endpoints == ()


async def test_endpoints_can_be_replaced(serve: Serve, probe: Probe) -> None:
    """Unchanged endpoints keep their data; changed ones start without any."""
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


async def test_a_429_pauses_the_endpoint(serve: Serve, probe: Probe) -> None:
    """Successful probes do not end the pause. Ollama only forwards limits of its cloud, so it is
    not paused."""
    server = await serve({**OLLAMA, "/health": "", "/v1/models": {"data": [{"id": "m"}]}})
    prober = await probe(endpoint(server.url, "ollama"), endpoint(server.url, "vllm", type="vllm"))
    await prober.first_pass()
    for name in ("ollama", "vllm"):
        failure = Failure(Kind.UPSTREAM_STATUS, "too many", retry_after=120.0, endpoint_status=429)
        prober.observe(name, failure, M)
    assert (await prober.probed("ollama")).health is Health.HEALTHY
    assert (await prober.probed("vllm")).health is Health.RATE_LIMITED


async def test_an_endpoint_with_invalid_answers_does_not_affect_others(
    serve: Serve, probe: Probe
) -> None:
    """Only that endpoint is unhealthy, and the lists of the others are read."""
    well, odd = await serve(OLLAMA), await serve({**OLLAMA, "/api/tags": b"<html>"})
    prober = await probe(endpoint(odd.url, "odd"), endpoint(well.url, "well"))
    await prober.first_pass()
    assert prober.snapshot.by_name["odd"].health is Health.UNHEALTHY
    assert prober.snapshot.by_name["well"].health is Health.HEALTHY
    assert [view.name for view in prober.snapshot.having(M)] == ["well"]


async def test_a_failed_connection_triggers_a_probe(serve: Serve, probe: Probe) -> None:
    """An endpoint that answers is back long before its next scheduled probe."""
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
    """Its type is detected before the model is loaded, and it is used as soon as it is ready."""
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


async def test_an_answer_after_the_time_out_of_a_refresh_is_stored(
    serve: Serve, probe: Probe
) -> None:
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


async def test_a_cancelled_refresh_does_not_cancel_others(serve: Serve, probe: Probe) -> None:
    """When a client hangs up, another one still gets the answer of the shared probe."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url, check_timeout=60.0))
    await prober.first_pass()
    held = asyncio.get_running_loop().create_future()
    server.answers["/api/ps"] = held
    leaving, staying = (asyncio.create_task(prober.refresh("resident", 0.0, 5.0)) for _ in range(2))
    await server.wait_for_requests("/api/ps", 2)
    leaving.cancel()
    held.set_result((200, model_list("m"), {}))
    assert M in (await staying).by_name["e"].resident
    assert server.request_counts["/api/ps"] == 2


async def test_a_failed_refresh_triggers_a_probe(serve: Serve, probe: Probe) -> None:
    """The caller gets the previous data, and the fleet learns of the failure."""
    server = await serve(OLLAMA)
    prober = await probe(endpoint(server.url))
    await prober.first_pass()
    await server.refuse()
    assert M in (await prober.refresh("models", 0.0, 5.0)).holders
    async with asyncio.timeout(5.0):
        while prober.snapshot.by_name["e"].health is not Health.OFFLINE:
            await asyncio.sleep(0.005)


async def test_only_lists_can_be_refreshed(probe: Probe) -> None:
    """Any other name is a programming error and raises ValueError."""
    prober = await probe()
    with pytest.raises(ValueError, match="colours"):
        await prober.refresh("colours", 0.0, 1.0)


async def test_answers_of_a_removed_endpoint_are_ignored(serve: Serve, probe: Probe) -> None:
    """An answer that arrives while the watch stops does not bring the endpoint back."""
    stays, goes = await serve(OLLAMA), await serve(OLLAMA)
    specs = endpoint(stays.url, "stays"), endpoint(goes.url, "goes", check_timeout=60.0)
    prober = await probe(*specs)
    await prober.first_pass()
    goes.answers["/api/tags"] = HANG
    probing = asyncio.create_task(prober.probed("goes"))
    await goes.wait_for_requests("/api/tags", 2)
    await prober.set_specs(specs[:1])
    assert (await probing).name == "goes"
    assert [view.name for view in prober.snapshot.endpoints] == ["stays"]
    with pytest.raises(KeyError):
        await prober.probed("goes")


async def test_answers_of_a_replaced_endpoint_do_not_affect_its_successor(
    serve: Serve, probe: Probe
) -> None:
    """Results of the old address, while its watch stops, are ignored."""
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
