"""Circuit breakers keep traffic away from failing endpoints, and let it return."""

import asyncio
from collections import Counter

import aiohttp

from olla.fleet.breaker import BreakerState
from olla.simulation.faults import Fault
from tests.routers import ADMIN, WITH_ADMIN, Fleet

MODEL = "llama3.2:latest"


async def ask(session: aiohttp.ClientSession, fleet: Fleet, **headers: str) -> tuple[int, str]:
    """Send a request; return the status and the endpoint that answered."""
    body = {"model": MODEL, "prompt": "hello", "stream": False, "options": {"num_predict": 3}}
    url = f"{fleet.url}/api/generate"
    async with session.post(url, json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint", "")


async def warm(session: aiohttp.ClientSession, fleet: Fleet) -> None:
    """Load the model on every node."""
    for name in fleet.nodes:
        assert (await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": name}))[0] == 200


def breaker(fleet: Fleet, name: str) -> BreakerState:
    """Return the state of an endpoint's breaker."""
    return fleet.app.prober.snapshot.by_name[name].breaker


async def test_fast_errors_repel_requests_instead_of_attracting_them() -> None:
    """An endpoint that answers errors at once has nothing in flight and looks fastest. It gets few
    requests, and clients see no error."""
    nodes = {"a": (MODEL,), "b": (MODEL,), "c": (MODEL,)}
    async with (
        Fleet(nodes, WITH_ADMIN, keep_alive=1e6) as fleet,
        aiohttp.ClientSession() as session,
    ):
        await warm(session, fleet)
        for status in (503, 404, 429):
            fleet.nodes["a"].faults.set("status", Fault(status=status))
            fleet.nodes["a"].seen.clear()
            answers = [await ask(session, fleet) for _ in range(60)]
            assert {code for code, _ in answers} == {200}, status
            received = sum(each.target == "/api/generate" for each in fleet.nodes["a"].seen)
            assert received <= 12, status
            fleet.nodes["a"].faults.clear()
        await fleet.check_clean()


async def test_intermittent_failures_open_the_breaker() -> None:
    """More than half of the requests fail, rarely five in a row: the failure share opens the
    breaker."""
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}, WITH_ADMIN, keep_alive=1e6) as fleet:
        async with aiohttp.ClientSession() as session:
            await warm(session, fleet)
            fleet.nodes["a"].faults.set("status", Fault(status=500, probability=0.6))
            opened = False
            for _ in range(60):
                assert (await ask(session, fleet))[0] == 200
                opened = opened or breaker(fleet, "a") is BreakerState.OPEN
            assert opened
        await fleet.check_clean()


async def test_the_last_endpoint_of_a_model_is_always_tried() -> None:
    """Each request is sent although the breaker is open: no other endpoint has the model."""
    async with Fleet({"only": (MODEL,)}, WITH_ADMIN) as fleet, aiohttp.ClientSession() as session:
        await warm(session, fleet)
        fleet.nodes["only"].faults.set("status", Fault(status=500, count=8))
        assert [(await ask(session, fleet))[0] for _ in range(8)] == [500] * 8
        assert breaker(fleet, "only") is BreakerState.OPEN
        assert (await ask(session, fleet))[0] == 200


async def test_a_recovered_endpoint_ramps_up_slowly() -> None:
    """Of forty concurrent requests it gets at most two at first, and its full share later."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    extra = WITH_ADMIN + "proxy: {load_balancer: least-connections}\n"
    async with (
        Fleet(nodes, extra, num_parallel=40, keep_alive=1e6, time_scale=0.02) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await warm(session, fleet)
        await fleet.nodes["a"].refuse()
        assert (await ask(session, fleet))[0] == 200
        await fleet.app.prober.probed("a")
        assert not fleet.app.prober.snapshot.by_name["a"].routable
        await fleet.nodes["a"].accept()
        await fleet.app.prober.probed("a")
        assert fleet.app.prober.snapshot.by_name["a"].ramp == 2
        first = asyncio.gather(*(ask(session, fleet) for _ in range(40)))
        most = 0
        while not first.done():
            await asyncio.sleep(0)
            if fleet.app.prober.snapshot.by_name["a"].ramp == 2:
                most = max(most, fleet.app.dispatcher.twins.on("a"))
        assert {code for code, _ in await first} == {200}
        assert most <= 2
        for _ in range(3):
            used = Counter(
                name for _, name in await asyncio.gather(*(ask(session, fleet) for _ in range(40)))
            )
        assert used["a"] >= 15
        assert fleet.app.prober.snapshot.by_name["a"].ramp == 0
        await fleet.check_clean()
