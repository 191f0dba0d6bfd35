"""Endless responses on olla's internal APIs end in an error that releases the endpoint."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from olla.proxy.internal import subrequest
from tests.scripted_ollama import MODEL, over, scripted

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n"
NDJSON, JSON, EVENTS = b"application/x-ndjson", b"application/json", b"text/event-stream"
PIECE = json.dumps({"model": MODEL, "response": "x" * 1000, "done": False}).encode() + b"\n"
CHAT = {"message": "hi", "model": MODEL}
GENERATE = {"prompt": "hi", "model": MODEL}
MESSAGES = {"messages": [{"role": "user", "content": "hi"}], "model": MODEL}


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the bounds, so that tests reach them soon."""
    monkeypatch.setattr(subrequest, "RESPONSE_MAX", 300_000)
    monkeypatch.setattr(subrequest, "LINE_MAX", 100_000)


class Endless:
    """A script that writes forever, and records when the router hangs up."""

    def __init__(self, type: bytes, start: bytes, piece: bytes) -> None:
        self._start = HEAD % type + start
        self._piece = piece
        self.written = 0
        self.hung_up = asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._start)
        try:
            while True:
                writer.write(self._piece)
                self.written += len(self._piece)
                await writer.drain()
        except ConnectionError:
            self.hung_up.set()
            raise


@pytest.mark.parametrize(
    ("path", "body", "start", "piece"),
    [
        ("/chat", CHAT, b"", PIECE),
        ("/chat", CHAT, b'{"model":"m","response":"', b"x" * 1000),
        ("/olla/management/generate", GENERATE, b'{"choices":[{"text":"', b"x" * 1000),
        ("/olla/management/chat", MESSAGES, b'{"choices":[', b"{}," * 300),
    ],
)
async def test_an_endless_response_is_502_and_releases_the_endpoint(
    path: str, body: dict[str, Any], start: bytes, piece: bytes
) -> None:
    """The error has the API's dialect, whether the response has endless lines or one endless
    line."""
    endless = Endless(JSON, start, piece)
    async with scripted(endless) as (app, _), aiohttp.ClientSession() as session:
        async with session.post(app.url + path, json=body) as response:
            assert response.status == 502, await response.text()
            error = (await response.json())["error"]
            assert "more than 0.3 MB" in error["message"]
            if path == "/chat":
                assert error["code"] == "answer_too_large"
        async with asyncio.timeout(10):
            await endless.hung_up.wait()
        assert app.dispatcher.leases == 0
        view = app.prober.snapshot.by_name["only"]
        assert view.routable


async def test_an_endless_error_response_is_502() -> None:
    """An endpoint's error is bounded like any other response."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b"200 OK", b"400 Bad") % JSON + b'{"error":"')
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    async with scripted(script) as (app, _), aiohttp.ClientSession() as session:
        for path, body in (("/chat", CHAT), ("/chat/stream", CHAT)):
            async with session.post(app.url + path, json=body) as response:
                assert response.status == 502
                assert (await response.json())["error"]["code"] == "answer_too_large"


async def test_an_endless_line_ends_a_stream_with_an_error() -> None:
    """The lines before it are forwarded, and clients see that the stream broke."""
    endless = Endless(NDJSON, PIECE, b"x" * 1000)
    async with scripted(endless) as (app, _), aiohttp.ClientSession() as session:
        async with session.post(f"{app.url}/chat/stream", json=CHAT) as response:
            first, last = await response.content.readline(), await response.content.readline()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert json.loads(first)["response"] == "x" * 1000
        assert json.loads(last)["error"]["code"] == "answer_too_large"
        async with asyncio.timeout(10):
            await endless.hung_up.wait()
        assert app.dispatcher.leases == 0


async def test_an_endless_stream_is_forwarded_as_long_as_it_is_read() -> None:
    """The bound applies to buffered responses, not to forwarded streams."""
    endless = Endless(NDJSON, b"", PIECE)
    async with scripted(endless) as (app, _), aiohttp.ClientSession() as session:
        async with session.post(f"{app.url}/chat/stream", json=CHAT) as response:
            lines = 0
            async for _line in response.content:
                lines += 1
                if lines * len(PIECE) > 3 * subrequest.RESPONSE_MAX:
                    break
        async with asyncio.timeout(10):
            await endless.hung_up.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"choices":[{"message":{"content":"yes","odd":[[],[[]]]},"finish_reason":5}],"id":[1]}',
        b'{"choices":[{"message":{"content":"yes"}}],"usage":{"prompt_tokens":"3"},"created":"x"}',
    ],
)
async def test_response_fields_of_a_wrong_type_are_ignored(answer: bytes) -> None:
    """They get the same defaults as missing fields."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(over(200, answer.decode()))

    async with scripted(script) as (app, _), aiohttp.ClientSession() as session:
        response = await session.post(f"{app.url}/olla/management/chat", json=MESSAGES)
        assert response.status == 200, await response.text()
        body = await response.json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "yes"
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert isinstance(body["id"], str)
    assert isinstance(body["created"], int)
    assert body["usage"]["prompt_tokens"] == 0
