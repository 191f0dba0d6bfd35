"""Ollama's native dialect."""

import json

import pytest

from olla.dialects.dialect import Ending, Operation, Summary
from olla.dialects.ollama import Ollama
from olla.failures import Failed, Failure, Kind

OLLAMA = Ollama()
TOKEN = b'{"model":"m","response":"x","done":false}\n'
LAST = (
    b'{"model":"m","response":"","done":true,"done_reason":"stop","context":[1,2,3],'
    b'"total_duration":9,"load_duration":1500000000,"prompt_eval_count":26,"eval_count":290}\n'
)


@pytest.mark.parametrize(
    ("operation", "stream"),
    [
        (Operation.GENERATE, True),
        (Operation.CHAT, True),
        (Operation.PULL, True),
        (Operation.PUSH, True),
        (Operation.CREATE, True),
        (Operation.EMBED, False),
        (Operation.SHOW, False),
        (Operation.DELETE, False),
    ],
)
def test_what_streams_does_so_unless_told_otherwise(operation: Operation, stream: bool) -> None:
    """On native paths an absent flag is true, where there is something to stream."""
    found = OLLAMA.peek(operation, b'{"model":"m"}')
    assert (found.model, found.stream) == ("m", stream)
    assert not OLLAMA.peek(operation, b'{"model":"m","stream":false}').stream


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.SHOW, b'{"name":"m"}'),
        (Operation.PULL, b'{"name":"m"}'),
        (Operation.PUSH, b'{"name":"m"}'),
        (Operation.CREATE, b'{"name":"m"}'),
        (Operation.DELETE, b'{"name":"m"}'),
        (Operation.COPY, b'{"source":"m","destination":"n"}'),
        (Operation.OTHER, b'{"model":"m"}'),
    ],
)
def test_management_names_models_in_its_own_ways(operation: Operation, body: bytes) -> None:
    """The keys of older clients and of copies are understood."""
    assert OLLAMA.peek(operation, body).model == "m"


def test_inference_does_not_take_the_old_key() -> None:
    """`name` names no model for a chat."""
    with pytest.raises(Failed) as caught:
        OLLAMA.peek(Operation.CHAT, b'{"name":"m"}')
    assert caught.value.failure.kind is Kind.MODEL_MISSING
    assert caught.value.failure.message.startswith("model is required")


@pytest.mark.parametrize("operation", [Operation.GENERATE, Operation.CHAT])
@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (TOKEN + LAST, Ending.COMPLETE),
        (LAST.rstrip(), Ending.COMPLETE),
        (LAST + b"\n", Ending.COMPLETE),
        (b'{"done":true,"error":"ignored"}\n', Ending.COMPLETE),
        (TOKEN, Ending.INCOMPLETE),
        (TOKEN + LAST[:20], Ending.INCOMPLETE),
        (LAST + TOKEN, Ending.INCOMPLETE),
        (b'{"done":"true"}\n', Ending.INCOMPLETE),
        (b"", Ending.INCOMPLETE),
        (b"\n\n", Ending.INCOMPLETE),
        (b"garbage\n", Ending.INCOMPLETE),
        (TOKEN + b'{"error":"runner died"}\n', Ending.ERROR),
    ],
)
def test_a_stream_ends_with_done(operation: Operation, tail: bytes, ending: Ending) -> None:
    """A clean end of the bytes is not the answer's end; `done` is."""
    assert OLLAMA.summary(operation, True, tail).ending is ending


def test_counts_come_from_the_last_record() -> None:
    """Tokens in and out, and the seconds the load took."""
    expected = Summary(Ending.COMPLETE, 26, 290, 1.5, total_seconds=9e-9)
    assert OLLAMA.summary(Operation.CHAT, True, TOKEN * 3 + LAST) == expected
    assert OLLAMA.summary(Operation.CHAT, False, LAST) == expected
    embedded = b'{"embeddings":[[0.1]],"load_duration":1000,"prompt_eval_count":8}'
    assert OLLAMA.summary(Operation.EMBED, False, embedded) == Summary(
        Ending.COMPLETE, 8, None, 1e-6
    )


@pytest.mark.parametrize(
    "count", ["-1", "1.5", "true", '"7"', "null", "[]", "1" + "0" * 400, "9223372036854775808"]
)
def test_a_count_that_is_none_is_left_out(count: str) -> None:
    """Nonsense in a count neither fails the answer nor reaches the figures."""
    record = f'{{"done":true,"eval_count":{count},"load_duration":{count}}}\n'.encode()
    assert OLLAMA.summary(Operation.CHAT, True, record) == Summary(Ending.COMPLETE)


@pytest.mark.parametrize("operation", [Operation.PULL, Operation.PUSH, Operation.CREATE])
@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (b'{"status":"pulling"}\n{"status":"success"}\n', Ending.COMPLETE),
        (b'{"status":"pulling"}\n', Ending.COMPLETE),
        (b"", Ending.COMPLETE),
        (b'{"status":"pulling"}\n{"error":"no space"}\n', Ending.ERROR),
    ],
)
def test_progress_has_no_end_of_its_own(operation: Operation, tail: bytes, ending: Ending) -> None:
    """A pull is over when its stream is, unless the last line is an error."""
    assert OLLAMA.summary(operation, True, tail).ending is ending


def test_a_long_context_costs_nothing() -> None:
    """The last record may hold a context of many tokens; none of it is decoded."""
    context = json.dumps(list(range(100_000))).encode()
    record = b'{"done":true,"context":' + context + b',"eval_count":5}\n'
    assert OLLAMA.summary(Operation.GENERATE, True, record) == Summary(Ending.COMPLETE, None, 5)


def test_an_error_is_one_text() -> None:
    """Native clients show the text as it is."""
    failure = Failure(Kind.MODEL_NOT_FOUND, "model 'x' not found")
    assert OLLAMA.error_body(failure) == b'{"error":"model \'x\' not found"}'


def test_an_error_within_a_stream_is_one_line() -> None:
    """It ends a record that was cut, and puts no empty line after one that was not."""
    failure = Failure(Kind.BODY_RESET, "broke off")
    assert OLLAMA.in_band_error(failure, mid_record=False) == b'{"error":"broke off"}\n'
    assert OLLAMA.in_band_error(failure, mid_record=True) == b'\n{"error":"broke off"}\n'
