"""A caller's limits hold before its bodies are read, whatever way they come in."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.access_control.conftest import MODEL, MakeFleet, bearer, new_key
from tests.access_control.test_limits import GENERATE, _used, post, stopped
from tests.access_control.test_replicas import redis, three_routers
from tests.redis_server import RedisServer
from tests.routers import Fleet

__all__ = ["redis"]

ONE_AT_A_TIME = "access: {tiers: {anonymous: {concurrent: 1}, standard: {concurrent: 1}}}"
PATHS = {
    "fast path": "/api/generate",
    "aiohttp": "/api/generate",
    "own surface": "/chat",
}


@pytest.fixture(params=list(PATHS))
def way_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How requests come in, and to what path."""
    fast = "auto" if request.param == "fast path" else "off"
    monkeypatch.setenv("OLLA_TEST_FAST_PATH", fast)
    return str(PATHS[request.param])


def body_of(path: str, size: int = 200_000, output: int = 1) -> bytes:
    """A long request for a short answer."""
    if path == "/chat":
        return json.dumps({"model": MODEL, "message": "x" * size}).encode()
    options = {"num_predict": output}
    whole = {"model": MODEL, "stream": False, "prompt": "x" * size, "options": options}
    return json.dumps(whole).encode()


class Upload:
    """A request whose body stops before its last byte, until it is told to go on."""

    def __init__(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._last = body[-1:]
        self._reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """What comes back, up to the end of the head."""
        async with asyncio.timeout(10):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def finish(self) -> bytes:
        """Send the last byte."""
        self.writer.write(self._last)
        return await self.answer()


@asynccontextmanager
async def upload(fleet: Fleet, path: str, body: bytes, **headers: str) -> AsyncIterator[Upload]:
    """Send all but the last byte."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    port = int(fleet.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body[:-1])
    try:
        yield Upload(body, reader, writer)
    finally:
        writer.close()


async def until_held(fleet: Fleet, least: int = 65536) -> None:
    """Wait until bodies hold so much memory."""
    async with asyncio.timeout(10):
        while fleet.app.services.body_budget.taken < least:
            await asyncio.sleep(0.002)


async def test_a_key_that_may_ask_once_at_a_time_sends_one_body_at_a_time(
    way_in: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The second is refused before its body is read, and its client reads why; the place comes
    back when the first is answered."""
    fleet = await make_fleet(ONE_AT_A_TIME)
    body = body_of(way_in)
    async with upload(fleet, way_in, body) as first:
        await until_held(fleet, 3 * 65536)
        async with upload(fleet, way_in, body) as second:
            told = await second.answer()
            assert told.startswith(b"HTTP/1.1 429 ")
            assert b"X-RateLimit-Limit: 1\r\n" in told
        assert fleet.app.services.body_budget.taken == 3 * 65536
        assert (await first.finish()).startswith(b"HTTP/1.1 200 ")
    await fleet.settled()
    assert (await post(session, fleet)).status == 200
    assert fleet.app.services.body_budget.taken == 0
    await fleet.check_clean()


async def test_who_leaves_in_the_middle_of_a_body_gives_everything_back(
    way_in: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Its place, its tokens and its memory, once."""
    fleet = await make_fleet(
        "access: {tiers: {anonymous: {concurrent: 1, tokens_per_minute: 600}}}"
    )
    stopped(fleet.app)
    for _ in range(3):
        async with upload(fleet, way_in, body_of(way_in)):
            await until_held(fleet)
            assert _used(fleet) == 600
        await fleet.settled()
        assert _used(fleet) == 0
        assert fleet.app.services.body_budget.taken == 0
    assert (await post(session, fleet)).status == 200


async def test_an_estimate_from_the_length_is_corrected_by_what_is_read(
    way_in: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """While a body comes in, its length is reserved; then the same as for one that came at once."""
    fleet = await make_fleet("access: {tiers: {anonymous: {tokens_per_minute: 100000}}}")
    stopped(fleet.app)
    limiter = fleet.app.access.authenticator.limiter
    body = body_of(way_in, 100_000)
    used = []
    for at_once in (False, True):
        async with upload(fleet, way_in, body) as one:
            if not at_once:
                await until_held(fleet)
                (meter,) = [
                    each for key, each in limiter._meters.items() if "tokens_per_minute" in key
                ]
                assert 100_000 - meter.left(1000.0, 0.0) == len(body) // 4
            assert (await one.finish()).startswith(b"HTTP/1.1 200 ")
        await fleet.settled()
        used.append(100_000 - meter.left(1000.0, 0.0))
    assert 0 < used[0] < 100_000
    assert used[1] == pytest.approx(2 * used[0], abs=2)


@pytest.mark.parametrize("way_in", ["fast path", "aiohttp"], indirect=True)
async def test_a_body_that_asks_for_more_than_is_left_is_refused_once_it_is_read(
    way_in: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """As one that came at once would be; nothing of its estimate stays charged."""
    tokens = "access: {tiers: {anonymous: {tokens_per_minute: 50000}}}"
    fleet = await make_fleet(tokens, tokens_per_second=1e-3)
    stopped(fleet.app)
    body = {**GENERATE, "options": {"num_predict": 39_500}}
    running = asyncio.create_task(post(session, fleet, body))
    async with asyncio.timeout(10):
        while not fleet.app.dispatcher.leases:
            await asyncio.sleep(0.002)
    limiter = fleet.app.access.authenticator.limiter
    (meter,) = [each for key, each in limiter._meters.items() if "tokens_per_minute" in key]
    before = meter.left(1000.0, 0.0)
    assert 10_000 < before <= 10_500
    async with upload(fleet, way_in, body_of(way_in, 20_000, 20_000)) as one:
        async with asyncio.timeout(10):
            while meter.left(1000.0, 0.0) == before:
                await asyncio.sleep(0.002)
        assert meter.held == 2
        assert (await one.finish()).startswith(b"HTTP/1.1 429 ")
        assert meter.held == 1
        assert meter.left(1000.0, 0.0) == before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_caller_s_bodies_leave_room_for_others(
    way_in: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A caller over its share gets 429, others do not."""
    limits = "request_limits: {max_body_size: 300KB, max_buffered_size: 1200KB}"
    text = f"store: {{url: 'sqlite:///{tmp_path}/olla.db'}}\n"
    async with Fleet({"gpu-1": (MODEL,)}, text, server=limits) as fleet:
        keys = [await new_key(fleet, number, owner=f"o{number}") for number in (1, 2)]
        body = body_of(way_in, 250_000)
        async with upload(fleet, way_in, body, **bearer(keys[0])) as first:
            await until_held(fleet, 3 * 65536)
            async with upload(fleet, way_in, body, **bearer(keys[0])) as second:
                told = await second.answer()
                assert told.startswith(b"HTTP/1.1 429 ")
                assert b"Retry-After: 1\r\n" in told
            async with upload(fleet, way_in, body, **bearer(keys[1])) as other:
                assert (await other.finish()).startswith(b"HTTP/1.1 200 ")
            assert (await first.finish()).startswith(b"HTTP/1.1 200 ")
        await fleet.settled()
        assert fleet.app.services.body_budget.taken == 0


async def test_a_slow_upload_counts_for_all_routers(
    way_in: str, redis: RedisServer, tmp_path: Path
) -> None:
    """A place taken at one is taken at the others before the body has come; and comes back."""
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, ONE_AT_A_TIME)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with upload(routers[0], way_in, body_of(way_in)) as first:
            await until_held(routers[0], 3 * 65536)
            assert (await post(session, routers[1])).status == 429
            async with upload(routers[2], way_in, body_of(way_in)) as second:
                assert (await second.answer()).startswith(b"HTTP/1.1 429 ")
            assert (await first.finish()).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(10):
            while (await post(session, routers[1])).status != 200:
                await asyncio.sleep(0.01)
