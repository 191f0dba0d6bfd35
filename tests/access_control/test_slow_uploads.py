"""A caller's limits apply before its request bodies are read, on every request path."""

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
from tests.waiting import until

__all__ = ["redis"]

ONE_AT_A_TIME = "access: {tiers: {anonymous: {concurrent: 1}, standard: {concurrent: 1}}}"
PATHS = {
    "fast path": "/api/generate",
    "aiohttp": "/api/generate",
    "internal API": "/chat",
}


@pytest.fixture(params=list(PATHS))
def upload_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose how requests are read; returns the path to send them to."""
    fast = "auto" if request.param == "fast path" else "off"
    monkeypatch.setenv("OLLA_TEST_FAST_PATH", fast)
    return str(PATHS[request.param])


def body_of(path: str, size: int = 200_000, output: int = 1) -> bytes:
    """Build a long request for a short response."""
    if path == "/chat":
        return json.dumps({"model": MODEL, "message": "x" * size}).encode()
    options = {"num_predict": output}
    whole = {"model": MODEL, "stream": False, "prompt": "x" * size, "options": options}
    return json.dumps(whole).encode()


class Upload:
    """A request whose body stops before its last byte, until `finish`."""

    def __init__(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._last = body[-1:]
        self._reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """Read the head of the response."""
        async with asyncio.timeout(10):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def finish(self) -> bytes:
        """Send the last byte; returns the head of the response."""
        self.writer.write(self._last)
        return await self.answer()


@asynccontextmanager
async def upload(fleet: Fleet, path: str, body: bytes, **headers: str) -> AsyncIterator[Upload]:
    """Send all but the last byte of a request."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    port = int(fleet.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body[:-1])
    try:
        yield Upload(body, reader, writer)
    finally:
        writer.close()


async def until_budgeted(fleet: Fleet, least: int = 65536) -> None:
    """Wait until request bodies take at least `least` bytes of the budget."""
    await until(lambda: fleet.app.services.body_budget.taken >= least)


