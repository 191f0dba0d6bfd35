"""A runner that hangs while its server answers every probe is found from traffic."""

import asyncio

import aiohttp

from olla.fleet.model_names import canonical
from olla.fleet.stalls import Patience, Progress
from tests.routers import ADMIN, WITH_ADMIN, Fleet

MODEL, OTHER = "llama3.2:latest", "mistral:latest"


def impatient(fleet: Fleet) -> Fleet:
    """Look often, and suspect soon."""
    confirming = fleet.app.stall_detector
    confirming.interval = confirming.again_first = 0.05
    confirming.timeout = 0.3
    confirming.patience = Patience(least=0.3, times=0.0)
    return fleet


async def ask(
    session: aiohttp.ClientSession, fleet: Fleet, model: str = MODEL, **headers: str
) -> tuple[int, str | None]:
    """Status, and the endpoint that answered."""
    body = {"model": model, "prompt": "hello", "stream": False, "options": {"num_predict": 3}}
    url = f"{fleet.url}/api/generate"
    async with session.post(url, json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint")


async def keep_asking(session: aiohttp.ClientSession, fleet: Fleet, endpoint: str) -> None:
    """Traffic that flows."""
    while True:
        assert (await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": endpoint}))[0] == 200
        await asyncio.sleep(0.02)


def is_stuck(fleet: Fleet, endpoint: str) -> bool:
    """Whether olla takes a model on the endpoint to be stuck."""
    return bool(fleet.app.dispatcher.twins.by_name[endpoint].stuck)


async def test_a_stuck_model_is_left_alone_and_what_it_holds_goes_elsewhere() -> None:
    """Its server says all the while that it is well; when it moves again it is used again."""
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
        flowing = asyncio.create_task(keep_asking(session, fleet, "b"))
        async with asyncio.timeout(20):
            asking = [asyncio.create_task(ask(session, fleet)) for _ in range(8)]
            assert set(await asyncio.gather(*asking)) == {(200, "b")}
            assert is_stuck(fleet, "a")
            assert fleet.app.prober.snapshot.by_name["a"].routable
            assert (await ask(session, fleet)) == (200, "b")
            fleet.nodes["a"].faults.clear()
            while is_stuck(fleet, "a"):
                await asyncio.sleep(0.01)
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        assert "model stuck" in fleet.log.getvalue()
        assert "model moves again" in fleet.log.getvalue()
        await fleet.check_clean()


async def test_a_fault_while_looking_does_not_end_the_looking() -> None:
    """The next look is as good as any."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        confirming = fleet.app.stall_detector
        await confirming.stop()
        looks: asyncio.Queue[None] = asyncio.Queue()

        def broken() -> list[Progress]:
            looks.put_nowait(None)
            raise RuntimeError("a fault in olla")

        confirming._moving = broken
        impatient(fleet).app.stall_detector.start()
        async with asyncio.timeout(10):
            for _ in range(3):
                await looks.get()
        told = fleet.log.getvalue()
        assert "a fault in olla" in told
        fleet.log.clear()


async def test_a_slow_answer_is_confirmed_to_be_slow_and_stays() -> None:
    """One token comes, so nothing is wrong; and asking for it has loaded nothing."""
    slow = {"tokens_per_second": 5.0, "time_scale": 1.0, "load_bandwidth": 1e12, "num_parallel": 2}
    async with Fleet({"a": (MODEL,), "b": (MODEL,)}, WITH_ADMIN, **slow) as fleet:
        await fleet.app.stall_detector.stop()
        impatient(fleet).app.stall_detector.start()
        fleet.app.stall_detector.timeout = 5.0
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            for name in fleet.nodes:
                await ask(session, fleet, **ADMIN, **{"X-Olla-Endpoint": name})
            loads = [node.loads for node in fleet.nodes.values()]
            flowing = asyncio.create_task(keep_asking(session, fleet, "b"))
            body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 12}}
            url, pinned = f"{fleet.url}/api/generate", {**ADMIN, "X-Olla-Endpoint": "a"}
            async with session.post(url, json=body, headers=pinned) as response:
                assert response.status == 200
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
        asked = [each for each in fleet.nodes["a"].seen if each.target == "/api/generate"]
        assert len(asked) >= 3  # the two above, and what confirmed the suspicion
        assert "model stuck" not in fleet.log.getvalue()
        assert [node.loads for node in fleet.nodes.values()] == loads


async def test_a_model_that_is_not_in_memory_is_not_asked() -> None:
    """Asking would load it."""
    async with Fleet({"a": (MODEL, OTHER)}) as fleet, aiohttp.ClientSession() as session:
        await ask(session, fleet)
        twin = fleet.app.dispatcher.twins.by_name["a"]
        instance = twin.names[canonical(OTHER)]
        before = fleet.nodes["a"].loads
        assert await fleet.app.stall_detector.one_token(instance) is None
        assert fleet.nodes["a"].loads == before
