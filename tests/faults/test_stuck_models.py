"""A hung runner is detected from traffic while its server still answers probes."""

import asyncio

import aiohttp

from olla.fleet.model_names import canonical
from olla.fleet.stalls import Patience, Progress
from tests.routers import ADMIN, WITH_ADMIN, Fleet
from tests.waiting import until

MODEL, OTHER = "llama3.2:latest", "mistral:latest"


def impatient(fleet: Fleet) -> Fleet:
    """Make the stall detector check often and suspect soon."""
    detector = fleet.app.stall_detector
    detector.interval = detector.retry_first = 0.05
    detector.timeout = 0.3
    detector.patience = Patience(least=0.3, times=0.0)
    return fleet


async def ask(
    session: aiohttp.ClientSession, fleet: Fleet, model: str = MODEL, **headers: str
) -> tuple[int, str | None]:
    """Send a request; return the status and the endpoint that answered."""
    body = {"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": 3}}
    url = f"{fleet.url}/api/generate"
    async with session.post(url, json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint")


async def keep_asking(session: aiohttp.ClientSession, fleet: Fleet, endpoint: str) -> None:
    """Send steady traffic to an endpoint."""
    while True:
        assert (await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": endpoint}))[0] == 200
        await asyncio.sleep(0.02)


def is_stuck(fleet: Fleet, endpoint: str) -> bool:
    """Return whether olla considers a model on the endpoint stuck."""
    return bool(fleet.app.dispatcher.twins.by_name[endpoint].stuck)


async def test_requests_on_a_stuck_model_fail_over() -> None:
    """Its server keeps reporting healthy; once the model makes progress, it is used again."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    async with (
        Fleet(nodes, WITH_ADMIN, keep_alive=1e6) as fleet,
        aiohttp.ClientSession() as session,
    ):
        await fleet.app.stall_detector.stop()
        impatient(fleet).app.stall_detector.start()
        for name in nodes:
            await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": name})
        fleet.nodes["a"].faults.set("hang")
        traffic = asyncio.create_task(keep_asking(session, fleet, "b"))
        async with asyncio.timeout(20):
            pending = [asyncio.create_task(ask(session, fleet)) for _ in range(8)]
            assert set(await asyncio.gather(*pending)) == {(200, "b")}
            assert is_stuck(fleet, "a")
            assert fleet.app.prober.snapshot.by_name["a"].routable
            assert (await ask(session, fleet)) == (200, "b")
            fleet.nodes["a"].faults.clear()
            await until(lambda: not is_stuck(fleet, "a"), 20)
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        assert "model stuck" in fleet.log.getvalue()
        assert "model responds again" in fleet.log.getvalue()
        await fleet.check_clean()


async def test_a_fault_in_a_check_does_not_stop_the_detector() -> None:
    """The next check runs as scheduled."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        detector = fleet.app.stall_detector
        await detector.stop()
        checks: asyncio.Queue[None] = asyncio.Queue()

        def broken() -> list[Progress]:
            checks.put_nowait(None)
            raise RuntimeError("a fault in olla")

        detector._in_flight = broken
        impatient(fleet).app.stall_detector.start()
        async with asyncio.timeout(10):
            for _ in range(3):
                await checks.get()
        assert "a fault in olla" in fleet.log.getvalue()
        fleet.log.clear()


async def test_a_slow_response_is_not_taken_for_a_stuck_model() -> None:
    """The test request for one token is answered, and it has not loaded the model."""
    slow = {"tokens_per_second": 5.0, "time_scale": 1.0, "load_bandwidth": 1e12, "num_parallel": 2}
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}, WITH_ADMIN, **slow) as fleet:
        await fleet.app.stall_detector.stop()
        impatient(fleet).app.stall_detector.start()
        fleet.app.stall_detector.timeout = 5.0
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            for name in fleet.nodes:
                await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": name})
            loads = [node.loads for node in fleet.nodes.values()]
            traffic = asyncio.create_task(keep_asking(session, fleet, "b"))
            body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 12}}
            url, pinned = f"{fleet.url}/api/generate", {**ADMIN, "X-Olla-Endpoint": "a"}
            async with session.post(url, json=body, headers=pinned) as response:
                assert response.status == 200
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)
        received = [each for each in fleet.nodes["a"].seen if each.target == "/api/generate"]
        assert len(received) >= 3  # the two above, and the detector's test request
        assert "model stuck" not in fleet.log.getvalue()
        assert [node.loads for node in fleet.nodes.values()] == loads


async def test_a_model_that_is_not_resident_gets_no_test_request() -> None:
    """A test request would load it."""
    async with Fleet({"a": (MODEL, OTHER)}) as fleet, aiohttp.ClientSession() as session:
        await ask(session, fleet)
        twin = fleet.app.dispatcher.twins.by_name["a"]
        instance = twin.names[canonical(OTHER)]
        before = fleet.nodes["a"].loads
        assert await fleet.app.stall_detector.one_token(instance) is None
        assert fleet.nodes["a"].loads == before
