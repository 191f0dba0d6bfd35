"""Answers in Ollama's native format have what its clients divide by and look for."""

import json
from typing import Any

import msgspec
import pytest

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
    Logprobs,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from olla.translation.codec import Reply
from olla.translation.conversation import Conversation
from olla.translation.ollama_answers import OllamaStreamWriter, OllamaWholeWriter, loaded

REPLY = Reply("alias", "1", 1_795_168_800.0, Conversation("m", ()), 0, 100.0)
CALLS = (
    *(CallBegin(0, "a", "f"), CallBegin(1, "b", "g"), ArgumentsDelta(0, '{"x":')),
    *(ArgumentsDelta(1, "{}"), ArgumentsDelta(0, "1}"), CallEnd(0, '{"x":1}'), CallEnd(1, "{}")),
)


def lines(*events: Event, chat: bool = True, now: float = 102.0) -> list[dict[str, Any]]:
    """The records of a stream."""
    raw = OllamaStreamWriter(REPLY, chat=chat).write(events, now)
    return [json.loads(line) for line in raw.splitlines()]


def whole(*events: Event, chat: bool = True) -> dict[str, Any]:
    """The answer in one piece."""
    raw = OllamaWholeWriter(REPLY, chat=chat).write(events, 102.0)
    found: dict[str, Any] = json.loads(raw)
    return found


def test_calls_in_fragments_are_one_line_of_objects() -> None:
    """Before the last line, with their places counted over the whole answer."""
    found = lines(Begin(), *CALLS, Finish(FinishReason.CALLS), End())
    assert len(found) == 2
    assert found[0]["message"]["tool_calls"] == [
        {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "b", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert (found[0]["done"], found[1]["done"], found[1]["done_reason"]) == (False, True, "stop")


def test_counts_never_stand_beside_a_duration_of_zero() -> None:
    """Clients divide the one by the other."""
    events = (Begin(), TextDelta("a"), Finish(FinishReason.STOP), Usage(9, 3, 4), End())
    for last in (lines(*events)[-1], whole(*events)):
        assert (last["prompt_eval_count"], last["eval_count"]) == (9, 3)
        for name in ("total_duration", "prompt_eval_duration", "eval_duration"):
            assert isinstance(last[name], int)
            assert last[name] > 0
        assert "load_duration" not in last
        assert last["message"]["content"] in ("", "a")


def test_durations_of_the_server_are_used() -> None:
    """In nanoseconds."""
    usage = Usage(9, 3, prompt_seconds=0.5, output_seconds=0.25, load_seconds=2.0)
    last = lines(Begin(), TextDelta("a"), Finish(FinishReason.LENGTH), usage, End())[-1]
    assert last["prompt_eval_duration"] == 500_000_000
    assert last["eval_duration"] == 250_000_000
    assert last["load_duration"] == 2_000_000_000
    assert last["done_reason"] == "length"


def test_each_record_is_named_and_dated() -> None:
    """By the model that the client asked for."""
    (first, _) = lines(Begin(), ThinkingDelta("hm"), Finish(FinishReason.STOP), End())
    assert (first["model"], first["message"]["thinking"]) == ("alias", "hm")
    assert first["message"]["content"] == ""
    assert first["created_at"] == "2026-11-20T14:00:02.000000Z" or first["created_at"].endswith("Z")


def test_generate_has_a_response_in_place_of_a_message() -> None:
    """And thinking beside it."""
    events = (ThinkingDelta("hm"), TextDelta("a"), Finish(FinishReason.STOP), End())
    found = whole(Begin(), *events, chat=False)
    assert (found["response"], found["thinking"]) == ("a", "hm")
    assert "message" not in found
    assert lines(Begin(), *events, chat=False)[1]["response"] == "a"


def test_logprobs_stand_with_their_token() -> None:
    """In the same record."""
    probs = Logprobs(msgspec.Raw(b'[{"token":"a"}]'))
    (first, _) = lines(Begin(), TextDelta("a"), probs, Finish(FinishReason.STOP), End())
    assert first["logprobs"] == [{"token": "a"}]


def test_a_failure_in_a_stream_is_a_line() -> None:
    """Before its first record the status tells it."""
    assert lines(Begin(), TextDelta("a"), Failed("gone"))[-1] == {"error": "gone"}
    assert OllamaStreamWriter(REPLY).write([Begin(), Failed("gone")], 0.0) == b""


@pytest.mark.parametrize(("unloaded", "reason"), [(False, "load"), (True, "unload")])
def test_a_request_without_content_is_one_object(unloaded: bool, reason: str) -> None:
    """Also if a stream was asked for."""
    found = json.loads(loaded(REPLY, chat=True, unloaded=unloaded))
    assert (found["done"], found["done_reason"]) == (True, reason)
    assert found["message"] == {"role": "assistant", "content": ""}
