"""Requests on a node that dies or freezes are answered by another endpoint."""

import asyncio
import functools
import json

import aiohttp
import pytest

from olla.simulation.faults import Fault
from tests.routers import ADMIN, WITH_ADMIN, Fleet
from tests.waiting import until
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
ASK = {"model": MODEL, "prompt": "hello", "stream": False, "options": {"num_predict": 3}}


async def ask(session: aiohttp.ClientSession, fleet: Fleet) -> tuple[int, str | None]:
    """Send a request; return the status and the endpoint that answered."""
    async with session.post(f"{fleet.url}/api/generate", json=ASK) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint")


async def test_a_request_on_a_frozen_node_is_answered_by_another() -> None:
    """It fails over as soon as probes mark the node dead, long before the first-byte timeout."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}) as fleet, aiohttp.ClientSession() as session:
        _, first = await ask(session, fleet)
        assert first is not None
        frozen = fleet.nodes[first]
        frozen.faults.set("hang", Fault(paths=("*",)))
        pending = asyncio.create_task(ask(session, fleet))
        async with asyncio.timeout(10):
            status, second = await pending
        assert (status, second != first) == (200, True)
        view = fleet.app.prober.snapshot.by_name[first]
        assert not view.routable
        assert fleet.app.dispatcher.leases == 0


async def test_a_request_keeps_waiting_for_the_only_node() -> None:
    """No other endpoint can serve it, and the frozen node may still answer."""
    async with Fleet({"only": (MODEL,)}) as fleet, aiohttp.ClientSession() as session:
        await ask(session, fleet)
        node = fleet.nodes["only"]
        node.faults.set("hang", Fault(paths=("*",)))
        pending = asyncio.create_task(ask(session, fleet))
        await until(lambda: not fleet.app.prober.snapshot.by_name["only"].routable)
        assert not pending.done()
        assert fleet.app.dispatcher.leases == 1
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


async def test_all_requests_that_a_dying_node_had_not_begun_are_answered_by_others() -> None:
    """The retry budget covers sixty concurrent requests that are each retried once."""
    nodes = dict.fromkeys("abc", (MODEL,))
    async with (
        Fleet(nodes, WITH_ADMIN, time_scale=0.05, num_parallel=20) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        for name in nodes:
            await session.post(
                f"{fleet.url}/api/generate", json=ASK, headers={**ADMIN, "X-Olla-Endpoint": name}
            )
        pending = [asyncio.create_task(ask(session, fleet)) for _ in range(60)]
        await until(lambda: fleet.nodes["a"].executor.running)
        await fleet.nodes["a"].refuse()
        answers = await asyncio.gather(*pending)
        assert [status for status, _ in answers] == [200] * 60
        assert fleet.app.dispatcher.retries.refused == 0
        await fleet.check_clean()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_from_a_frozen_node_ends_with_an_error(version: str) -> None:
    """It ends as soon as probes mark the node dead, before the silence timeout."""
    async with (
        Fleet({"only": (MODEL,)}, time_scale=0.05) as fleet,
        aiohttp.ClientSession() as session,
    ):
        node = fleet.nodes["only"]
        await ask(session, fleet)
        node.faults.set("hang_mid", Fault(after=3))
        body = json.dumps({**ASK, "stream": True, "options": {}}).encode()
        head = f"POST /api/generate HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}"
        freeze = functools.partial(node.faults.set, "hang", Fault(paths=("*",)))
        raw = f"{head}\r\n\r\n".encode() + body
        received, clean = await ended(int(fleet.url[17:]), raw, freeze)
        assert b'"done":false' in received
        assert b"stopped answering" in received
        assert not received.endswith(b"0\r\n\r\n")
        assert clean is (version == "1.1")
        assert fleet.app.dispatcher.leases == 0
