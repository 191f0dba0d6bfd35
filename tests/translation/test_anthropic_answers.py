"""Answers in Anthropic's format keep the rules that its clients rely on."""

import json
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
from olla.translation.anthropic_answers import AnthropicStreamWriter, AnthropicWholeWriter
from olla.translation.codec import Reply
from olla.translation.conversation import Conversation, Reasoning


def reply(**fields: Any) -> Reply:
    """What an answer is named by."""
    return Reply("alias", "1", 0.0, Conversation("m", (), **fields), 50)


def streamed(*events: Event, **fields: Any) -> list[dict[str, Any]]:
    """The data of all events of a stream, whose names have to agree with it."""
    raw = AnthropicStreamWriter(reply(**fields)).write(events, 0.0)
    found = []
    for record in raw.decode().split("\n\n")[:-1]:
        name, data = record.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def whole(*events: Event, **fields: Any) -> dict[str, Any]:
    """The message."""
    found: dict[str, Any] = json.loads(AnthropicWholeWriter(reply(**fields)).write(events, 0.0))
    return found


def blocks(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Type and content of the blocks of a stream. One is open at a time, in order."""
    done: list[tuple[str, str]] = []
    kind: str | None = None
    content = ""
    for event in found:
        match event["type"]:
            case "content_block_start":
                assert kind is None
                assert event["index"] == len(done)
                kind, content = event["content_block"]["type"], ""
            case "content_block_delta":
                assert kind is not None
                assert event["index"] == len(done)
                delta = event["delta"]
                field = {
                    "text_delta": ("text", "text"),
                    "thinking_delta": ("thinking", "thinking"),
                    "signature_delta": ("signature", "thinking"),
                    "input_json_delta": ("partial_json", "tool_use"),
                }[delta["type"]]
                assert kind == field[1]
                content += delta[field[0]]
            case "content_block_stop":
                assert kind is not None
                assert event["index"] == len(done)
                done.append((kind, content))
                kind = None
    assert kind is None
    return done


CALL = (CallBegin(0, "a", "f"), ArgumentsDelta(0, '{"x":'), ArgumentsDelta(0, "1}"))
CALL_END = CallEnd(0, '{"x":1}')
CALLS = Finish(FinishReason.CALLS)


def test_reasoning_text_and_call_are_blocks_in_order() -> None:
    """Each starts and stops; reasoning ends with a signature."""
    events = (Begin(), ThinkingDelta("hm"), TextDelta("ok"), *CALL, CALL_END, CALLS, End())
    found = streamed(*events)
    assert blocks(found) == [("thinking", "hm"), ("text", "ok"), ("tool_use", '{"x":1}')]
    assert [each["type"] for each in found[:2]] == ["message_start", "ping"]
    assert any(each.get("delta", {}).get("type") == "signature_delta" for each in found)
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-1]["type"] == "message_stop"
    message = whole(*events)
    assert [each["type"] for each in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["input"] == {"x": 1}
    assert message["stop_reason"] == "tool_use"


def test_cached_tokens_are_counted_apart() -> None:
    """OpenAI's format counts them within the prompt."""
    usage = Usage(prompt_tokens=100, cached_tokens=80, output_tokens=7)
    found = streamed(Begin(), TextDelta("a"), Finish(FinishReason.STOP), usage, End())
    expected = {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 80,
        "output_tokens": 7,
    }
    assert found[-2]["usage"] == expected
    start = found[0]["message"]
    assert (start["id"], start["model"]) == ("msg_1", "alias")
    assert start["usage"]["input_tokens"] == 50  # estimated, until the server counts
    assert whole(Begin(), Finish(FinishReason.STOP), usage, End())["usage"] == expected


def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    """Without `message_stop`: what came is not all."""
    found = streamed(Begin(), TextDelta("a"), Failed("gone", 502))
    assert found[-1]["error"] == {"type": "api_error", "message": "gone"}
    assert not any(each["type"] == "message_stop" for each in found)


def test_before_its_first_record_a_failure_writes_nothing() -> None:
    """The answer still gets its status."""
    assert AnthropicStreamWriter(reply()).write([Failed("gone", 503)], 0.0) == b""
    assert AnthropicWholeWriter(reply()).write([Begin(), Failed("gone", 503)], 0.0) == b""


def test_a_call_that_the_limit_cut_off() -> None:
    """Its block is closed in a stream; a whole answer does not contain it."""
    events = (Begin(), *CALL[:2], Finish(FinishReason.LENGTH), End())
    found = streamed(*events)
    assert blocks(found) == [("tool_use", '{"x":')]
    assert found[-2]["delta"]["stop_reason"] == "max_tokens"
    message = whole(*events)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")


def test_parallel_calls_come_one_after_the_other() -> None:
    """The first streams, the others follow whole, and text waits for them."""
    found = streamed(
        *(Begin(), CallBegin(0, "a", "f"), ArgumentsDelta(0, "{"), CallBegin(1, "b", "g")),
        *(ArgumentsDelta(1, '{"y":2}'), TextDelta("\n"), ArgumentsDelta(0, "}"), TextDelta("so")),
        *(CallEnd(0, "{}"), CallEnd(1, '{"y":2}'), CALLS, End()),
    )
    assert blocks(found) == [("tool_use", "{}"), ("tool_use", '{"y":2}'), ("text", "\nso")]


def test_one_call_at_a_time_if_the_client_says_so() -> None:
    """Not every server obeys."""
    second = (CallBegin(1, "b", "g"), CallEnd(1, "{}"))
    events = (Begin(), *CALL, *second, CALL_END, CALLS, End())
    assert len(blocks(streamed(*events, parallel_calls=False))) == 1
    assert len(whole(*events, parallel_calls=False)["content"]) == 1


@pytest.mark.parametrize("reasoning", [Reasoning(hidden=True), Reasoning(enabled=False)])
def test_reasoning_that_is_switched_off_is_withheld(reasoning: Reasoning) -> None:
    """Some models think all the same."""
    events = (Begin(), ThinkingDelta("hm"), TextDelta("a"), Finish(FinishReason.STOP), End())
    assert blocks(streamed(*events, reasoning=reasoning)) == [("text", "a")]
    assert len(whole(*events, reasoning=reasoning)["content"]) == 1


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish(FinishReason.STOP), "end_turn", None),
        (Finish(FinishReason.STOP, "END"), "stop_sequence", "END"),
        (Finish(FinishReason.LENGTH), "max_tokens", None),
        (Finish(FinishReason.FILTERED), "refusal", None),
    ],
)
def test_why_an_answer_ends(finish: Finish, reason: str, sequence: str | None) -> None:
    """In Anthropic's words."""
    message = whole(Begin(), TextDelta("a"), finish, End())
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


