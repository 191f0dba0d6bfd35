"""SIGTERM: not ready, nothing new, what runs comes to its end or is told that it does not."""

import asyncio
import json

import aiohttp
import pytest

from olla.failures import Failure, Kind
from tests.routers import Fleet
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
WORDS = [{"role": "user", "content": "hello"}]
REQUEST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"


def request(path: bytes, count: int = 30) -> bytes:
    """A stream of so many words."""
    body = {"model": MODEL, "prompt": "x", "options": {"num_predict": count}}
    if path.startswith(b"/v1"):
        body = {"model": MODEL, "messages": WORDS, "stream": True, "max_tokens": count}
    raw = json.dumps(body).encode()
    return REQUEST % (path, len(raw), raw)


async def test_while_draining_it_is_not_ready_and_takes_nothing_new() -> None:
    """On connections that stand, a load balancer is told 503, and so is a request, in its dialect;
    one that was coming in may be answered; new connections are refused; the stream ends well."""
    async with Fleet({"a": (MODEL,)}, time_scale=0.2, load_bandwidth=1e12) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"/api/generate", 60))
        await reader.readuntil(b"\r\n\r\n")
        asked = []
        for raw in (
            request(b"/api/generate"),
            request(b"/v1/chat/completions"),
        ):
            busy = await asyncio.open_connection("127.0.0.1", port)
            busy[1].write(raw[:-1])
            asked.append((busy, raw[-1:]))
        async with asyncio.timeout(5):
            while fleet.app.downstream.connections < 3:
                await asyncio.sleep(0.002)
        idle = await asyncio.open_connection("127.0.0.1", port)
        idle[1].write(b"GET /internal/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0].readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        fresh = await asyncio.open_connection("127.0.0.1", port)
        stopping = asyncio.create_task(fleet.app.stop())
        await asyncio.sleep(0.01)
        idle[1].write(b"GET /internal/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0].readuntil(b"}")).startswith(b"HTTP/1.1 503 ")
        new = [(idle, request(b"/api/generate")), (fresh, request(b"/v1/chat/completions"))]
        for (its_reader, its_writer), last in new:
            its_writer.write(last)
            answer = await its_reader.read()
            its_writer.close()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1" in answer
        with_error = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert "shutting down" in with_error["error"]["message"]
        for (_, its_writer), last in asked:
            its_writer.write(last)
        for (its_reader, its_writer), _ in asked:
            answer = await its_reader.read()
            its_writer.close()
            if not answer.startswith(b"HTTP/1.1 503 "):
                assert b'"done":true' in answer or b"[DONE]" in answer
        async with aiohttp.ClientSession() as session:
            try:
                await session.get(f"{fleet.url}/internal/health")
                raise AssertionError("a new connection was taken")
            except aiohttp.ClientConnectorError:
                pass
        rest = await reader.read()
        assert b'"done":true' in rest
        assert rest.endswith(b"0\r\n\r\n")
        writer.close()
        await stopping
        assert fleet.app.dispatcher.leases == 0


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_who_waits_when_the_time_is_up_is_told(version: bytes) -> None:
    """A stream gets the in-band error and no end, one that waits in the queue 503: in its own
    dialect."""
    slow = {"tokens_per_second": 10.0, "time_scale": 1.0, "load_bandwidth": 1e12}
    async with Fleet({"a": (MODEL,)}, **slow) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        begun = asyncio.Event()
        raw = request(b"/v1/chat/completions", 1000).replace(b"HTTP/1.1", b"HTTP/" + version)
        streaming = asyncio.create_task(ended(port, raw, begun.set))
        await begun.wait()
        waiting = await asyncio.open_connection("127.0.0.1", port)
        waiting[1].write(request(b"/api/generate"))
        async with asyncio.timeout(5):
            while fleet.app.dispatcher.leases + fleet.app.dispatcher.waiting < 2:
                await asyncio.sleep(0.005)
        stopping = asyncio.create_task(fleet.app.stop())
        (cut, clean), refused = await asyncio.gather(streaming, waiting[0].read())
        assert b'data: {"error":' in cut
        assert b"shutting down" in cut
        assert not cut.endswith(b"0\r\n\r\n")
        assert clean is (version == b"1.1")
        assert refused.startswith(b"HTTP/1.1 503 ")
        waiting[1].close()
        await stopping
        assert fleet.app.dispatcher.leases == fleet.app.dispatcher.waiting == 0


async def test_a_request_whose_body_was_coming_in_reaches_no_node_afterwards() -> None:
    """It was told that the router shuts down; what still comes of it goes nowhere."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        raw = request(b"/api/generate")
        # In chunks, so that aiohttp reads it and the exchange has begun before its body is here.
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = raw.partition(b"\r\n\r\n")[2]
        writer.write(head + b"%x\r\n%b" % (len(body), body[:-1]))
        async with asyncio.timeout(5):
            while not fleet.app.downstream.active:
                await asyncio.sleep(0.002)
        (exchange,) = fleet.app.downstream._exchanges
        exchange.stop(Failure(Kind.DRAINING, "the router is shutting down", retry_after=1.0))
        writer.write(body[-1:] + b"\r\n0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await fleet.settled()
        assert not [seen for seen in fleet.nodes["a"].seen if seen.target == "/api/generate"]
        await fleet.check_clean()
