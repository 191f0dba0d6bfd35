"""A router that is killed: what it had acknowledged is in the store, which opens clean."""

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

BATCH_INTERVAL = 1.0
"""Seconds, as documented: what was answered so long before the end is in the store."""


@pytest.mark.timeout(60)
async def test_what_was_acknowledged_before_the_last_interval_is_in_the_store(
    tmp_path: Path,
) -> None:
    """SIGKILL under load, keys made just before included."""
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
            asking = [asyncio.create_task(keep_asking(session, url, answered)) for _ in range(8)]
            while len(answered) < 400 or answered[-1][0] - answered[0][0] < 2.5 * BATCH_INTERVAL:
                await asyncio.sleep(0.01)
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        await draining
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await node.stop()
    # Writing takes its time too, on a machine that is busy with everything else.
    due = {id for at, id in answered if at < killed - 2 * BATCH_INTERVAL}
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = {row[0] for row in database.execute("SELECT request_id FROM usage")}
    database.close()
    assert due
    assert due <= kept


async def keep_asking(
    session: aiohttp.ClientSession, url: str, answered: list[tuple[float, str]]
) -> None:
    """Load, and when which request was answered."""
    body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 1}}
    while True:
        async with session.post(f"{url}/api/generate", json=body) as response:
            await response.read()
            answered.append((time.monotonic(), response.headers["X-Olla-Request-ID"]))


async def drain(stream: asyncio.StreamReader) -> None:
    """Read a log away."""
    while await stream.read(65536):
        pass
