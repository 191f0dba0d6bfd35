"""Limits and revocations hold across several routers with one shared state."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from olla.failures import Failed
from tests.access_control.conftest import MODEL, bearer, new_key
from tests.redis_server import RedisServer, redis_server
from tests.routers import Fleet
from tests.waiting import until

GENERATE = {"model": MODEL, "prompt": "hi", "stream": False, "options": {"num_predict": 1}}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Provide a real Redis server."""
    with redis_server() as running:
        yield running


async def three_routers(
    stack: AsyncExitStack, redis: RedisServer, tmp_path: Path, limits: str, timeout: str = "5s"
) -> list[Fleet]:
    """Run three routers over separate nodes, with one store and one shared state."""
    await asyncio.to_thread(redis.ask, "FLUSHALL")
    text = f"""
store: {{url: 'sqlite:///{tmp_path}/olla.db'}}
state: {{url: '{redis.url}', timeout: {timeout}}}
{limits}
"""
    return [await stack.enter_async_context(Fleet({"gpu-1": (MODEL,)}, text)) for _ in range(3)]


async def post(session: aiohttp.ClientSession, fleet: Fleet, **headers: str) -> int:
    """Send a short request; returns its response status."""
    async with session.post(
        f"{fleet.url}/api/generate", json=GENERATE, headers=headers
    ) as response:
        await response.read()
        return response.status


async def test_three_routers_together_enforce_one_limit(redis: RedisServer, tmp_path: Path) -> None:
    """Of 1,000 concurrent requests 120 pass, and one more for each 0.6 s that the test takes."""
    limits = "access: {categories: {generation: {requests_per_minute: 100, burst: 120}}}"
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, limits)
        connector = aiohttp.TCPConnector(limit=300)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        loop = asyncio.get_running_loop()
        start = loop.time()
        requests = [post(session, routers[number % 3]) for number in range(1000)]
        statuses = await asyncio.gather(*requests)
        refilled = int((loop.time() - start) / 0.6)
        assert 120 <= statuses.count(200) <= 120 + refilled
        assert statuses.count(200) + statuses.count(429) == 1000
        assert [
            each.app.access.metrics()["olla_shared_state_fallbacks_total"] for each in routers
        ] == [0, 0, 0]


async def test_a_key_revoked_at_one_router_is_rejected_by_the_others(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The others reject it as soon as they are notified, without waiting for a poll of the
    store."""
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, "access: {require_key: true}")
        session = await stack.enter_async_context(aiohttp.ClientSession())
        secret = await new_key(routers[0])
        for router in routers:
            assert await post(session, router, **bearer(secret)) == 200
        await routers[0].app.access.store_service.revoke("1")
        assert await post(session, routers[0], **bearer(secret)) == 401
        for router in routers[1:]:
            await until_rejected(session, router, secret)


async def until_rejected(session: aiohttp.ClientSession, router: Fleet, secret: str) -> None:
    """Wait until a router rejects a key."""

    async def rejected() -> bool:
        return await post(session, router, **bearer(secret)) == 401

    await until(rejected, 5)


async def test_keys_created_by_a_revoked_key_are_rejected_by_the_others(
    redis: RedisServer, tmp_path: Path
) -> None:
    """One notification is enough, since each router knows which key created which. A router that
    has not been notified does not create another key with it either."""
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, "access: {require_key: true}")
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await new_key(routers[0])
        child = await new_key(routers[1], 2, made_by="1")
        grandchild = await new_key(routers[2], 3, made_by="2")
        for router in routers:
            assert await post(session, router, **bearer(grandchild)) == 200
        await routers[0].app.access.store_service.revoke("1")
        with pytest.raises(Failed, match="cannot create keys"):
            await new_key(routers[2], 4, made_by="2")
        for secret in (child, grandchild):
            assert await post(session, routers[0], **bearer(secret)) == 401
            for router in routers[1:]:
                await until_rejected(session, router, secret)


async def test_without_the_shared_state_local_limits_apply(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Nothing is rejected because of the outage, a metric reports it, and the shared state is used
    again afterwards."""
    limits = "access: {tiers: {anonymous: {requests_per_minute: 60, burst: 5}}}"
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, limits, timeout="300ms")
        session = await stack.enter_async_context(aiohttp.ClientSession())
        assert await post(session, routers[0]) == 200
        await asyncio.to_thread(redis.stop)
        try:
            for router in routers:
                statuses = [await post(session, router) for _ in range(8)]
                assert statuses[0] == 200
                assert 429 in statuses
                numbers = router.app.access.metrics()
                assert numbers["olla_shared_state_up"] == 0
                assert numbers["olla_shared_state_fallbacks_total"] >= 1
        finally:
            await asyncio.to_thread(redis.restart)
        await until(
            lambda: all(each.app.access.metrics()["olla_shared_state_up"] for each in routers)
        )
        assert "hunter2" not in routers[0].log.getvalue()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_client_that_hangs_up_while_it_is_charged_releases_its_place(
    redis: RedisServer, tmp_path: Path, reset: bool
) -> None:
    """This holds also if the shared state answers only after the client has hung up."""
    limits = "access: {tiers: {anonymous: {concurrent: 1}}}"
    async with AsyncExitStack() as stack:
        routers = await three_routers(stack, redis, tmp_path, limits)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await asyncio.to_thread(redis.freeze)
        try:
            port = int(routers[0].url.rsplit(":", 1)[1])
            _, leaving = await asyncio.open_connection("127.0.0.1", port)
            body = json.dumps(GENERATE).encode()
            head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            leaving.write(head.encode() + body)
            await until(lambda: routers[0].app.downstream.active)
            if reset:
                sock = leaving.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.close()
            if reset:  # a client that only closed its sending side may wait for its response
                await routers[0].settled()
        finally:
            await asyncio.to_thread(redis.thaw)

        async def accepted() -> bool:
            return await post(session, routers[1]) == 200

        await until(accepted)
