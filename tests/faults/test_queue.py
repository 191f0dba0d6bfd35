"""Queueing as clients see it: reported in headers, bounded, rejected with advice, explained."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.routers import Fleet
from tests.waiting import until

MODEL = "llama3.2:latest"


async def ask(fleet: Fleet, **more: Any) -> tuple[int, dict[str, str], Any]:
    """Send a request; return the status, headers and body of the response."""
    headers = more.pop("headers", {})
    body = {"model": MODEL, "prompt": "Why?", "stream": False, **more}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fleet.url}/api/generate", json=body, headers=headers) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.json()


async def test_a_queued_request_reports_its_queue_time() -> None:
    """The headers have the time and the reason; they are absent when the request did not wait."""
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


async def test_a_full_queue_is_a_503_with_retry_after() -> None:
    """Retry-After is in whole seconds; requests that are already queued are served."""
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


async def test_a_request_with_too_long_an_expected_wait_is_rejected() -> None:
    """It is rejected at once, because loading is expected to take longer than the queue timeout."""
    extra = "routing: {queue_timeout: 1s}\n"
    async with Fleet({"only": (MODEL,)}, extra, time_scale=1.0) as fleet:
        status, headers, body = await ask(fleet)
        assert status == 503
        assert "routing.queue_timeout" in body["error"]
        assert int(headers["Retry-After"]) >= 1
        await fleet.check_clean()


async def test_an_explanation_lists_every_endpoint_with_its_delay() -> None:
    """It also has the predicted and the observed times."""
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
        assert fleet.log.getvalue().count('"candidates"') == 2  # one debug line per request


@pytest.mark.parametrize("rule", ["max: 4096", "round_to: 4096, max: 8192"])
async def test_num_ctx_is_rewritten_as_configured(rule: str) -> None:
    """The node loads the model with the rewritten context length, and the log reports it."""
    async with Fleet({"only": (MODEL,)}, f"routing: {{num_ctx: {{{rule}}}}}\n") as fleet:
        await ask(fleet, options={"num_ctx": 100_000})
        (resident,) = fleet.nodes["only"].executor.node.resident(0.0)
        assert resident.context_length == (4096 if "round" not in rule else 8192)
        await fleet.settled()
        assert '"rewritten":"num_ctx 100000 -> ' in fleet.log.getvalue()


async def test_an_unload_request_does_not_load_the_model() -> None:
    """It goes to a node where the model is resident, or to any node if it is resident nowhere."""
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


async def test_requests_queued_for_a_node_that_dies_go_elsewhere() -> None:
    """The other endpoint answers the requests that have not begun."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}, time_scale=0.05) as fleet:
        _, headers, _ = await ask(fleet)
        first = headers["X-Olla-Endpoint"]
        waiting = [asyncio.create_task(ask(fleet)) for _ in range(8)]
        await until(lambda: fleet.app.dispatcher.waiting)
        await fleet.nodes[first].refuse()
        answers = await asyncio.gather(*waiting)
        assert sum(status == 200 for status, _, _ in answers) >= 7
        assert fleet.app.dispatcher.waiting == 0
