"""A router is killed while it streams a response."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from olla.simulation.server import SimulatedNode
from tests.routers import node_options, settings_text
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"


@pytest.mark.timeout(60)
async def test_a_killed_router_does_not_end_a_response_cleanly(tmp_path: Path) -> None:
    """An HTTP/1.0 response ends when its connection closes; the operating system must reset it
    here."""
    node = SimulatedNode(node_options("only", (MODEL,), time_scale=1.0, load_bandwidth=1e12))
    await node.start("127.0.0.1", 0)
    config = tmp_path / "olla.yaml"
    config.write_text(settings_text({"only": node.url}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "olla", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OLLA_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            url = ""
            while not url:
                line = json.loads(await process.stdout.readline())
                url = line.get("url", "") if line.get("message") == "listening" else ""
        body = json.dumps({"model": MODEL, "prompt": "x", "options": {"num_predict": 500}})
        head = f"POST /api/generate HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        started = asyncio.Event()
        asking = asyncio.create_task(
            ended(int(url.rsplit(":")[-1]), f"{head}{body}".encode(), started.set)
        )
        await started.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        raw, clean = await asking
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await node.stop()
    assert b'"done":false' in raw
    assert b'"done":true' not in raw
    assert not clean
