"""A client hangs up while its request is queued, retried or uploaded."""

import asyncio
import json

from olla.simulation.faults import Fault
from tests.faults.test_client_hangs_up import port_of
from tests.routers import MANAGE, Fleet
from tests.waiting import until

MODEL = "llama3.2:latest"


def request(path: str = "/api/generate", **more: object) -> bytes:
    """Build a request."""
    raw = json.dumps({"model": MODEL, "prompt": "x", **more}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


async def test_hanging_up_in_the_queue_frees_the_place_at_once() -> None:
    """The node never receives the queued request."""
    async with Fleet({"only": (MODEL,)}, time_scale=1.0, load_bandwidth=1e12) as fleet:
        node = fleet.nodes["only"]
        _, first = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        first.write(request())
        await until(lambda: node.executor.running == 1)
        others = [await asyncio.open_connection("127.0.0.1", port_of(fleet)) for _ in range(10)]
        for _, writer in others:
            writer.write(request())
        await until(lambda: fleet.app.dispatcher.waiting >= 9)
        for _, writer in others:
            writer.close()
        took = await until(lambda: fleet.app.dispatcher.waiting == 0)
        assert took < 1.0
        first.close()
        await until(lambda: fleet.app.dispatcher.leases == 0)
        received = [each for each in node.seen if each.target == "/api/generate"]
        assert len(received) <= 3  # the load, the first, and one that probed for a second slot
        await fleet.check_clean()


async def test_hanging_up_during_a_retry_closes_the_second_connection() -> None:
    """The first node has failed, and the second is working on the request when the client hangs
    up."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    extra = "proxy: {load_balancer: priority}\n"
    async with Fleet(nodes, extra, time_scale=0.5, load_bandwidth=1e12) as fleet:
        for node in fleet.nodes.values():
            node.faults.set("status", Fault(status=500, count=1))
        fleet.nodes["b"].faults.clear()
        fleet.nodes["b"].faults.set("slow", Fault(seconds=60.0))
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        writer.write(request(stream=False))
        twins = fleet.app.dispatcher.twins
        await until(lambda: twins.on("b") == 1 or twins.on("a") == 1)
        await until(lambda: fleet.app.dispatcher.retries.made == 1 or twins.on("b") == 1)
        writer.close()
        await until(lambda: fleet.app.dispatcher.leases == 0)
        await until(lambda: fleet.app.pool.open == fleet.app.pool.idle)
        assert fleet.app.downstream.active == 0
        await fleet.check_clean()


async def test_hanging_up_within_a_blob_upload_stores_no_blob() -> None:
    """The node does not accept a part as the whole blob, and its connection is closed."""
    async with Fleet({"only": (MODEL,)}, MANAGE) as fleet:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(fleet))
        head = "POST /api/blobs/sha256:{} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
        writer.write(head.format("0" * 64).encode() + b"x" * 1_000_000)
        await until(lambda: fleet.app.pool.open == 1)
        writer.close()
        await until(lambda: fleet.app.pool.open == 0)
        await until(lambda: fleet.app.downstream.active == 0)
        assert not fleet.nodes["only"].storage.blobs
        await fleet.check_clean()
