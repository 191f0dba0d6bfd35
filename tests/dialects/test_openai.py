"""The OpenAI dialect."""

import json

import pytest

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.openai import OpenAI
from olla.failures import Failed, Failure, Kind

OPENAI = OpenAI()


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def choice(finish: str | None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": finish}]}


TOKEN = event(choice(None))
FINISH = event(choice("stop"))
USAGE = event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
DONE = b"data: [DONE]\n\n"
ERROR = event({"error": {"message": "no"}})


def test_nothing_streams_unless_told() -> None:
    """On /v1 paths an absent flag is false."""
    assert OPENAI.peek(Operation.CHAT, b'{"model":"m"}') == Peek("m", False)
    assert OPENAI.peek(Operation.CHAT, b'{"model":"m","stream":true}') == Peek("m", True)


def test_servers_with_one_model_are_asked_without_naming_it() -> None:
    """llama.cpp's own paths take no model; the OpenAI API does."""
    for operation in (Operation.INFER, Operation.TOKENIZE):
        assert OPENAI.peek(operation, b'{"prompt":"x"}') == Peek(None, False)
        assert OPENAI.peek(operation, b'{"model":"m"}') == Peek("m", False)
    with pytest.raises(Failed) as caught:
        OPENAI.peek(Operation.CHAT, b'{"messages":[]}')
    assert caught.value.failure.kind is Kind.MODEL_MISSING


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.GENERATE])
@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (TOKEN + FINISH + DONE, Ending.COMPLETE),
        (FINISH + USAGE + DONE, Ending.COMPLETE),
        (FINISH + DONE + b": bye\n\n", Ending.COMPLETE),
        ((FINISH + DONE).replace(b"\n", b"\r\n"), Ending.COMPLETE),
        ((FINISH + DONE).replace(b"data: ", b"data:"), Ending.COMPLETE),
        (TOKEN + DONE, Ending.COMPLETE),
        (DONE, Ending.COMPLETE),
        (TOKEN + FINISH, Ending.COMPLETE),
        (TOKEN + FINISH + USAGE, Ending.COMPLETE),
        (FINISH + event({"choices": [{"delta": {"role": "a", "content": ""}}]}), Ending.COMPLETE),
        (TOKEN + FINISH + b"data: \n\n", Ending.COMPLETE),
        (FINISH + DONE + TOKEN, Ending.INCOMPLETE),
        (FINISH + TOKEN, Ending.INCOMPLETE),
        (FINISH + event({"choices": [{"text": "x"}]}), Ending.INCOMPLETE),
        (TOKEN + FINISH + USAGE[:-9], Ending.INCOMPLETE),
        (TOKEN + FINISH + ERROR, Ending.ERROR),
        (TOKEN + USAGE, Ending.INCOMPLETE),
        (TOKEN, Ending.INCOMPLETE),
        (TOKEN[:-9], Ending.INCOMPLETE),
        (b"", Ending.INCOMPLETE),
        (TOKEN + ERROR, Ending.ERROR),
        (TOKEN + ERROR + DONE, Ending.ERROR),
        (event({"choices": "x"}) + event({"choices": [1, None]}), Ending.INCOMPLETE),
    ],
)
def test_a_stream_ends_with_a_reason_or_done(
    operation: Operation, tail: bytes, ending: Ending
) -> None:
    """Several servers send no `[DONE]`: a finish reason that no output follows is an end too."""
    assert OPENAI.summary(operation, True, tail).ending is ending


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        ({"type": "response.completed"}, Ending.COMPLETE),
        ({"type": "response.incomplete"}, Ending.COMPLETE),
        ({"type": "response.failed"}, Ending.ERROR),
        ({"type": "error", "message": "no"}, Ending.ERROR),
        ({"type": "response.output_text.delta"}, Ending.INCOMPLETE),
        ({"type": ["response.completed"]}, Ending.INCOMPLETE),
    ],
)
def test_a_response_ends_with_an_event_that_says_so(
    last: dict[str, object], ending: Ending
) -> None:
    """/v1/responses has no [DONE], and takes no offence at one."""
    tail = event({"type": "response.output_text.delta", "delta": "x"}) + event(last)
    assert OPENAI.summary(Operation.RESPONSES, True, tail).ending is ending
    assert OPENAI.summary(Operation.RESPONSES, True, tail + DONE).ending is ending


@pytest.mark.parametrize("operation", [Operation.INFER, Operation.TRANSCRIBE, Operation.OTHER])
def test_streams_without_a_known_end_are_believed(operation: Operation) -> None:
    """What other servers' own paths stream is over when it is over."""
    assert OPENAI.summary(operation, True, event({"content": "x"})).ending is Ending.COMPLETE


def test_counts_come_from_usage() -> None:
    """In a stream's last chunks, in a body, and in a response's last event."""
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
    expected = Summary(Ending.COMPLETE, 11, 7)
    assert OPENAI.summary(Operation.CHAT, True, FINISH + USAGE + DONE) == expected
    assert OPENAI.summary(Operation.CHAT, False, body.encode()) == expected
    usage = {"input_tokens": 11, "output_tokens": 7}
    end = event({"type": "response.completed", "response": {"usage": usage}})
    assert OPENAI.summary(Operation.RESPONSES, True, end) == expected
    embedded = b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert OPENAI.summary(Operation.EMBED, False, embedded) == Summary(Ending.COMPLETE, 8)


def test_llama_cpp_counts_are_the_fallback() -> None:
    """`timings` counts where no usage was asked for."""
    finish = choice("stop") | {"timings": {"prompt_n": 5, "predicted_n": 9}}
    tail = event(finish) + DONE
    assert OPENAI.summary(Operation.CHAT, True, tail) == Summary(Ending.COMPLETE, 5, 9)
    assert OPENAI.summary(Operation.CHAT, True, event(finish) + USAGE + DONE) == Summary(
        Ending.COMPLETE, 11, 7
    )
    own = event({"content": "", "stop": True, "timings": {"prompt_n": 5, "predicted_n": 9}})
    assert OPENAI.summary(Operation.INFER, True, own) == Summary(Ending.COMPLETE, 5, 9)


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (Kind.BODY_NOT_JSON, "invalid_request_error"),
        (Kind.MODEL_NOT_FOUND, "not_found_error"),
        (Kind.FORBIDDEN, "permission_error"),
        (Kind.NO_ENDPOINT, "service_unavailable_error"),
        (Kind.BODY_RESET, "api_error"),
        (Kind.INTERNAL, "api_error"),
    ],
)
def test_an_error_has_type_and_code(kind: Kind, type_: str) -> None:
    """The type follows from the status as at other servers, the code is the kind of failure."""
    error = json.loads(OPENAI.error_body(Failure(kind, "text")))["error"]
    assert error["type"] == type_
    assert error["code"] == kind.value
    assert error["message"] == "text"
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("before", [b"", TOKEN, TOKEN[:-1], TOKEN[:-2], TOKEN[:-9], b"data: "])
def test_an_error_within_a_stream_is_an_event_of_its_own(before: bytes) -> None:
    """Wherever the stream was cut, the error does not run into what came before."""
    mid_record = bool(before) and not before.endswith(b"\n")
    error = OPENAI.in_band_error(Failure(Kind.BODY_RESET, "broke off"), mid_record=mid_record)
    events = [each for each in (before + error).split(b"\n\n") if each.strip()]
    name, _, data = events[-1].strip().partition(b": ")
    assert name == b"data"
    assert json.loads(data)["error"]["message"] == "broke off"
