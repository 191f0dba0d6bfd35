"""Tests of the data of one endpoint: one probe of a kind at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from olla.clock import SystemClock
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.probing.inventory import Inventory, ProbeKind
from olla.probing.probe_client import ProbeClient, Verdict
from olla.probing.slices import Slices
from tests.probing.scripted import HANG, OLLAMA, ScriptedServer, endpoint, model_list

Serve = Callable[[dict[str, Any]], Awaitable[ScriptedServer]]


def _raise(error: Exception) -> None:
    raise error


Take = Callable[..., Inventory]


@pytest.fixture
async def take() -> AsyncIterator[Take]:
    """Return a function that makes the inventory of a server."""
    probe_client = ProbeClient(SystemClock())
    taken: list[Inventory] = []

    def of(server: ScriptedServer, profile: str = "ollama", **more: Any) -> Inventory:
        made = Inventory(
            endpoint(server.url, **more),
            probe_client,
            SystemClock(),
            Slices(),
            lambda: None,
            _raise,
        )
        made.profile = PROFILES[profile]
        taken.append(made)
        return made

    yield of
    for each in taken:
        await each.stop()
    await probe_client.close()


async def test_concurrent_callers_share_one_probe(serve: Serve, take: Take) -> None:
    """All of them get the same answer."""
    server = await serve(OLLAMA)
    inventory = take(server)
    replies = await asyncio.gather(*(inventory.probe(ProbeKind.MODELS) for _ in range(10)))
    assert {reply.verdict for reply in replies} == {Verdict.OK}
    assert server.request_counts["/api/tags"] == 1


async def test_a_cancelled_caller_does_not_cancel_the_probe(serve: Serve, take: Take) -> None:
    """The probe continues, and its answer is stored."""
    server = await serve(OLLAMA)
    inventory = take(server)
    impatient = asyncio.create_task(inventory.probe(ProbeKind.MODELS))
    await server.wait_for_requests("/api/tags")
    impatient.cancel()
    assert (await inventory.probe(ProbeKind.MODELS)).verdict is Verdict.OK
    assert set(inventory.models) == {canonical("m")}
    assert server.request_counts["/api/tags"] == 1


async def test_a_change_during_a_probe_triggers_another_probe(serve: Serve, take: Take) -> None:
    """The first answer may predate the change."""
    server = await serve(OLLAMA)
    inventory = take(server)
    probing = asyncio.create_task(inventory.probe(ProbeKind.MODELS))
    await server.wait_for_requests("/api/tags")
    server.answers["/api/tags"] = model_list("new")
    inventory.mark_stale(ProbeKind.MODELS)
    await probing
    assert set(inventory.models) == {canonical("new")}
    assert not inventory.due(ProbeKind.MODELS, 600.0)


async def test_a_failed_probe_keeps_the_previous_data(serve: Serve, take: Take) -> None:
    """The data also stays marked as stale."""
    server = await serve(OLLAMA)
    inventory = take(server)
    await inventory.probe(ProbeKind.MODELS)
    inventory.mark_stale(ProbeKind.MODELS)
    server.answers["/api/tags"] = (500, "broken", {})
    assert (await inventory.probe(ProbeKind.MODELS)).verdict is Verdict.BROKEN
    assert set(inventory.models) == {canonical("m")}
    assert inventory.due(ProbeKind.MODELS, 600.0)


async def test_another_type_of_server_starts_without_data(serve: Serve, take: Take) -> None:
    """The data of the previous server is dropped."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m")})
    inventory = take(server)
    for kind in ProbeKind:
        await inventory.probe(kind)
    assert inventory.models
    assert inventory.resident_models
    assert inventory.version == "0.12.0"
    inventory.profile = PROFILES["vllm"]
    assert (inventory.models, inventory.resident_models, inventory.version) == ({}, (), None)
    assert inventory.models_at is None


async def test_a_missing_list_of_loaded_models_is_not_a_failure(serve: Serve, take: Take) -> None:
    """Old versions of Ollama lack the path; other types are not probed for it."""
    server = await serve({**OLLAMA, "/api/ps": (404, "404 page not found", {})})
    assert (await take(server).probe(ProbeKind.RESIDENT)).verdict is Verdict.OK
    assert (await take(server, "vllm").probe(ProbeKind.RESIDENT)).verdict is Verdict.OK
    assert server.request_counts["/api/ps"] == 1
    assert server.request_counts.total() == 1


async def test_stop_cancels_probes_in_flight(serve: Serve, take: Take) -> None:
    """However long they would take."""
    server = await serve({**OLLAMA, "/api/tags": HANG})
    inventory = take(server, check_timeout=60.0)
    probing = asyncio.create_task(inventory.probe(ProbeKind.MODELS))
    await server.wait_for_requests("/api/tags")
    await inventory.stop()
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert not inventory.is_probing(ProbeKind.MODELS)


async def test_an_invalid_list_keeps_the_previous_data(serve: Serve, take: Take) -> None:
    """The error says that it was not a list."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m")})
    inventory = take(server)
    lists = {ProbeKind.MODELS: "/api/tags", ProbeKind.RESIDENT: "/api/ps"}
    for kind, path in lists.items():
        await inventory.probe(kind)
        server.answers[path] = {"models": 5}
        reply = await inventory.probe(kind)
        assert (reply.verdict, reply.error) == (
            Verdict.BROKEN,
            f"GET {path} did not return a list of models",
        )
    assert set(inventory.models) == {canonical("m")}
    assert [resident_model.name for resident_model in inventory.resident_models] == ["m"]


async def test_a_missing_version_is_not_probed_again(serve: Serve, take: Take) -> None:
    """A missing version counts as an answer; an error does not, and keeps the previous version."""
    server = await serve(OLLAMA)
    inventory = take(server)
    await inventory.probe(ProbeKind.VERSION)
    server.answers["/api/version"] = (500, "broken", {})
    inventory.mark_stale(ProbeKind.VERSION)
    await inventory.probe(ProbeKind.VERSION)
    assert inventory.version == "0.12.0"
    assert inventory.due(ProbeKind.VERSION, 600.0)
    server.answers["/api/version"] = {"version": 5}
    await inventory.probe(ProbeKind.VERSION)
    assert inventory.version is None
    assert not inventory.due(ProbeKind.VERSION, 600.0)
