"""A client that hangs up frees the node's slot, in whichever state its request is."""

import asyncio
import json

import pytest

from tests.routers import MANAGE, Fleet
from tests.waiting import until

MODEL = "llama3.2:latest"


def request(stream: bool) -> bytes:
    """Build a generate request."""
    body = json.dumps({"model": MODEL, "prompt": "a long story", "stream": stream}).encode()
    return b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])
async def test_hanging_up_stops_generation_within_a_second(stream: bool) -> None:
    """The node's slot is free again, and no lease or connection leaks."""
    async with Fleet({"only": (MODEL,)}, time_scale=0.2, load_bandwidth=1e12) as fleet:
        node = fleet.nodes["only"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(request(stream))
        await until(lambda: node.executor.running == 1)
        if stream:
            await reader.readuntil(b"\r\n\r\n")
        assert fleet.app.dispatcher.leases == 1
        writer.close()
        took = await until(lambda: node.executor.running == 0)
        assert took < 1.0
        assert node.executor.cancelled == 1
        await until(lambda: fleet.app.dispatcher.leases == 0)
        await until(lambda: fleet.app.pool.open == 0)
        await fleet.check_clean()


async def test_hanging_up_during_a_load_frees_the_queue_place_and_keeps_the_load() -> None:
    """olla owns the load: an impatient client cannot keep a model cold forever."""
    async with Fleet({"only": (MODEL,)}, time_scale=1.0, load_bandwidth=4e9) as fleet:
        node = fleet.nodes["only"].executor.node
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(request(True))
        await until(lambda: node.loading is not None)
        assert fleet.app.dispatcher.waiting == 1
        writer.close()
        await until(lambda: fleet.app.dispatcher.waiting == 0)
        assert node.loading is not None
        await until(lambda: node.loads == 1 and fleet.app.dispatcher.loads == 0)
        assert node.loads_aborted == 0
        await fleet.check_clean()


async def test_a_load_without_clients_is_canceled_after_the_grace_period() -> None:
    """After `routing.load_grace` olla closes the connection and the node aborts the load. The next
    client's request starts a new one."""
    extra = "routing: {load_grace: 2s}\n"
    async with Fleet({"only": (MODEL,)}, extra, time_scale=1.0, load_bandwidth=1e6) as fleet:
        node, dispatcher = fleet.nodes["only"].executor.node, fleet.app.dispatcher
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(request(True))
        await until(lambda: node.loading is not None)
        writer.close()
        await until(lambda: dispatcher.waiting == 0)
        assert dispatcher.loads == 1
        await until(lambda: node.loads_aborted == 1, seconds=15)
        assert node.loading is None
        assert dispatcher.loads == 0
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(request(True))
        await until(lambda: node.loading is not None and dispatcher.loads == 1)
        writer.close()
        await until(lambda: dispatcher.waiting == 0)
        await fleet.check_clean()


async def test_many_clients_that_hang_up_leak_nothing() -> None:
    """After a hundred clients hang up at different points, no lease or connection is left."""
    async with Fleet({"only": (MODEL,)}, time_scale=0.02, num_parallel=8) as fleet:
        node = fleet.nodes["only"]

        async def leave_after(count: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
            writer.write(request(True))
            if count:
                await reader.read(count * 40)
            writer.close()

        await asyncio.gather(*(leave_after(number % 10) for number in range(100)))
        await until(lambda: node.executor.running == 0 and fleet.app.dispatcher.leases == 0)
        await until(lambda: fleet.app.pool.open == fleet.app.pool.idle)
        assert fleet.app.downstream.active == 0
        await fleet.check_clean()


async def test_a_client_that_hangs_up_is_not_an_endpoint_failure() -> None:
    """Impatient clients do not open the endpoint's breaker."""
    async with Fleet({"only": (MODEL,)}, time_scale=0.2, load_bandwidth=1e12) as fleet:
        node = fleet.nodes["only"]
        for _ in range(8):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
            writer.write(request(False))
            await until(lambda: node.executor.running == 1)
            writer.close()
            await until(lambda: node.executor.running == 0)
        view = fleet.app.prober.snapshot.by_name["only"]
        assert view.routable
        assert view.breaker.value == "closed"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        b"POST /api/blobs/sha256:%b HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        % (b"0" * 64),
        b"POST /api/gene",
    ],
    ids=["body with a length", "body in chunks", "blob", "head"],
)
async def test_hanging_up_within_a_request_leaks_nothing(head: bytes) -> None:
    """A partial request is never forwarded as a whole one, and does not count as a router error."""
    async with Fleet({"only": (MODEL,)}, MANAGE) as fleet:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(head + b"half")
        await until(lambda: fleet.app.downstream.connections == 1)
        # A partial head has no visible effect to wait for: give the router time to read it.
        await asyncio.sleep(0.02)
        writer.close()
        await until(lambda: fleet.app.downstream.connections == 0)
        await until(lambda: fleet.app.pool.open == 0)
        assert fleet.app.downstream.active == 0
        assert fleet.nodes["only"].storage.blobs == type(fleet.nodes["only"].storage.blobs)()
        assert not any(seen.target == "/api/generate" for seen in fleet.nodes["only"].seen)
        await fleet.check_clean()


def port_of(fleet: Fleet) -> int:
    """Return the router's port."""
    return int(fleet.url.rsplit(":", 1)[1])
