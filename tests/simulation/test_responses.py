"""How a simulated node reads bodies and writes times and streams."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from olla.simulation.responses import rfc3339
from tests.simulation.asking import ask


@pytest.mark.parametrize("unix", [0.0, 1_700_000_000.25, 1e18, float("inf")])
def test_times_are_rfc_3339(unix: float) -> None:
    """With an offset, and never beyond the calendar."""
    written = rfc3339(unix)
    assert written.endswith("Z")
    assert datetime.fromisoformat(written).tzinfo is not None


async def test_no_head_before_the_first_record(
    http: aiohttp.ClientSession, start: Callable[..., Any]
) -> None:
    """A stream that fails before its first record has a status of its own."""
    node = await start()
    body = {"model": "llama3.2", "prompt": "x", "keep_alive": "soon"}
    status, answer = await ask(http, node, "/api/generate", body)
    assert status == 400
    assert "soon" in answer["error"]


async def test_each_record_is_sent_when_it_is_there(
    http: aiohttp.ClientSession, start: Callable[..., Any]
) -> None:
    """The first record arrives while the last ones are still to be said."""
    node = await start(time_scale=0.02, tokens_per_second=1.0)
    async with http.post(
        node.url + "/api/generate", json={"model": "llama3.2", "prompt": "x"}
    ) as answer:
        assert await answer.content.readline()
        assert node.generations_running == 1
