"""`/v1/responses` and `/v1/messages` on a simulated node."""

from typing import Any

import aiohttp
import openai
import pytest

from olla.simulation.server import SimulatedNode
from tests.simulation.asking import ask, events

MESSAGES: dict[str, Any] = {
    "model": "llama3.2",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
}
RESPONSE: dict[str, Any] = {"model": "llama3.2", "input": "Hello"}


async def test_a_message_whole(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Content blocks, the reason for the end, usage."""
    status, answer = await ask(http, node, "/v1/messages", MESSAGES)
    assert status == 200
    assert answer["type"] == "message"
    assert answer["content"][0]["text"]
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 5


async def test_a_message_streamed(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Named events from message_start to message_stop, each with its type."""
    found = await events(http, node, "/v1/messages", MESSAGES)
    assert all(name == data["type"] for name, data in found)
    assert [name for name, _ in found] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 5,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[-2][1]["delta"]["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"model": "no"}, 404, "not_found_error"),
        ({"model": None}, 400, "invalid_request_error"),
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
    ],
)
async def test_message_errors_have_anthropics_shape(
    http: aiohttp.ClientSession,
    node: SimulatedNode,
    change: dict[str, object],
    status: int,
    kind: str,
) -> None:
    """A type by status, and a request id."""
    got, answer = await ask(http, node, "/v1/messages", {**MESSAGES, **change})
    assert got == status
    assert answer["type"] == "error"
    assert answer["error"]["type"] == kind
    assert answer["request_id"].startswith("req_")


async def test_a_response_whole(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Output items with text, and usage."""
    _, answer = await ask(http, node, "/v1/responses", RESPONSE)
    assert answer["status"] == "completed"
    assert answer["output"][0]["content"][0]["text"]
    assert answer["usage"]["output_tokens"] > 0


async def test_a_response_streamed(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Numbered events from created to completed; the pieces add up to the whole."""
    found = await events(http, node, "/v1/responses", RESPONSE)
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    assert found[0][0] == "response.created"
    assert found[-1][0] == "response.completed"
    deltas = [data["delta"] for name, data in found if name == "response.output_text.delta"]
    whole = found[-1][1]["response"]["output"][0]["content"][0]["text"]
    assert "".join(deltas) == whole


async def test_the_official_client_follows_a_response(node: SimulatedNode) -> None:
    """Its stream helper puts the events together."""
    async with (
        openai.AsyncOpenAI(base_url=node.url + "/v1", api_key="unused") as client,
        client.responses.stream(model="llama3.2", input="Hello") as stream,
    ):
        seen = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert seen[-1] == "response.completed"
    assert final.output_text
