"""A node that dies or freezes does not take with it what another one can serve."""

import asyncio
import functools
import json

import aiohttp
import pytest

from olla.simulation.faults import Fault
from tests.routers import ADMIN, WITH_ADMIN, Fleet
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
ASK = {"model": MODEL, "prompt": "hello", "stream": False, "options": {"num_predict": 3}}


async def ask(session: aiohttp.ClientSession, fleet: Fleet) -> tuple[int, str | None]:
    """Status, and the endpoint that answered."""
    async with session.post(f"{fleet.url}/api/generate", json=ASK) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint")


async def test_a_request_on_a_node_that_freezes_is_answered_by_another() -> None:
    """It goes there as soon as probes find the node dead, long before its first byte is overdue."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}) as fleet, aiohttp.ClientSession() as session:
        _, first = await ask(session, fleet)
        assert first is not None
        frozen = fleet.nodes[first]
        frozen.faults.set("hang", Fault(paths=("*",)))
        asking = asyncio.create_task(ask(session, fleet))
        async with asyncio.timeout(10):
            status, second = await asking
        assert (status, second != first) == (200, True)
        view = fleet.app.prober.snapshot.by_name[first]
        assert not view.routable
        assert fleet.app.dispatcher.leases == 0


async def test_a_request_waits_on_for_a_frozen_node_that_is_the_only_one() -> None:
    """There is nobody better to ask, and it may yet answer."""
    async with Fleet({"only": (MODEL,)}) as fleet, aiohttp.ClientSession() as session:
        await ask(session, fleet)
        node = fleet.nodes["only"]
        node.faults.set("hang", Fault(paths=("*",)))
        asking = asyncio.create_task(ask(session, fleet))
        async with asyncio.timeout(10):
            while fleet.app.prober.snapshot.by_name["only"].routable:
                await asyncio.sleep(0.02)
        assert not asking.done()
        assert fleet.app.dispatcher.leases == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_all_that_a_dying_node_had_not_begun_is_answered_by_others() -> None:
    """Sixty at once, each once more: the budget is made for that."""
    nodes = dict.fromkeys("abc", (MODEL,))
    async with (
        Fleet(nodes, WITH_ADMIN, time_scale=0.05, num_parallel=20) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        for name in nodes:
            await session.post(
                f"{fleet.url}/api/generate", json=ASK, headers={**ADMIN, "X-Olla-Endpoint": name}
            )
        asking = [asyncio.create_task(ask(session, fleet)) for _ in range(60)]
        async with asyncio.timeout(5):
            while not fleet.nodes["a"].executor.running:
                await asyncio.sleep(0.002)
        await fleet.nodes["a"].refuse()
        answers = await asyncio.gather(*asking)
        assert [status for status, _ in answers] == [200] * 60
        assert fleet.app.dispatcher.retries.refused == 0
        await fleet.check_clean()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_from_a_node_that_freezes_ends_with_an_error(version: str) -> None:
    """As soon as probes find it dead, and not only when silence itself is too long."""
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
