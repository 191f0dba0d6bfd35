"""On SIGTERM the router reports not ready, rejects new requests and drains running ones."""

import asyncio
import json

import aiohttp
import pytest

from olla.failures import Failure, Kind
from tests.routers import Fleet
from tests.waiting import until
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
MESSAGES = [{"role": "user", "content": "hello"}]
REQUEST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"


def request(path: bytes, count: int = 30) -> bytes:
    """Build a streaming request for `count` tokens."""
    body = {"model": MODEL, "prompt": "x", "options": {"num_predict": count}}
    if path.startswith(b"/v1"):
        body = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": count}
    raw = json.dumps(body).encode()
    return REQUEST % (path, len(raw), raw)


async def test_a_draining_router_is_not_ready_and_rejects_new_requests() -> None:
    """On open connections, readiness probes and new requests get 503 in their dialect. A request
    that is being read may be answered. New connections are refused, and the running stream ends."""
    async with Fleet({"a": (MODEL,)}, time_scale=0.2, load_bandwidth=1e12) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"/api/generate", 60))
        await reader.readuntil(b"\r\n\r\n")
        partial = []
        for raw in (
            request(b"/api/generate"),
            request(b"/v1/chat/completions"),
        ):
            busy = await asyncio.open_connection("127.0.0.1", port)
            busy[1].write(raw[:-1])
            partial.append((busy, raw[-1:]))
        await until(lambda: fleet.app.downstream.connections >= 3)
        idle = await asyncio.open_connection("127.0.0.1", port)
        idle[1].write(b"GET /internal/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0].readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        fresh = await asyncio.open_connection("127.0.0.1", port)
        stopping = asyncio.create_task(fleet.app.stop())
        await until(lambda: fleet.app.downstream.draining)
        idle[1].write(b"GET /internal/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0].readuntil(b"}")).startswith(b"HTTP/1.1 503 ")
        new = [(idle, request(b"/api/generate")), (fresh, request(b"/v1/chat/completions"))]
        for (other_reader, other_writer), last in new:
            other_writer.write(last)
            answer = await other_reader.read()
            other_writer.close()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1" in answer
        with_error = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert "shutting down" in with_error["error"]["message"]
        for (_, other_writer), last in partial:
            other_writer.write(last)
        for (other_reader, other_writer), _ in partial:
            answer = await other_reader.read()
            other_writer.close()
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
async def test_requests_left_after_the_drain_get_an_error(version: bytes) -> None:
    """A stream gets an in-band error and no clean end; a queued request gets 503 in its dialect."""
    slow = {"tokens_per_second": 10.0, "time_scale": 1.0, "load_bandwidth": 1e12}
    async with Fleet({"a": (MODEL,)}, **slow) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        started = asyncio.Event()
        raw = request(b"/v1/chat/completions", 1000).replace(b"HTTP/1.1", b"HTTP/" + version)
        streaming = asyncio.create_task(ended(port, raw, started.set))
        await started.wait()
        waiting = await asyncio.open_connection("127.0.0.1", port)
        waiting[1].write(request(b"/api/generate"))
        await until(lambda: fleet.app.dispatcher.leases + fleet.app.dispatcher.waiting >= 2)
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


async def test_a_request_that_was_being_read_is_not_forwarded_after_the_drain() -> None:
    """It was answered with 503; the rest of its body is discarded."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        raw = request(b"/api/generate")
        # Chunked, so that aiohttp reads it and the exchange begins before the body has been read.
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = raw.partition(b"\r\n\r\n")[2]
        writer.write(head + b"%x\r\n%b" % (len(body), body[:-1]))
        await until(lambda: fleet.app.downstream.active)
        (exchange,) = fleet.app.downstream._exchanges
        exchange.stop(Failure(Kind.DRAINING, "the router is shutting down", retry_after=1.0))
        writer.write(body[-1:] + b"\r\n0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await fleet.settled()
        assert not [seen for seen in fleet.nodes["a"].seen if seen.target == "/api/generate"]
        await fleet.check_clean()
