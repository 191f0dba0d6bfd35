"""A client of one dialect and an endpoint of another: translated on the way, both ways."""

import asyncio
import json
from typing import Any

import pytest

from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

CHUNKS = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    {"choices": [{"index": 0, "delta": {"content": "Hello"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
)
STREAM = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in CHUNKS] + [
    b"data: [DONE]\n\n"
]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = json.dumps(
    {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3},
    }
).encode()
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
MESSAGES = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def chunked(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unframed(response: bytes) -> tuple[bytes, bytes]:
    """Head and payload of a complete response."""
    head, rest = split(response)
    if b"Transfer-Encoding: chunked" not in head:
        return head, rest
    found = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert rest == b"\r\n"
            return head, found
        found, rest = found + rest[:length], rest[length + 2 :]


def body(**fields: Any) -> bytes:
    """A body as JSON."""
    return json.dumps(fields).encode()


def sent(router: Router) -> dict[str, Any]:
    """What the endpoint was sent."""
    (request,) = router.endpoints[0].requests
    head, _, data = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"anthropic-version" not in head
    found: dict[str, Any] = json.loads(data)
    return found


@pytest.mark.parametrize("whole", [True, False], ids=["one read", "a read a record"])
async def test_an_anthropic_stream_from_an_openai_server(
    make_router: MakeRouter, whole: bool
) -> None:
    """Named events in Anthropic's order, counts at the end, and the record has them too."""
    router = await make_router(profile="sglang")
    pieces = [SSE, *map(chunked, STREAM), b"0\r\n\r\n"]
    router.endpoints[0].script = answer(b"".join(pieces)) if whole else answer(*pieces)
    request = post("/v1/messages", body(**MESSAGES, stream=True), "anthropic-version: 2023-06-01")
    head, payload = unframed(await router.exchange(request))
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/event-stream" in head
    assert b"X-Olla-Mode: translated\r\n" in head
    events = [json.loads(line[6:]) for line in payload.splitlines() if line.startswith(b"data: ")]
    assert [each["type"] for each in events] == [
        *("message_start", "ping"),
        *("content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "content_block_start", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[0]["message"]["model"] == MODEL
    assert events[-2]["usage"]["output_tokens"] == 3
    assert sent(router)["stream_options"] == {"include_usage": True}
    (record,) = router.records
    assert (record.prompt_tokens, record.output_tokens, record.failure) == (12, 3, None)


@pytest.mark.parametrize("prefix", ["", "/olla/proxy", "/olla/anthropic"])
async def test_an_anthropic_answer_in_one_piece(make_router: MakeRouter, prefix: str) -> None:
    """A message."""
    router = await make_router(profile="sglang")
    router.endpoints[0].script = answer(JSON % (len(WHOLE), WHOLE))
    head, payload = unframed(await router.exchange(post(f"{prefix}/v1/messages", body(**MESSAGES))))
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    message = json.loads(payload)
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["usage"]["input_tokens"] == 12
    assert "stream" not in sent(router)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_ollama_chat_from_an_openai_server(make_router: MakeRouter, stream: bool) -> None:
    """Lines, or one object; what the server does not take is named in a header."""
    router = await make_router(profile="vllm")
    script = [SSE, *map(chunked, STREAM), b"0\r\n\r\n"] if stream else [JSON % (len(WHOLE), WHOLE)]
    router.endpoints[0].script = answer(*script)
    options = {"num_ctx": 4096, "top_k": 3}
    request = post("/api/chat", body(**CHAT, stream=stream, options=options))
    head, payload = unframed(await router.exchange(request))
    assert b"X-Olla-Translation: dropped options.num_ctx\r\n" in head
    lines = [json.loads(line) for line in payload.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Hello"
    assert (lines[-1]["done"], lines[-1]["eval_count"]) == (True, 3)
    assert lines[-1]["eval_duration"] > 0
    assert (b"application/x-ndjson" in head) == stream
    assert sent(router)["top_k"] == 3


async def test_generate_is_translated_too(make_router: MakeRouter) -> None:
    """To a chat with one message."""
    router = await make_router(profile="llamacpp")
    router.endpoints[0].script = answer(JSON % (len(WHOLE), WHOLE))
    request = post("/api/generate", body(model=MODEL, prompt="hi", stream=False))
    _, payload = unframed(await router.exchange(request))
    assert json.loads(payload)["response"] == "Hello"
    assert sent(router)["messages"] == [{"role": "user", "content": "hi"}]


async def test_a_server_that_speaks_the_dialect_is_passed_through(
    make_router: MakeRouter,
) -> None:
    """Byte for byte, as before."""
    router = await make_router(profile="llamacpp")
    router.endpoints[0].script = answer(JSON % (len(WHOLE), WHOLE))
    raw = post("/v1/messages", body(**MESSAGES))
    head, payload = unframed(await router.exchange(raw))
    assert payload == WHOLE
    assert b"X-Olla-Mode: passthrough\r\n" in head
    assert router.endpoints[0].requests[0].startswith(b"POST /v1/messages ")


async def test_a_stream_that_breaks_off_ends_with_an_error(make_router: MakeRouter) -> None:
    """In the client's dialect, and without an end."""
    router = await make_router(profile="sglang")
    router.endpoints[0].script = answer(SSE + chunked(STREAM[2]), b"0\r\n\r\n")
    request = post("/v1/messages", body(**MESSAGES, stream=True))
    raw = await router.exchange(request)
    assert b"event: error\n" in raw
    assert b"message_stop" not in raw
    assert not raw.endswith(b"0\r\n\r\n")
    (record,) = router.records
    assert record.failure is not None


async def test_a_connection_that_breaks_ends_with_an_error(make_router: MakeRouter) -> None:
    """As where nothing is translated."""
    router = await make_router(profile="sglang")
    router.endpoints[0].script = answer(SSE + chunked(STREAM[2]), close=True)
    raw = await router.exchange(post("/v1/messages", body(**MESSAGES, stream=True)))
    assert b"event: error\n" in raw
    assert not raw.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "said", "expected", "kind"),
    [
        (400, b'{"error":{"message":"too long","code":400}}', 400, "invalid_request_error"),
        (422, b'{"detail":"no"}', 400, "invalid_request_error"),
    ],
)
async def test_an_error_of_the_server_speaks_the_clients_dialect(
    make_router: MakeRouter, status: int, said: bytes, expected: int, kind: str
) -> None:
    """With its message."""
    router = await make_router(profile="sglang")
    head = b"HTTP/1.1 %d Bad\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    router.endpoints[0].script = answer(head % (status, len(said), said))
    head, payload = unframed(await router.exchange(post("/v1/messages", body(**MESSAGES))))
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    error = json.loads(payload)
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert b"x-should-retry: false" in head


async def test_a_request_that_cannot_be_translated_is_a_400(make_router: MakeRouter) -> None:
    """It names the field, and no endpoint is asked."""
    router = await make_router(profile="sglang")
    raw = post("/v1/messages", body(model=MODEL, messages=[]))
    head, payload = unframed(await router.exchange(raw))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "max_tokens" in json.loads(payload)["error"]["message"]
    assert router.endpoints[0].requests == []


async def test_broken_arguments_are_tried_elsewhere(make_router: MakeRouter) -> None:
    """Nothing has gone to the client."""
    router = await make_router(2, profile="sglang")
    bad = WHOLE.replace(
        b'"Hello"', b'"x","tool_calls":[{"id":"a","function":{"name":"f","arguments":"nope"}}]'
    )
    router.endpoints[0].script = answer(JSON % (len(bad), bad))
    router.endpoints[1].script = answer(JSON % (len(WHOLE), WHOLE))
    _, payload = unframed(await router.exchange(post("/v1/messages", body(**MESSAGES))))
    assert json.loads(payload)["content"][0]["text"] == "Hello"


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
async def test_loading_a_model_asks_no_other_server(
    make_router: MakeRouter, keep_alive: int | None, reason: str
) -> None:
    """It has its model loaded; the client gets Ollama's answer."""
    router = await make_router(profile="vllm")
    fields = {} if keep_alive is None else {"keep_alive": keep_alive}
    head, payload = unframed(await router.exchange(post("/api/chat", body(model=MODEL, **fields))))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(payload)["done_reason"] == reason
    assert router.endpoints[0].requests == []


async def test_an_endpoint_may_be_kept_to_its_own_dialects(make_router: MakeRouter) -> None:
    """`translation: off`: the model is there, but not by this path."""
    router = await make_router(profile="sglang", translates=False)
    head, _ = unframed(await router.exchange(post("/v1/messages", body(**MESSAGES))))
    assert head.startswith(b"HTTP/1.1 404 ")
    await asyncio.sleep(0)
