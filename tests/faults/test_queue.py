"""Waiting in olla, seen by clients: told, bounded, refused with advice, explained."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.routers import Fleet

MODEL = "llama3.2:latest"


async def ask(fleet: Fleet, **more: Any) -> tuple[int, dict[str, str], Any]:
    """One whole answer."""
    headers = more.pop("headers", {})
    body = {"model": MODEL, "prompt": "Why?", "stream": False, **more}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fleet.url}/api/generate", json=body, headers=headers) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.json()


async def test_a_request_that_waited_says_how_long() -> None:
    """In a header, with the reason; one that did not wait says nothing."""
    extra = "routing: {prewarm: false}\n"
    async with Fleet({"only": (MODEL,)}, extra, time_scale=0.02) as fleet:
        status, headers, _ = await ask(fleet)
        assert (status, headers["X-Olla-Routing-Reason"]) == (200, "cold_load")
        assert float(headers["X-Olla-Queue-Time"].removesuffix("s")) > 0
        status, headers, _ = await ask(fleet)
        assert "X-Olla-Queue-Time" not in headers
        answers = await asyncio.gather(*(ask(fleet) for _ in range(6)))
        queued = [found for _, found, _ in answers if "X-Olla-Queue-Time" in found]
        assert queued
        assert {found["X-Olla-Routing-Reason"] for found in queued} == {"queued"}
        await fleet.check_clean()


async def test_a_full_queue_is_a_503_that_says_when_to_come_back() -> None:
    """In whole seconds; what waits already is served."""
    extra = "routing: {max_queue: 1, prewarm: false}\n"
    async with Fleet({"only": (MODEL,)}, extra, time_scale=0.05) as fleet:
        await ask(fleet)
        answers = await asyncio.gather(*(ask(fleet) for _ in range(6)))
        refused = [(found, body) for status, found, body in answers if status == 503]
        assert sum(status == 200 for status, _, _ in answers) >= 2
        assert refused
        for headers, body in refused:
            assert int(headers["Retry-After"]) >= 1
            assert "routing.max_queue" in body["error"]
        await fleet.check_clean()


async def test_a_wait_that_is_too_long_is_refused() -> None:
    """At once, because it can be foreseen: loading takes longer than one may wait."""
    extra = "routing: {queue_timeout: 1s}\n"
    async with Fleet({"only": (MODEL,)}, extra, time_scale=1.0) as fleet:
        status, headers, body = await ask(fleet)
        assert status == 503
        assert "routing.queue_timeout" in body["error"]
        assert int(headers["Retry-After"]) >= 1
        await fleet.check_clean()


async def test_an_explanation_names_every_endpoint_with_its_delay() -> None:
    """And afterwards what was predicted against what was observed."""
    nodes = {"a": (MODEL,), "b": (MODEL,), "c": ("mistral:latest",)}
    async with Fleet(nodes) as fleet:
        _, headers, _ = await ask(fleet, headers={"X-Olla-Explain": "1"})
        shown = headers["X-Olla-Explanation"].split("; ")
        assert {part.split("=")[0].split(":")[0] for part in shown[:3]} == {"a", "b", "c"}
        assert "load=" in shown[0]
        assert "c:model_not_available" in shown
        assert any(part.startswith("predicted=") for part in shown)
        assert any(part.startswith("observed=") for part in shown)
        _, headers, _ = await ask(fleet)
        assert "X-Olla-Explanation" not in headers
        assert fleet.log.getvalue().count('"candidates"') == 2  # at the level debug, for each


@pytest.mark.parametrize("told", ["max: 4096", "round_to: 4096, max: 8192"])
async def test_a_context_is_made_to_fit_where_that_is_configured(told: str) -> None:
    """The node loads the model with it, and the log says so."""
    async with Fleet({"only": (MODEL,)}, f"routing: {{num_ctx: {{{told}}}}}\n") as fleet:
        await ask(fleet, options={"num_ctx": 100_000})
        (resident,) = fleet.nodes["only"].executor.node.resident(0.0)
        assert resident.context_length == (4096 if "round" not in told else 8192)
        await fleet.settled()
        assert '"rewritten":"num_ctx 100000 -> ' in fleet.log.getvalue()


async def test_unloading_loads_nothing() -> None:
    """It goes to a node that has the model in memory, and to any when none has."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}) as fleet:
        schedulers = [node.executor.node for node in fleet.nodes.values()]
        status, _, body = await ask(fleet, prompt="", keep_alive=0)
        assert (status, body["done_reason"]) == (200, "unload")
        assert sum(each.loads for each in schedulers) == 0
        await ask(fleet)
        assert sum(len(each.resident(0.0)) for each in schedulers) == 1
        await ask(fleet, prompt="", keep_alive=0)
        assert sum(len(each.resident(0.0)) for each in schedulers) == 0
        await fleet.check_clean()


async def test_a_node_that_dies_gives_back_what_waits_for_it() -> None:
    """Requests that have not begun are answered by the other one."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}, time_scale=0.05) as fleet:
        _, headers, _ = await ask(fleet)
        first = headers["X-Olla-Endpoint"]
        waiting = [asyncio.create_task(ask(fleet)) for _ in range(8)]
        async with asyncio.timeout(5):
            while not fleet.app.dispatcher.waiting:
                await asyncio.sleep(0.001)
        await fleet.nodes[first].refuse()
        answers = await asyncio.gather(*waiting)
        assert sum(status == 200 for status, _, _ in answers) >= 7
        assert fleet.app.dispatcher.waiting == 0
