"""The chat service's answers: as they come, as they break off, as clients leave them."""

import asyncio
import gc
import io
import json
from typing import Any

import aiohttp
import pytest

from olla.proxy.exchange.exchange import Exchange
from olla.simulation.faults import Fault
from tests.routers import Fleet
from tests.scripted_ollama import MODEL, over, scripted

MESSAGE = {"message": "What is machine learning?", "model": MODEL}
NODES = {"gpu-1": (MODEL,)}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PATHS = ("/chat", "/chat/stream")


def chunk(data: bytes) -> bytes:
    """A chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def line(response: str, done: bool = False) -> bytes:
    """A line of Ollama's, with more than is told."""
    value = {"model": MODEL, "created_at": "now", "response": response, "done": done, "context": []}
    return json.dumps(value).encode() + b"\n"


async def post(url: str, body: object = MESSAGE) -> tuple[int, Any, Any]:
    """Status, headers and JSON of a POST."""
    async with aiohttp.ClientSession() as client, client.post(url, json=body) as response:
        return response.status, response.headers, await response.json()


async def ask(
    url: str, path: str = "/chat/stream", version: str = "1.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The connection on which an answer comes."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(MESSAGE)
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    return reader, writer


async def raw(url: str, path: str = "/chat/stream", version: str = "1.1") -> bytes:
    """All that comes until the router closes the connection, which it is asked to keep."""
    reader, writer = await ask(url, path, version)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_fleet_is_asked_and_less_is_told() -> None:
    """The prompt goes to Ollama's generate; model, text and end come back."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(over(200, line("Machine learning is...", True).decode()))

    async with scripted(script) as (app, node):
        status, headers, answer = await post(app.url + "/chat", {**MESSAGE, "colour": "red"})
    assert status == 200
    assert answer == {
        "user": "anonymous",
        "tier": "anonymous",
        "response": {"model": MODEL, "response": "Machine learning is...", "done": True},
    }
    assert headers["X-Olla-Endpoint"] == "only"
    assert headers["X-RateLimit-Limit"] == "10"
    assert node.asked == [{"model": MODEL, "prompt": MESSAGE["message"], "stream": False}]


@pytest.mark.parametrize(
    "text", ["\\ud83d", "caf\\u00e9 \\n" * 300_000], ids=["half a pair", "long"]
)
async def test_a_message_is_passed_on_as_it_was_written(text: str) -> None:
    """Byte for byte: no text is made of it on its way."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(over(200, line("Hello", True).decode()))

    body = f'{{"model":"{MODEL}","x":[1.50],"message":"{text}"}}'
    async with (
        scripted(script) as (app, node),
        aiohttp.ClientSession() as client,
        client.post(app.url + "/chat", data=io.BytesIO(body.encode())) as response,
    ):
        assert response.status == 200
    assert node.asked == [{"model": MODEL, "prompt": json.loads(f'"{text}"'), "stream": False}]


@pytest.mark.parametrize("path", PATHS)
async def test_a_message_over_the_limit_is_413(path: str) -> None:
    """By its length alone: nothing of it is read."""
    async with Fleet(NODES) as fleet:
        host, _, port = fleet.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {16 * 1024 * 1024 + 1}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_line_is_passed_on_before_the_next_has_come() -> None:
    """However the endpoint's chunks are cut, a line comes when it is whole."""
    go_on = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        first, second = line("Hello"), line("!")
        writer.write(STREAM_HEAD + chunk(first + second[:10]))
        await go_on.wait()
        writer.write(chunk(second[10:] + line("", True)) + b"0\r\n\r\n")

    async with (
        scripted(script) as (app, _),
        aiohttp.ClientSession() as client,
        client.post(app.url + "/chat/stream", json=MESSAGE) as response,
    ):
        assert response.headers["Content-Type"] == "application/x-ndjson"
        assert response.headers["X-Olla-Model"] == MODEL
        assert response.headers["X-RateLimit-Remaining"] == "9"
        lines = [await response.content.readline()]
        go_on.set()
        lines += [each async for each in response.content]
    assert lines == [
        b'{"model":"smollm:latest","response":"Hello","done":false}\n',
        b'{"model":"smollm:latest","response":"!","done":false}\n',
        b'{"model":"smollm:latest","response":"","done":true}\n',
    ]


@pytest.mark.parametrize("end", [None, b"0\r\n\r\n", b"zz\r\n"], ids=["reset", "end", "framing"])
async def test_a_stream_that_breaks_ends_with_an_error_and_no_end(end: bytes | None) -> None:
    """Its last line says why, and the last chunk is missing: from its first line on, nothing else
    can be done."""
    begun = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(line("Hello")))
        await begun.wait()
        if end is None:
            writer.transport.abort()
        else:
            writer.write(end)

    async with scripted(script) as (app, _):
        reader, writer = await ask(app.url)
        answer = await reader.readuntil(b'"Hello","done":false}\n')
        begun.set()
        answer += await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert not answer.endswith(b"0\r\n\r\n")
        last = json.loads(answer.rstrip().rsplit(b"\r\n", 1)[-1])
        assert last["error"]["details"] == {"endpoint": "only"}
        assert last["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"zz\r\n"], ids=["end", "framing"])
async def test_an_answer_that_breaks_before_its_first_line_is_a_502(path: str, end: bytes) -> None:
    """Where no other endpoint can serve."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(line("Hello")[:20]) + end)

    async with scripted(script) as (app, _):
        status, _, told = await post(app.url + path)
    assert status == 502
    assert told["error"]["details"] == {"endpoint": "only"}


async def test_an_older_client_gets_lines_without_chunks() -> None:
    """HTTP/1.0: the connection's end is the answer's."""
    async with Fleet(NODES) as fleet:
        head, _, body = (await raw(fleet.url, version="1.0")).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        lines = [json.loads(each) for each in body.splitlines()]
        assert lines[-1] == {"model": MODEL, "response": "", "done": True}
        await fleet.check_clean()


async def test_an_endpoint_s_own_error_within_a_stream_is_told_in_its_words() -> None:
    """And what came before it as well."""

    async def script(writer: asyncio.StreamWriter) -> None:
        error = b'{"error": "the runner has died"}\n'
        writer.write(STREAM_HEAD + chunk(line("Hello")) + chunk(error) + b"0\r\n\r\n")

    async with scripted(script) as (app, _):
        answer = await raw(app.url)
    assert b'"response":"Hello"' in answer
    assert b'"message":"the runner has died"' in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, '{"error": "prompt is too long"}', "prompt is too long"),
        (500, '{"error": "the runner has died"}', "the runner has died"),
        (400, '{"error": {"message": "in another way"}}', "in another way"),
        (418, "no JSON", "the endpoint answered 418"),
    ],
)
async def test_an_endpoint_s_error_keeps_status_and_words(
    path: str, status: int, body: str, message: str
) -> None:
    """In the shape of this service."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(over(status, body))

    async with scripted(script) as (app, _):
        found, headers, answer = await post(app.url + path)
    assert found == status
    assert answer["error"]["message"] == message
    assert set(answer["error"]) == {"code", "message", "details"}
    assert headers["X-Olla-Endpoint"] == "only"
    assert headers["X-RateLimit-Limit"] == "10"


@pytest.mark.parametrize("text", ["{", "[]", '{"response": 1}', '{"error": "out of memory"}'])
async def test_what_is_no_answer_is_an_error(text: str) -> None:
    """Half a text, a text of something else, an error with the status of a success."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(over(200, text))

    async with scripted(script) as (app, _):
        status, _, answer = await post(app.url + "/chat")
    assert status == 502
    assert answer["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_ollama_offline_is_503(path: str) -> None:
    """When it is known, and when it is found out by this request."""
    async with Fleet(NODES) as fleet:
        await fleet.nodes["gpu-1"].refuse()
        for _ in range(2):
            status, headers, answer = await post(fleet.url + path)
            assert status == 503
            assert int(headers["Retry-After"]) >= 1
            assert "gpu-1" in answer["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_nobody_has_is_404(path: str) -> None:
    """And no stream has begun."""
    async with Fleet(NODES) as fleet:
        status, headers, answer = await post(fleet.url + path, {"message": "x", "model": "nope"})
        assert status == 404
        assert "ollama pull nope" in answer["error"]["message"]
        assert headers["X-Olla-Routing-Reason"] == "model_not_found"
        assert headers["X-RateLimit-Remaining"] == "9"


@pytest.mark.parametrize(("path", "fault"), [("/chat", "hang"), ("/chat/stream", "hang_mid")])
async def test_who_leaves_ends_the_work(path: str, fault: str) -> None:
    """The node's generation is given up at once, with nothing in the log."""
    async with Fleet(NODES) as fleet:
        await post(fleet.url + "/chat")
        fleet.nodes["gpu-1"].faults.set(fault, Fault(after=1))
        async with aiohttp.ClientSession() as client:
            asking = asyncio.ensure_future(client.post(fleet.url + path, json=MESSAGE))
            async with asyncio.timeout(10):
                while not fleet.app.downstream.in_flight():
                    await asyncio.sleep(0)
                if path == "/chat/stream":
                    await (await asking).content.readline()
            asking.cancel()
            if asking.done() and not asking.cancelled():
                asking.result().close()
        await fleet.settled()
        await fleet.check_clean()
    log = [json.loads(each) for each in fleet.log.getvalue().splitlines()]
    assert [each["failure"] for each in log if each.get("path") == path][-1] == "client_gone"


async def test_a_client_that_does_not_read_makes_the_endpoint_wait() -> None:
    """What is held for it is bounded."""
    stalled = asyncio.Event()
    piece = chunk(line("x" * 1000) * 60)

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(2000):  # 128 MB
            writer.write(piece)
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stalled.set()
                return

    async with (
        scripted(script) as (app, _),
        aiohttp.ClientSession(read_bufsize=1024) as client,
        client.post(app.url + "/chat/stream", json=MESSAGE) as response,
    ):
        async with asyncio.timeout(15):
            await stalled.wait()
        response.close()


@pytest.mark.parametrize("path", PATHS)
async def test_long_messages_give_their_room_back(path: str) -> None:
    """Both the service's and the exchange's; one for which there is none gets 503."""
    extra = "surfaces: {chat: {prefix: /svc}}\n"
    async with Fleet(NODES, extra) as fleet:
        budget = fleet.app.services.body_budget
        budget.resize(300_000, 300_000)
        url = f"{fleet.url}/svc{path}"
        async with aiohttp.ClientSession() as client:
            for size, expected in ((200_000, 200), (400_000, 503), (10, 200)):
                body = {"message": "x" * size, "model": MODEL}
                async with client.post(url, json=body) as response:
                    assert response.status == expected
                    await response.read()
                assert budget.taken == 0
        await fleet.check_clean()


async def test_the_path_may_be_another_s() -> None:
    """Below a prefix that makes it a path of Ollama's, the service answers, however it came in."""
    extra = "surfaces: {chat: {prefix: /api}}\n"
    async with Fleet(NODES, extra) as fleet:
        for _ in range(2):
            status, _, answer = await post(fleet.url + "/api/chat")
            assert status == 200
            assert set(answer) == {"user", "tier", "response"}
        assert (await post(fleet.url + "/chat"))[0] != 200


async def test_nothing_is_left_for_the_collector() -> None:
    """An exchange that a surface began is gone when it is over."""
    async with Fleet(NODES) as fleet:
        gc.collect()
        gc.disable()
        try:
            for path in PATHS:
                async with aiohttp.ClientSession() as client:
                    await (await client.post(fleet.url + path, json=MESSAGE)).read()
            await fleet.settled()
            left = [each for each in gc.get_objects() if isinstance(each, Exchange)]
        finally:
            gc.enable()
        assert not left


async def test_nothing_is_begun_while_draining() -> None:
    """503, and the connection is of no use any more."""
    async with Fleet(NODES) as fleet:
        fleet.app.downstream.draining = True
        status, headers, answer = await post(fleet.url + "/chat")
        assert status == 503
        assert answer["error"]["code"] == "draining"
        assert headers["Retry-After"] == "1"
