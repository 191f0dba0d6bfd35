"""The Anthropic dialect."""

import json

import pytest

from olla.dialects.anthropic import Anthropic
from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.failures import Failure, Kind

ANTHROPIC = Anthropic()


def event(name: str, **more: object) -> bytes:
    data = json.dumps({"type": name, **more}).encode()
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


TOKEN = event("content_block_delta", delta={"text": "x"})
DELTA = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15})
STOP = event("message_stop")


def test_nothing_streams_unless_told() -> None:
    """An absent flag is false."""
    assert ANTHROPIC.peek(Operation.MESSAGES, b'{"model":"m"}') == Peek("m", False)
    assert ANTHROPIC.peek(Operation.MESSAGES, b'{"model":"m","stream":true}') == Peek("m", True)


@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (TOKEN + DELTA + STOP, Ending.COMPLETE),
        (DELTA + STOP + event("ping"), Ending.COMPLETE),
        (DELTA, Ending.INCOMPLETE),
        (TOKEN + STOP[:-12], Ending.INCOMPLETE),
        (b"event: message_stop\n", Ending.INCOMPLETE),
        (b"", Ending.INCOMPLETE),
        (TOKEN + event("error", error={"type": "overloaded_error"}), Ending.ERROR),
    ],
)
def test_a_stream_ends_with_message_stop(tail: bytes, ending: Ending) -> None:
    """A clean end of the bytes is not the message's end."""
    assert ANTHROPIC.summary(Operation.MESSAGES, True, tail).ending is ending


def test_counts_come_from_usage() -> None:
    """From a message's body, or its last delta, which may tell of the input too."""
    body = b'{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}'
    assert ANTHROPIC.summary(Operation.MESSAGES, False, body) == Summary(Ending.COMPLETE, 3, 4)
    assert ANTHROPIC.summary(Operation.MESSAGES, True, DELTA + STOP) == Summary(
        Ending.COMPLETE, None, 15
    )
    both = event("message_delta", usage={"input_tokens": 3, "output_tokens": 4})
    assert ANTHROPIC.summary(Operation.MESSAGES, True, both + STOP) == Summary(
        Ending.COMPLETE, 3, 4
    )


def test_the_prompt_of_a_stream_is_counted_where_it_begins() -> None:
    """`message_start` has the input; a delta that counts it as well is the later word."""
    usage = {"input_tokens": 1, "cache_read_input_tokens": 1281, "output_tokens": 1}
    start = event("ping") + event("message_start", message={"usage": usage}) + TOKEN
    told = ANTHROPIC.summary(Operation.MESSAGES, True, DELTA + STOP, start)
    assert told == Summary(Ending.COMPLETE, 1282, 15)
    both = event("message_delta", usage={"input_tokens": 3, "output_tokens": 4})
    told = ANTHROPIC.summary(Operation.MESSAGES, True, both + STOP, start)
    assert told == Summary(Ending.COMPLETE, 3, 4)
    told = ANTHROPIC.summary(Operation.MESSAGES, True, DELTA + STOP, start[:60])
    assert told == Summary(Ending.COMPLETE, None, 15)


def test_cached_input_is_input() -> None:
    """A prompt that was read from a cache counts as in the other dialects."""
    usage = {"input_tokens": 1, "cache_read_input_tokens": 1281, "cache_creation_input_tokens": 8}
    body = json.dumps({"usage": {**usage, "output_tokens": 4}}).encode()
    assert ANTHROPIC.summary(Operation.MESSAGES, False, body) == Summary(Ending.COMPLETE, 1290, 4)


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (Kind.BODY_NOT_JSON, "invalid_request_error"),
        (Kind.MODEL_NOT_FOUND, "not_found_error"),
        (Kind.NO_ENDPOINT, "overloaded_error"),
        (Kind.BODY_TOO_LARGE, "request_too_large"),
        (Kind.FIRST_BYTE_TIMEOUT, "timeout_error"),
        (Kind.RESET, "api_error"),
    ],
)
def test_an_error_has_a_type(kind: Kind, type_: str) -> None:
    """The type follows from the status, as the SDK maps it."""
    body = json.loads(ANTHROPIC.error_body(Failure(kind, "text")))
    assert body == {"type": "error", "error": {"type": type_, "message": "text"}}


def test_an_error_within_a_stream_is_an_error_event() -> None:
    """Clients tell events by their name."""
    record = ANTHROPIC.in_band_error(Failure(Kind.BODY_RESET, "broke off"), mid_record=False)
    name, data = record.strip().split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "broke off"