DELTAS = st.one_of(
    st.builds(TextDelta, st.sampled_from(["a", " ", "b\n"])),
    st.builds(ThinkingDelta, st.sampled_from(["x", "y"])),
    st.integers(0, 3),  # a fragment of a call
)


@given(st.lists(DELTAS, max_size=20), st.sampled_from(["calls", "length"]))
def test_no_two_blocks_overlap(deltas: list[TextDelta | ThinkingDelta | int], end: str) -> None:
    """For any interleaving: complete calls and visible text are all there."""
    begun: list[int] = []
    events: list[Event] = [Begin()]
    for delta in deltas:
        if isinstance(delta, int):
            if delta not in begun:
                begun.append(delta)
                events.append(CallBegin(begun.index(delta), f"c{delta}", "f"))
            events.append(ArgumentsDelta(begun.index(delta), " "))
        else:
            events.append(delta)
    complete = begun if end == "calls" else begun[:-1]
    events += [CallEnd(number, "{}") for number in range(len(complete))]
    events += [Finish(FinishReason.CALLS if end == "calls" else FinishReason.LENGTH), End()]
    found = blocks(streamed(*events))
    text = "".join(each.text for each in deltas if isinstance(each, TextDelta)).split()
    assert "".join(content for kind, content in found if kind == "text").split() == text or text
    calls = [content for kind, content in found if kind == "tool_use"]
    assert len(calls) >= len(complete)
