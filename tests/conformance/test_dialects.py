"""What every dialect keeps, so that the relay need not know which one it has."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Dialect, Ending, Operation, Summary
from olla.dialects.registry import DIALECTS
from olla.failures import FACTS, Failed, Failure, Kind

dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
kinds = pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.value)

_TEXT = 'a "text" of\nlines, with é, 模型 and \\ in it'
_UNKNOWING = {"olla"}
"""Dialects in which nothing is relayed."""


def test_a_dialect_is_found_by_its_name() -> None:
    """The registry's keys are the dialects' own names, and nobody can change it."""
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
    with pytest.raises(TypeError):
        DIALECTS["new"] = DIALECTS["olla"]  # type: ignore[index]


@dialects
@kinds
def test_every_failure_has_a_body(dialect: Dialect, kind: Kind) -> None:
    """It is one JSON object on one line, and carries the message."""
    body = dialect.error_body(Failure(kind, _TEXT, "gpu-1", 1.5, 500))
    assert b"\n" not in body
    error = json.loads(body)["error"]
    assert (error if isinstance(error, str) else error["message"]) == _TEXT


@dialects
def test_text_that_is_no_unicode_has_a_body_too(dialect: Dialect) -> None:
    """A message may quote what a client sent, whatever it was."""
    body = dialect.error_body(Failure(Kind.BAD_REQUEST, "bad \udcff name"))
    assert "bad ? name" in json.dumps(json.loads(body))


@dialects
@pytest.mark.parametrize("mid_record", [False, True])
def test_an_error_within_a_stream_is_whole(dialect: Dialect, mid_record: bool) -> None:
    """It ends the record before it where that was cut, and it ends itself."""
    failure = Failure(Kind.BODY_RESET, _TEXT)
    record = dialect.in_band_error(failure, mid_record=mid_record)
    assert record.endswith(b"\n")
    assert record.startswith(b"\n") or not mid_record
    data = [line for line in record.split(b"\n") if b"{" in line]
    assert len(data) == 1
    assert json.loads(data[0].removeprefix(b"data: ")) == json.loads(dialect.error_body(failure))


@dialects
@pytest.mark.parametrize("operation", Operation)
def test_its_own_error_is_read_as_an_error(dialect: Dialect, operation: Operation) -> None:
    """A router behind a router does not take the error of the first for an answer."""
    if dialect.name in _UNKNOWING:
        return
    record = dialect.in_band_error(Failure(Kind.BODY_RESET, "broke off"), mid_record=True)
    for before in (b"", b'{"done":false', b'data: {"choices":[]'):
        ending = dialect.summary(operation, True, before + record).ending
        must_end = dialect.summary(operation, True, b"").ending is Ending.INCOMPLETE
        assert ending is Ending.ERROR or not must_end


@dialects
@pytest.mark.parametrize("operation", Operation)
def test_an_answer_that_is_no_stream_is_over_when_it_is_over(
    dialect: Dialect, operation: Operation
) -> None:
    """Only streams have an end of their own; a body's end is that of its bytes."""
    for tail in (b"", b"{}", b'{"id":1}', b"[1,2]", b"text", b"\xff"):
        assert dialect.summary(operation, False, tail) == Summary(Ending.COMPLETE)


@dialects
@pytest.mark.parametrize(
    ("operation", "must_end"),
    [
        (Operation.CHAT, {"ollama", "openai"}),
        (Operation.GENERATE, {"ollama", "openai"}),
        (Operation.RESPONSES, {"openai"}),
        (Operation.MESSAGES, {"anthropic"}),
        (Operation.PULL, set()),
        (Operation.INFER, set()),
        (Operation.OTHER, set()),
        (Operation.LIST, set()),
    ],
)
def test_only_inference_must_end(
    dialect: Dialect, operation: Operation, must_end: set[str]
) -> None:
    """A stream without an end mark has failed exactly where the format promises one."""
    empty = dialect.summary(operation, True, b"").ending
    assert (empty is Ending.INCOMPLETE) == (dialect.name in must_end)


_words = st.sampled_from(
    [
        b"data: ",
        b"event: error",
        b"[DONE]",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\n",
        b"\r\n",
        b":",
        b",",
        b'"done"',
        b"true",
        b'"error"',
        b'"usage"',
        b'"choices"',
        b'"type"',
        b'"message_stop"',
        b'"eval_count"',
        b'"load_duration"',
        b"1" + b"0" * 400,
        b"null",
        b'"\\ud800"',
        b"\xff",
    ]
)
_tails = st.binary() | st.lists(_words, max_size=24).map(b"".join)
_record_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "prompt_tokens", "finish_reason", "type"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
_records = st.dictionaries(
    st.sampled_from(
        [
            "done",
            "error",
            "usage",
            "choices",
            "type",
            "response",
            "timings",
            "eval_count",
            "load_duration",
            "prompt_eval_count",
        ]
    ),
    _record_values,
)


@dialects
@given(st.sampled_from(list(Operation)), st.booleans(), _tails)
def test_no_tail_surprises_a_summary(
    dialect: Dialect, operation: Operation, streaming: bool, tail: bytes
) -> None:
    """Whatever an endpoint sends at the end, the relay gets an answer."""
    _check(dialect.summary(operation, streaming, tail))


@dialects
@given(st.sampled_from(list(Operation)), st.booleans(), st.lists(_records, max_size=4))
def test_no_record_surprises_a_summary(
    dialect: Dialect, operation: Operation, streaming: bool, records: list[dict[str, object]]
) -> None:
    """Well-formed records with nonsense in them are no different."""
    lines = [json.dumps(record).encode() for record in records]
    _check(dialect.summary(operation, streaming, b"\n".join(lines)))
    _check(dialect.summary(operation, streaming, b"".join(b"data: %b\n\n" % x for x in lines)))


def _check(summary: Summary) -> None:
    for count in (summary.prompt_tokens, summary.output_tokens, summary.load_seconds):
        assert count is None or 0 <= count < 2**63


@dialects
@given(st.sampled_from(list(Operation)), _tails)
def test_no_body_surprises_a_peek(dialect: Dialect, operation: Operation, body: bytes) -> None:
    """A request is understood, or refused as the client's fault."""
    try:
        found = dialect.peek(operation, body)
    except Failed as failed:
        status = failed.failure.status
    else:
        status = 400
        assert found.model != ""
    assert status == 400
