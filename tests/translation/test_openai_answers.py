"""Answers in OpenAI's chat format are read as the servers write them."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.translation.answer import (
    ArgumentsDelta,
    Begin,
    CallBegin,
    CallEnd,
    End,
    Event,
    Failed,
    Finish,
    FinishReason,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from olla.translation.openai_answers import OpenAIStreamReader, OpenAIWholeReader, error_in


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """A record of a stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def call(index: int | None, id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """A delta with a fragment of a call."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": id, "function": function}]}


def counts(**usage: Any) -> bytes:
    """The record with counts that ends a stream."""
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
STOP = chunk(finish="stop")


def read(stream: bytes, cuts: list[int] | None = None) -> list[Event]:
    """All events of a stream, cut at these places."""
    reader = OpenAIStreamReader()
    edges = [0, *sorted(cuts or []), len(stream)]
    found = [event for a, b in pairwise(edges) for event in reader.feed(stream[a:b])]
    return found + reader.end()


FULL = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"reasoning": "hm"})
    + chunk({"content": "ok"})
    + chunk(call(0, "a", "f", ""))
    + chunk(call(0, None, None, '{"x":'))
    + chunk(call(0, None, None, "1}"))
    + chunk(finish="tool_calls")
    + counts(prompt_tokens=100, completion_tokens=7, prompt_tokens_details={"cached_tokens": 80})
    + DONE
)
EXPECTED = [
    Begin(),
    ThinkingDelta("hm"),
    TextDelta("ok"),
    CallBegin(0, "a", "f"),
    ArgumentsDelta(0, '{"x":'),
    ArgumentsDelta(0, "1}"),
    CallEnd(0, '{"x":1}'),
    Finish(FinishReason.CALLS),
    Usage(prompt_tokens=100, output_tokens=7, cached_tokens=80),
    End(),
]


def test_a_stream_is_read_at_every_cut() -> None:
    """Reasoning, text, a call in fragments, and counts after the finish."""
    assert read(FULL) == EXPECTED
    assert read(FULL, list(range(1, len(FULL)))) == EXPECTED
    for at in range(1, len(FULL), 7):
        assert read(FULL, [at]) == EXPECTED


@pytest.mark.parametrize("end", [b"", DONE])
def test_a_finish_reason_completes_a_stream(end: bytes) -> None:
    """Some servers send no [DONE]."""
    assert read(chunk({"content": "a"}) + STOP + end)[-1] == End()


@pytest.mark.parametrize("end", [b"", DONE])
def test_a_stream_without_a_finish_reason_has_failed(end: bytes) -> None:
    """Whatever its framing says."""
    assert isinstance(read(chunk({"content": "a"}) + end)[-1], Failed)


@pytest.mark.parametrize(
    "record",
    [
        b"data: nonsense\n\n",
        b'data: {"error":{"message":"boom","code":500}}\n\n',
        b'data: {"object":"error","message":"boom","code":500}\n\n',
        b'data: {"error":"boom"}\n\n',
        chunk(finish="abort"),
        chunk(finish="error"),
        b'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n',
    ],
    ids=["no JSON", "error", "error object", "error text", "abort", "error finish", "choice 1"],
)
def test_trouble_in_a_stream_is_an_error(record: bytes) -> None:
    """Never silence: what follows it is not read."""
    found = read(chunk({"content": "a"}) + record + STOP + DONE)
    assert isinstance(found[-1], Failed)
    assert not any(isinstance(each, Finish | End) for each in found)


def test_metadata_without_choices_is_no_error() -> None:
    """VLLM and others send records with counts in between."""
    assert read(counts(prompt_tokens=3) + STOP)[:2] == [Begin(3), Usage(prompt_tokens=3)]


@pytest.mark.parametrize(
    "fragments",
    [
        [call(0, "a", "f", '{"x":1}')],
        [call(0, "a", "f", {"x": 1})],
        [call(0, "a", "f", ""), call(0, "a", "f", '{"x":1}')],
        [call(None, "a", "f", '{"x"'), call(None, None, None, ":1}")],
        [call(0, None, None, '{"x"'), call(0, "a", "f", ":1}")],
    ],
    ids=["whole", "an object", "id and name twice", "no index", "arguments first"],
)
def test_fragments_of_a_call_are_put_together(fragments: list[dict[str, Any]]) -> None:
    """However the server cuts them."""
    found = read(b"".join(map(chunk, fragments)) + chunk(finish="tool_calls") + DONE)
    assert [each for each in found if isinstance(each, CallBegin)] == [CallBegin(0, "a", "f")]
    (end,) = [each for each in found if isinstance(each, CallEnd)]
    assert json.loads(end.arguments) == {"x": 1}
    pieces = [each.fragment for each in found if isinstance(each, ArgumentsDelta)]
    assert "".join(pieces) == end.arguments


def test_parallel_calls_stay_apart() -> None:
    """Their fragments may come by turns."""
    parts = [call(0, "a", "f", '{"x":'), call(1, "b", "g", ""), call(0, None, None, "1}")]
    found = read(b"".join(map(chunk, parts)) + chunk(finish="stop"))
    ends = [each for each in found if isinstance(each, CallEnd)]
    assert ends == [CallEnd(0, '{"x":1}'), CallEnd(1, "{}")]
    assert Finish(FinishReason.CALLS) in found


def test_a_call_that_the_limit_cut_off_has_no_end() -> None:
    """It is given up: half of its arguments would be another call."""
    found = read(chunk(call(0, "a", "f", '{"a":')) + chunk(finish="length") + DONE)
    assert not any(isinstance(each, CallEnd) for each in found)
    assert found[-2:] == [Finish(FinishReason.LENGTH), End()]


@pytest.mark.parametrize("arguments", ["nope", "[1]", '"x"', '{"a":'])
def test_broken_arguments_are_an_error(arguments: str) -> None:
    """Never an empty object: the client would run the tool with nothing."""
    found = read(chunk(call(0, "a", "f", arguments)) + chunk(finish="tool_calls") + DONE)
    assert isinstance(found[-1], Failed)
    assert not any(isinstance(each, CallEnd) for each in found)


def test_a_finish_for_calls_without_calls_is_a_stop() -> None:
    """As vLLM sends it at times."""
    assert Finish(FinishReason.STOP) in read(chunk(finish="tool_calls") + DONE)


def test_an_answer_in_one_piece_gives_the_same_events() -> None:
    """But for the pieces of the arguments."""
    message = {
        "role": "assistant",
        "content": "ok",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}],
    }
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7},
        "timings": {"prompt_ms": 20.0, "predicted_ms": 500, "cache_n": 80},
    }
    reader = OpenAIWholeReader()
    assert reader.feed(json.dumps(body).encode()) == []
    assert reader.end() == [
        Begin(100),
        ThinkingDelta("hm"),
        TextDelta("ok"),
        CallBegin(0, "a", "f"),
        ArgumentsDelta(0, '{"x":1}'),
        CallEnd(0, '{"x":1}'),
        Finish(FinishReason.CALLS),
        Usage(100, 7, cached_tokens=80, prompt_seconds=0.02, output_seconds=0.5),
        End(),
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"message":"m","code":400}}', ("m", 400)),
        (b'{"error":"m"}', ("m", 502)),
        (b'{"detail":"m"}', ("m", 502)),
        (b'{"object":"error","message":"m\\u001b[31m","code":422}', ("m [31m", 422)),
        (b'{"choices":[]}', None),
        (b"[]", None),
        (b"x", None),
    ],
)
def test_errors_are_found_in_every_form(body: bytes, expected: tuple[str, int] | None) -> None:
    """Without what could command a terminal."""
    assert error_in(body) == expected


@given(st.binary(max_size=300))
def test_garbage_raises_nothing(stream: bytes) -> None:
    """It ends in one failure."""
    found = read(b"data: " + stream)
    assert isinstance(found[-1], Failed)
    assert sum(isinstance(each, Failed) for each in found) == 1
