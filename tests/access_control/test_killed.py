"""After a router is killed, its store is intact and has the usage that was due."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from olla.simulation.server import SimulatedNode
from tests.access_control.conftest import MODEL
from tests.routers import node_options, settings_text
from tests.waiting import until

BATCH_SECONDS = 1.0
"""The documented batch interval: usage of earlier requests is in the store."""


@pytest.mark.timeout(60)
async def test_usage_before_the_last_interval_survives_a_kill(
    tmp_path: Path,
) -> None:
    """The router gets SIGKILL under load."""
    file = tmp_path / "olla.db"
    node = SimulatedNode(node_options("gpu-1", (MODEL,)))
    await node.start("127.0.0.1", 0)
    config = tmp_path / "olla.yaml"
    text = settings_text({"gpu-1": node.url}, f"store: {{url: 'sqlite:///{file}'}}\naccess: {{}}\n")
    config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "olla", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OLLA_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    answered: list[tuple[float, str]] = []
    try:
        async with asyncio.timeout(30):
            url = ""
            while not url:
                line = json.loads(await process.stdout.readline())
                url = line.get("url", "") if line.get("message") == "listening" else ""
        draining = asyncio.create_task(drain(process.stdout))
        async with aiohttp.ClientSession() as session:
            clients = [asyncio.create_task(keep_asking(session, url, answered)) for _ in range(8)]
            span = 2.5 * BATCH_SECONDS
            await until(
                lambda: len(answered) >= 400 and answered[-1][0] - answered[0][0] >= span, 60
            )
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        await draining
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await node.stop()
    # A second interval allows for slow writes on a busy machine.
    due = {id for at, id in answered if at < killed - 2 * BATCH_SECONDS}
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {row[0] for row in database.execute("SELECT request_id FROM usage")}
    database.close()
    assert due
    assert due <= stored


async def keep_asking(
    session: aiohttp.ClientSession, url: str, answered: list[tuple[float, str]]
) -> None:
    """Send requests, and record when each was answered."""
    body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 1}}
    while True:
        async with session.post(f"{url}/api/generate", json=body) as response:
            await response.read()
            answered.append((time.monotonic(), response.headers["X-Olla-Request-ID"]))


async def drain(stream: asyncio.StreamReader) -> None:
    """Read a stream to its end."""
    while await stream.read(65536):
        pass
