"""Which streams count as complete, and how tokens are estimated for streams without counts."""

import json

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, answer, post, split

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Build one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """Build one server-sent event, in its own chunk."""
    return chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def delta(text: str, finish: str | None = None) -> bytes:
    """Build an event of an OpenAI stream."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def chat(**more: object) -> bytes:
    """Build a streaming chat request."""
    return post(
        "/v1/chat/completions",
        json.dumps({"model": MODEL, "messages": [], "stream": True, **more}).encode(),
    )


async def test_a_stream_with_a_finish_reason_is_complete(make_router: MakeRouter) -> None:
    """Servers that send no `[DONE]` are not broken, and repeated streams do not open the
    breaker."""
    router = await make_router()
    router.endpoints[0].script = answer(SSE + delta("hello") + delta("", "stop") + LAST)
    for _ in range(6):
        _, body = split(await router.exchange(chat()))
        assert body.endswith(LAST)
        assert b"error" not in body
    assert router.fleet.observed == [("e0", None)] * 6


async def test_a_stream_without_a_finish_reason_is_broken(make_router: MakeRouter) -> None:
    """It has neither a finish reason nor `[DONE]`, so the client gets an in-band error."""
    router = await make_router()
    router.endpoints[0].script = answer(SSE + delta("hello"), LAST)
    _, body = split(await router.exchange(chat()))
    assert b'"code":"stream_incomplete"' in body
    assert not body.endswith(LAST)
    ((_, failure),) = router.fleet.observed
    assert failure is not None
    assert failure.kind is Kind.STREAM_INCOMPLETE


@pytest.mark.parametrize("tokens_max", [100, 200, 500])
async def test_an_estimate_does_not_exceed_max_tokens(
    make_router: MakeRouter, tokens_max: int
) -> None:
    """A stream with as many records as allowed tokens counts its records, not their bytes."""
    router = await make_router()
    tokens = b"".join(delta("a long word " * (3 if n % 2 else 1)) for n in range(tokens_max - 2))
    short = delta("x") + delta("y") + delta("", "length") + chunk(b"data: [DONE]\n\n")
    router.endpoints[0].script = answer(SSE + tokens + short + LAST)
    await router.exchange(chat(max_tokens=tokens_max))
    (record,) = router.records
    assert record.estimated
    assert record.output_tokens == tokens_max


async def test_extra_records_are_not_charged_beyond_max_tokens(
    make_router: MakeRouter,
) -> None:
    """Some servers split a token into several records; the caller is not charged for them."""
    router = await make_router()
    end = delta("", "length") + chunk(b"data: [DONE]\n\n")
    router.endpoints[0].script = answer(SSE + delta("x") * 50 + end + LAST)
    await router.exchange(chat(max_tokens=10))
    (record,) = router.records
    assert (record.estimated, record.output_tokens) == (True, 10)


async def test_the_input_of_a_streamed_message_is_counted(make_router: MakeRouter) -> None:
    """Anthropic's `message_start` has the prompt's tokens, long before the stream ends."""
    router = await make_router()
    usage = {"input_tokens": 2, "cache_read_input_tokens": 12_012, "output_tokens": 1}
    start = {"type": "message_start", "message": {"usage": usage, "content": []}}
    word = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word"}}
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 40}}
    stream = [start, *[word] * 40, end, {"type": "message_stop"}]
    router.endpoints[0].script = answer(SSE + b"".join(map(event, stream)) + LAST)
    body = {"model": MODEL, "messages": [], "max_tokens": 100, "stream": True}
    await router.exchange(post("/v1/messages", json.dumps(body).encode()))
    (record,) = router.records
    assert (record.prompt_tokens, record.output_tokens) == (12_014, 40)
    assert not record.estimated
