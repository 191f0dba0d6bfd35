"""Which streams are complete, and how the tokens of those without counts are estimated."""

import json

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, answer, post, split

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One server-sent event in a chunk of its own."""
    return chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def delta(text: str, finish: str | None = None) -> bytes:
    """An OpenAI stream's event."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def chat(**more: object) -> bytes:
    """A chat request that streams."""
    return post(
        "/v1/chat/completions",
        json.dumps({"model": MODEL, "messages": [], "stream": True, **more}).encode(),
    )


async def test_a_stream_that_ends_with_its_reason_is_complete(make_router: MakeRouter) -> None:
    """Servers that send no `[DONE]` are not broken, however many such streams there are."""
    router = await make_router()
    router.endpoints[0].script = answer(SSE + delta("hello") + delta("", "stop") + LAST)
    for _ in range(6):
        _, body = split(await router.exchange(chat()))
        assert body.endswith(LAST)
        assert b"error" not in body
    assert router.fleet.observed == [("e0", None)] * 6


async def test_a_clean_end_without_a_reason_is_broken(make_router: MakeRouter) -> None:
    """Neither a finish reason nor `[DONE]`: the client is told within the stream."""
    router = await make_router()
    router.endpoints[0].script = answer(SSE + delta("hello"), LAST)
    _, body = split(await router.exchange(chat()))
    assert b'"code":"stream_incomplete"' in body
    assert not body.endswith(LAST)
    ((_, failure),) = router.fleet.observed
    assert failure is not None
    assert failure.kind is Kind.STREAM_INCOMPLETE


@pytest.mark.parametrize("most", [100, 200, 500])
async def test_an_estimate_is_no_more_than_was_asked_for(
    make_router: MakeRouter, most: int
) -> None:
    """A stream of as many records as tokens were allowed is counted by its records, whatever the
    size of the last ones."""
    router = await make_router()
    tokens = b"".join(delta("a long word " * (3 if n % 2 else 1)) for n in range(most - 2))
    short = delta("x") + delta("y") + delta("", "length") + chunk(b"data: [DONE]\n\n")
    router.endpoints[0].script = answer(SSE + tokens + short + LAST)
    await router.exchange(chat(max_tokens=most))
    (record,) = router.records
    assert record.estimated
    assert record.output_tokens == most


async def test_more_records_than_tokens_cost_no_more_than_the_maximum(
    make_router: MakeRouter,
) -> None:
    """A server that splits tokens into several records does not charge its caller for them."""
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
