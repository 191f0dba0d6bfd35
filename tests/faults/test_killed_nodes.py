"""Requests that wait for a model are answered at once when the node that loads it is killed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.test_client_hangs_up import port_of, request
from tests.routers import Fleet
from tests.waiting import until

MODEL = "llama3.2:latest"


@asynccontextmanager
async def slow_node() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run a node in its own process that takes minutes to load; yields its URL and the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "olla", "simulate-node", "--port", "0"),
        *("--model", MODEL, "--time-scale", "100"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        yield line.decode().split()[-1], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the next response on a connection; returns its status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:] if line)
    body = await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split(maxsplit=2)[1]), json.loads(body)


@pytest.mark.parametrize(
    ("strategy", "fallback", "status", "message"),
    [
        ("strict", "compatible_only", 502, "closed the connection"),
        ("discovery", "compatible_only", 502, "closed the connection"),
        ("optimistic", "none", 502, "closed the connection"),
        ("optimistic", "compatible_only", 502, "closed the connection"),
        ("optimistic", "all", 404, "not found"),
    ],
)
async def test_requests_waiting_for_a_load_are_answered_when_the_node_is_killed(
    strategy: str, fallback: str, status: int, message: str
) -> None:
    """They get the failure, or the response of the endpoint that they fall back to."""
    extra = (
        "routing: {queue_timeout: 10m, prewarm: false}\n"
        "model_registry:\n  routing_strategy:\n"
        f"    type: {strategy}\n    options: {{fallback_behavior: {fallback}}}\n"
    )
    async with (
        slow_node() as (url, process),
        Fleet({"b": ("mistral:latest",)}, extra, beside={"a": url}) as fleet,
    ):
        connections = [await asyncio.open_connection("127.0.0.1", port_of(fleet)) for _ in range(2)]
        for _, writer in connections:
            writer.write(request(stream=False))
        dispatcher = fleet.app.dispatcher
        await until(lambda: dispatcher.waiting == 2 and dispatcher.loads == 1)
        await until(lambda: fleet.app.pool.open > fleet.app.pool.idle)
        process.kill()
        try:
            async with asyncio.timeout(10):
                answers = await asyncio.gather(*(answer(reader) for reader, _ in connections))
        finally:
            for _, writer in connections:
                writer.close()
        assert [found for found, _ in answers] == [status, status]
        for _, body in answers:
            assert message in body["error"]
        assert dispatcher.waiting == dispatcher.leases == dispatcher.loads == 0
