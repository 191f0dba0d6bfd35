"""Invalid requests get an error in the dialect of their path, and log no error."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.routers import Fleet

MODEL = "llama3.2:latest"
NATIVE = "/api/chat"
OPENAI = "/v1/chat/completions"
ANTHROPIC = "/v1/messages"


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Run a router over one node."""
    async with Fleet({"only": (MODEL,)}) as running:
        yield running
        await running.check_clean()


async def ask(fleet: Fleet, raw: bytes) -> tuple[int, dict[str, str], object]:
    """Send raw bytes; return the status, header fields and JSON body of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":", 1)[1]))
    try:
        writer.write(raw)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(fields["content-length"]))
        return int(first.split()[1]), fields, json.loads(body)
    finally:
        writer.close()


def post(path: str, body: bytes, *fields: str) -> bytes:
    """Build a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def message_of(path: str, body: object) -> str:
    """Return the error message, after checking the body's shape for the path's dialect."""
    assert isinstance(body, dict)
    if path == NATIVE:
        assert set(body) == {"error"}
        assert isinstance(body["error"], str)
        return str(body["error"])
    error = body["error"]
    if path == OPENAI:
        assert set(error) == {"message", "type", "param", "code"}
    elif path == ANTHROPIC:
        assert body["type"] == "error"
        assert set(error) == {"type", "message"}
    else:
        assert set(error) == {"code", "message", "details"}
    return str(error["message"])


BODIES = {
    "empty": (b"", 400, "body"),
    "not JSON": (b"{", 400, "JSON"),
    "a list": (b"[1]", 400, "JSON"),
    "not UTF-8": (b'{"model": "\xff"}', 400, ""),
    "no model": (b"{}", 400, "model is required"),
    "null model": (b'{"model": null}', 400, "model is required"),
    "a number as model": (b'{"model": 5}', 400, "string"),
    "a control character": (b'{"model": "a\\r\\nX: y"}', 400, "control"),
    "two models": (b'{"model": "a", "model": "b"}', 400, '"model"'),
    "two models in two spellings": (b'{"model": "a", "Model": "b"}', 400, '"model"'),
    "two models, one escaped": (b'{"model": "a", "mod\\u0065l": "b"}', 400, '"model"'),
    "too deep": (b'{"model": "m", "x": ' + b"[" * 20000 + b"]" * 20000 + b"}", 400, ""),
    "unknown model": (b'{"model": "nope"}', 404, "ollama pull nope"),
}


@pytest.mark.parametrize("path", [NATIVE, OPENAI, ANTHROPIC])
@pytest.mark.parametrize(("body", "status", "hint"), BODIES.values(), ids=list(BODIES))
async def test_an_invalid_body_is_rejected_in_the_paths_dialect(
    fleet: Fleet, path: str, body: bytes, status: int, hint: str
) -> None:
    """The status and shape match the dialect, the message says what to do, and the headers
    discourage a retry."""
    got, fields, answer = await ask(fleet, post(path, body))
    assert got == status
    assert hint in message_of(path, answer)
    assert fields["x-should-retry"] == "false"
    assert fields["x-olla-request-id"]
    assert fields["x-olla-routing-decision"] == "rejected"
    assert not any(seen.target == path for seen in fleet.nodes["only"].seen)


@pytest.mark.parametrize("path", [NATIVE, OPENAI, ANTHROPIC])
async def test_a_body_over_the_limit_is_413(fleet: Fleet, path: str) -> None:
    """One byte over 100 MB is rejected by its Content-Length alone."""
    head = post(path, b"").replace(b"Content-Length: 0", b"Content-Length: 104857601")
    status, _, answer = await ask(fleet, head)
    assert status == 413
    assert "max_body_size" in message_of(path, answer)


@pytest.mark.parametrize("path", [NATIVE, OPENAI, ANTHROPIC, "/internal/status"])
@pytest.mark.parametrize("shape", ["one field", "many fields"])
async def test_a_head_over_the_limit_is_431(fleet: Fleet, path: str, shape: str) -> None:
    """Two megabytes of header fields, in one or in many, are rejected in the path's dialect."""
    if shape == "one field":
        extra = ["X-Long: " + "x" * 2_000_000]
    else:
        extra = [f"X-{number}: " + "x" * 2000 for number in range(1000)]
    status, _, answer = await ask(fleet, post(path, b"{}", *extra))
    assert status == 431
    assert "max_header_size" in message_of(path, answer)


