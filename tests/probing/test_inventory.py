"""What one endpoint says it has: one question of a kind at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from olla.clock import SystemClock
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.probing.inventory import Inventory, Question
from olla.probing.probe_client import ProbeClient, Verdict
from olla.probing.slices import Slices
from tests.probing.scripted import HANG, OLLAMA, ScriptedServer, endpoint, model_list

Serve = Callable[[dict[str, Any]], Awaitable[ScriptedServer]]


def _raise(error: Exception) -> None:
    raise error


Take = Callable[..., Inventory]


@pytest.fixture
async def take() -> AsyncIterator[Take]:
    """Inventories of these servers."""
    asker = ProbeClient(SystemClock())
    taken: list[Inventory] = []

    def of(server: ScriptedServer, profile: str = "ollama", **more: Any) -> Inventory:
        made = Inventory(
            endpoint(server.url, **more), asker, SystemClock(), Slices(), lambda: None, _raise
        )
        made.profile = PROFILES[profile]
        taken.append(made)
        return made

    yield of
    for each in taken:
        await each.stop()
    await asker.close()


async def test_a_question_under_way_is_not_put_twice(serve: Serve, take: Take) -> None:
    """All who want to know get the one answer."""
    server = await serve(OLLAMA)
    inventory = take(server)
    replies = await asyncio.gather(*(inventory.ask(Question.MODELS) for _ in range(10)))
    assert {reply.verdict for reply in replies} == {Verdict.OK}
    assert server.asked["/api/tags"] == 1


async def test_who_stops_waiting_takes_the_answer_from_nobody(serve: Serve, take: Take) -> None:
    """The question goes on, and what it brings is kept."""
    server = await serve(OLLAMA)
    inventory = take(server)
    impatient = asyncio.create_task(inventory.ask(Question.MODELS))
    await server.was_asked("/api/tags")
    impatient.cancel()
    assert (await inventory.ask(Question.MODELS)).verdict is Verdict.OK
    assert set(inventory.models) == {canonical("m")}
    assert server.asked["/api/tags"] == 1


async def test_a_change_during_a_question_is_asked_after(serve: Serve, take: Take) -> None:
    """The answer may be from before it."""
    server = await serve(OLLAMA)
    inventory = take(server)
    asking = asyncio.create_task(inventory.ask(Question.MODELS))
    await server.was_asked("/api/tags")
    server.answers["/api/tags"] = model_list("new")
    inventory.mark_stale(Question.MODELS)
    await asking
    assert set(inventory.models) == {canonical("new")}
    assert not inventory.due(Question.MODELS, 600.0)


async def test_a_failed_question_keeps_what_was_known(serve: Serve, take: Take) -> None:
    """And what was known to have changed stays so."""
    server = await serve(OLLAMA)
    inventory = take(server)
    await inventory.ask(Question.MODELS)
    inventory.mark_stale(Question.MODELS)
    server.answers["/api/tags"] = (500, "broken", {})
    assert (await inventory.ask(Question.MODELS)).verdict is Verdict.BROKEN
    assert set(inventory.models) == {canonical("m")}
    assert inventory.due(Question.MODELS, 600.0)


async def test_another_kind_of_server_begins_anew(serve: Serve, take: Take) -> None:
    """What the old one had is not the new one's."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m")})
    inventory = take(server)
    for question in Question:
        await inventory.ask(question)
    assert inventory.models
    assert inventory.resident_models
    assert inventory.version == "0.12.0"
    inventory.profile = PROFILES["vllm"]
    assert (inventory.models, inventory.resident_models, inventory.version) == ({}, (), None)
    assert inventory.models_at is None


async def test_who_does_not_tell_its_memory_is_not_blamed(serve: Serve, take: Take) -> None:
    """An old Ollama has no such path; other kinds are not asked at all."""
    server = await serve({**OLLAMA, "/api/ps": (404, "404 page not found", {})})
    assert (await take(server).ask(Question.RESIDENT)).verdict is Verdict.OK
    assert (await take(server, "vllm").ask(Question.RESIDENT)).verdict is Verdict.OK
    assert server.asked["/api/ps"] == 1
    assert server.asked.total() == 1


async def test_stopping_ends_what_is_under_way(serve: Serve, take: Take) -> None:
    """However long it would take."""
    server = await serve({**OLLAMA, "/api/tags": HANG})
    inventory = take(server, check_timeout=60.0)
    asking = asyncio.create_task(inventory.ask(Question.MODELS))
    await server.was_asked("/api/tags")
    await inventory.stop()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not inventory.asking(Question.MODELS)


async def test_rubbish_leaves_what_was_known(serve: Serve, take: Take) -> None:
    """And says in words that it was rubbish."""
    server = await serve({**OLLAMA, "/api/ps": model_list("m")})
    inventory = take(server)
    lists = {Question.MODELS: "/api/tags", Question.RESIDENT: "/api/ps"}
    for question, path in lists.items():
        await inventory.ask(question)
        server.answers[path] = {"models": 5}
        reply = await inventory.ask(question)
        assert (reply.verdict, reply.error) == (
            Verdict.BROKEN,
            f"GET {path} answered no list of models",
        )
    assert set(inventory.models) == {canonical("m")}
    assert [resident_model.name for resident_model in inventory.resident_models] == ["m"]


async def test_a_version_that_is_not_told_is_not_asked_for_again(serve: Serve, take: Take) -> None:
    """No version is an answer; an error is none, and takes nothing away."""
    server = await serve(OLLAMA)
    inventory = take(server)
    await inventory.ask(Question.VERSION)
    server.answers["/api/version"] = (500, "broken", {})
    inventory.mark_stale(Question.VERSION)
    await inventory.ask(Question.VERSION)
    assert inventory.version == "0.12.0"
    assert inventory.due(Question.VERSION, 600.0)
    server.answers["/api/version"] = {"version": 5}
    await inventory.ask(Question.VERSION)
    assert inventory.version is None
    assert not inventory.due(Question.VERSION, 600.0)