async def test_a_concurrency_limit_applies_before_the_body_is_read(
    upload_path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The second upload is rejected before its body is read, and its client reads why. The place is
    free again once the first is answered."""
    fleet = await make_fleet(ONE_AT_A_TIME)
    body = body_of(upload_path)
    async with upload(fleet, upload_path, body) as first:
        await until_budgeted(fleet, 3 * 65536)
        async with upload(fleet, upload_path, body) as second:
            head = await second.answer()
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"X-RateLimit-Limit: 1\r\n" in head
        assert fleet.app.services.body_budget.taken == 3 * 65536
        assert (await first.finish()).startswith(b"HTTP/1.1 200 ")
    await fleet.settled()
    assert (await post(session, fleet)).status == 200
    assert fleet.app.services.body_budget.taken == 0
    await fleet.check_clean()


async def test_hanging_up_within_a_body_releases_everything(
    upload_path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The place, the tokens and the memory are released once."""
    fleet = await make_fleet(
        "access: {tiers: {anonymous: {concurrent: 1, tokens_per_minute: 600}}}"
    )
    stopped(fleet.app)
    for _ in range(3):
        async with upload(fleet, upload_path, body_of(upload_path)):
            await until_budgeted(fleet)
            assert _used(fleet) == 600
        await fleet.settled()
        assert _used(fleet) == 0
        assert fleet.app.services.body_budget.taken == 0
    assert (await post(session, fleet)).status == 200


async def test_a_token_estimate_from_the_length_is_corrected_after_the_body(
    upload_path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """While a body is read, the estimate from its length is reserved; afterwards the charge is the
    same as for a body that arrived at once."""
    fleet = await make_fleet("access: {tiers: {anonymous: {tokens_per_minute: 100000}}}")
    stopped(fleet.app)
    limiter = fleet.app.access.authenticator.limiter
    body = body_of(upload_path, 100_000)
    used = []
    for at_once in (False, True):
        async with upload(fleet, upload_path, body) as one:
            if not at_once:
                await until_budgeted(fleet)
                (meter,) = [
                    each for key, each in limiter._meters.items() if "tokens_per_minute" in key
                ]
                assert 100_000 - meter.left(1000.0, 0.0) == len(body) // 4
            assert (await one.finish()).startswith(b"HTTP/1.1 200 ")
        await fleet.settled()
        used.append(100_000 - meter.left(1000.0, 0.0))
    assert 0 < used[0] < 100_000
    assert used[1] == pytest.approx(2 * used[0], abs=2)


@pytest.mark.parametrize("upload_path", ["fast path", "aiohttp"], indirect=True)
async def test_a_body_over_the_remaining_quota_is_rejected_once_it_is_read(
    upload_path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It is treated like a body that arrived at once, and its estimate is refunded."""
    tokens = "access: {tiers: {anonymous: {tokens_per_minute: 50000}}}"
    fleet = await make_fleet(tokens, tokens_per_second=1e-3)
    stopped(fleet.app)
    body = {**GENERATE, "options": {"num_predict": 39_500}}
    running = asyncio.create_task(post(session, fleet, body))
    await until(lambda: fleet.app.dispatcher.leases)
    limiter = fleet.app.access.authenticator.limiter
    (meter,) = [each for key, each in limiter._meters.items() if "tokens_per_minute" in key]
    before = meter.left(1000.0, 0.0)
    assert 10_000 < before <= 10_500
    async with upload(fleet, upload_path, body_of(upload_path, 20_000, 20_000)) as one:
        await until(lambda: meter.left(1000.0, 0.0) != before)
        assert meter.held == 2
        assert (await one.finish()).startswith(b"HTTP/1.1 429 ")
        assert meter.held == 1
        assert meter.left(1000.0, 0.0) == before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_callers_bodies_leave_memory_for_others(
    upload_path: str, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A caller over its share of the body budget gets 429; others are served."""
    limits = "request_limits: {max_body_size: 300KB, max_buffered_size: 1200KB}"
    text = f"store: {{url: 'sqlite:///{tmp_path}/olla.db'}}\n"
    async with Fleet({"gpu-1": (MODEL,)}, text, server=limits) as fleet:
        keys = [await new_key(fleet, number, owner=f"o{number}") for number in (1, 2)]
        body = body_of(upload_path, 250_000)
        async with upload(fleet, upload_path, body, **bearer(keys[0])) as first:
            await until_budgeted(fleet, 3 * 65536)
            async with upload(fleet, upload_path, body, **bearer(keys[0])) as second:
                head = await second.answer()
                assert head.startswith(b"HTTP/1.1 429 ")
                assert b"Retry-After: 1\r\n" in head
            async with upload(fleet, upload_path, body, **bearer(keys[1])) as other:
                assert (await other.finish()).startswith(b"HTTP/1.1 200 ")
            assert (await first.finish()).startswith(b"HTTP/1.1 200 ")
        await fleet.settled()
        assert fleet.app.services.body_budget.taken == 0


async def test_a_slow_upload_counts_for_all_routers(
    upload_path: str, redis: RedisServer, tmp_path: Path
) -> None:
    """A place taken at one router counts at the others before the body has been read, and is
    released afterwards."""
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, ONE_AT_A_TIME)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with upload(routers[0], upload_path, body_of(upload_path)) as first:
            await until_budgeted(routers[0], 3 * 65536)
            assert (await post(session, routers[1])).status == 429
            async with upload(routers[2], upload_path, body_of(upload_path)) as second:
                assert (await second.answer()).startswith(b"HTTP/1.1 429 ")
            assert (await first.finish()).startswith(b"HTTP/1.1 200 ")

        async def accepted() -> bool:
            return (await post(session, routers[1])).status == 200

        await until(accepted)