@pytest.mark.parametrize("path", ["/nothing", "/olla/nothing/api/chat", "/internal/nothing"])
async def test_an_unknown_path_is_a_404_from_olla(fleet: Fleet, path: str) -> None:
    """The message lists the valid paths."""
    status, _, answer = await ask(fleet, post(path, b"{}"))
    assert status == 404
    assert "/olla/ollama/" in message_of(path, answer)


async def test_an_unknown_get_below_a_scope_is_answered_by_an_endpoint(fleet: Fleet) -> None:
    """A GET that only reads is forwarded, and the node's response is returned unchanged."""
    raw = b"GET /olla/ollama/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":", 1)[1]))
    writer.write(raw)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"404 page not found")
    assert b"X-Olla-Endpoint: only" in answer


async def test_a_wrong_method_is_405(fleet: Fleet) -> None:
    """The message names the right method."""
    status, fields, answer = await ask(fleet, b"GET /api/chat HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 405
    assert fields["allow"] == "POST"
    assert "POST" in message_of(NATIVE, answer)


@pytest.mark.parametrize(
    "raw",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n{}",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nBad Field: 1\r\n\r\n",
    ],
)
async def test_bytes_that_are_not_a_request_are_400(fleet: Fleet, raw: bytes) -> None:
    """They are rejected with a message."""
    status, _, answer = await ask(fleet, raw)
    assert status == 400
    assert isinstance(answer, dict)


@pytest.mark.parametrize("target", ["/api/../api/chat", "/api/%2e%2e/x", "/api/chat%00", "/api\\x"])
async def test_paths_with_traversal_are_rejected(fleet: Fleet, target: str) -> None:
    """Dot segments, NUL and backslashes never reach a node."""
    before = len(fleet.nodes["only"].seen)
    status, _, _ = await ask(fleet, post(target, b'{"model": "llama3.2"}'))
    assert status == 400
    assert not any(each.method == "POST" for each in list(fleet.nodes["only"].seen)[before:])


@pytest.mark.parametrize("path", [NATIVE, OPENAI, ANTHROPIC])
async def test_all_nodes_down_is_503_with_retry_after(fleet: Fleet, path: str) -> None:
    """The model is known, so it is unavailable rather than not found."""
    await fleet.nodes["only"].refuse()
    await fleet.app.prober.probed("only")
    status, fields, answer = await ask(fleet, post(path, b'{"model": "llama3.2"}'))
    assert status == 503
    assert "only: offline" in message_of(path, answer)
    assert 1 <= int(fields["retry-after"]) <= 30
    assert fields["x-olla-routing-reason"] == "model_unavailable"


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("X-Forwarded-For: 127.0.0.1",),
        ("X-Forwarded-For:",),
        ("X-Real-IP: 127.0.0.1", "Via: 1.1 nginx"),
        ("Origin: http://localhost:3000", "Sec-Fetch-Site: same-origin"),
    ],
)
async def test_management_is_rejected_without_the_right(
    fleet: Fleet, fields: tuple[str, ...]
) -> None:
    """A connection from the router's machine grants no rights: a local proxy connects from there
    too."""
    raw = post("/api/pull", b'{"model": "mistral"}', *fields)
    status, _, answer = await ask(fleet, raw)
    assert status == 403
    assert isinstance(answer, dict)
    assert "olla keys create --operation manage" in answer["error"]
    assert not any(seen.target == "/api/pull" for seen in fleet.nodes["only"].seen)


async def test_a_request_that_loops_back_is_rejected(fleet: Fleet) -> None:
    """A router listed among its own endpoints recognizes its requests and does not multiply
    them."""
    body = b'{"model": "llama3.2", "stream": false}'
    assert (await ask(fleet, post(NATIVE, body, "Via: 1.1 edge")))[0] == 200
    (sent,) = [
        value
        for seen in fleet.nodes["only"].seen
        for name, value in seen.headers
        if seen.target == NATIVE and name.lower() == "via"
    ]
    assert sent.startswith("1.1 edge, 1.1 olla-")
    status, _, answer = await ask(fleet, post(NATIVE, body, f"Via: {sent}"))
    assert status == 508
    assert "leads back" in message_of(NATIVE, answer)
