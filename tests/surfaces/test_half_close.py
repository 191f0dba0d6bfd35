"""What olla answers itself reaches a client that has closed its side: `printf … | nc -N`."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.routers import Fleet
from tests.surfaces.test_endings import STREAMS, port_of, request, store
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
TIMES = 20
PATHS = (
    *("/internal/health", "/internal/ready", "/internal/status", "/metrics", "/version"),
    *("/", "/api/version", "/api/tags", "/api/ps", "/v1/models", "/olla/models", "/nothing"),
    "*",
)


async def test_every_answer_of_its_own_comes_every_time() -> None:
    """Whole, and with the status that it has otherwise."""
    async with Fleet({"only": (MODEL,)}) as fleet:
        for path in PATHS:
            method = "OPTIONS" if path == "*" else "GET"
            for version in ("1.0", "1.1"):
                raw = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
                statuses = set()
                for _ in range(TIMES):
                    got, clean = await ended(port_of(fleet), raw, half_close=True)
                    assert clean, path
                    head, _, body = got.partition(b"\r\n\r\n")
                    assert f"Content-Length: {len(body)}" in head.decode() or b" 204 " in head
                    statuses.add(int(head.split()[1]))
                assert statuses == {204 if path == "*" else 404 if path == "/nothing" else 200}
        await fleet.check_clean()


BAD = {path: {"model": 5} for path in STREAMS}


@pytest.mark.parametrize("path", list(STREAMS))
async def test_a_surface_that_asks_the_fleet_refuses_and_asks_nothing(
    tmp_path: Path, path: str
) -> None:
    """What is wrong with the request is told; what would take an endpoint is not begun."""
    unlimited = "access: {tiers: {anonymous: {requests_per_minute: 1000}}}\n"
    async with Fleet({"only": (MODEL,)}, store(tmp_path) + unlimited) as fleet:
        bad = json.dumps(BAD[path]).encode()
        start = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(bad)}"
        head = f"{start}\r\n\r\n".encode()
        asked = len([seen for seen in fleet.nodes["only"].seen if seen.method == "POST"])
        for _ in range(TIMES):
            got, clean = await ended(port_of(fleet), head + bad, half_close=True)
            assert clean
            assert int(got.split()[1]) in (400, 422)
            got, clean = await ended(port_of(fleet), request(path, "1.1"), half_close=True)
            assert clean
            assert int(got.split()[1]) == 499
            assert b"closed its side" in got
        async with asyncio.timeout(5):
            while fleet.app.dispatcher.leases or fleet.app.dispatcher.waiting:
                await asyncio.sleep(0.001)
        assert fleet.nodes["only"].executor.running == 0
        done = [seen for seen in fleet.nodes["only"].seen if seen.method == "POST"][asked:]
        assert len(done) <= 1  # the model's load, which is olla's own
        await fleet.check_clean()
