"""Giving a body another model name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation
from olla.dialects.json_scan import finished
from olla.dialects.peek import scan_body
from olla.dialects.rewrite import Edit, edited, model_edit, num_ctx_edits, parts
from olla.failures import Failed, Kind


def replace_model(body: bytes, operation: Operation, model: str) -> bytes:
    """The body with another model: the same whether it was scanned before or not."""
    changed = edited(body, [model_edit(body, operation, model)])
    scanned = finished(scan_body(body))
    assert edited(body, [model_edit(body, operation, model, scanned)]) == changed
    return changed


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        (Operation.CHAT, b'{"model":"a","x":1}', b'{"model":"b","x":1}'),
        (Operation.CHAT, b'{"x":1.50, "model":"a"}', b'{"x":1.50, "model":"b"}'),
        (Operation.CHAT, b' { "model" : "a" , "x":1 } ', b' { "model" : "b" , "x":1 } '),
        (Operation.CHAT, b'{"x":[],"x":{},"model":"a"}', b'{"x":[],"x":{},"model":"b"}'),
        (Operation.TOKENIZE, b"{}", b'{"model":"b"}'),
        (Operation.TOKENIZE, b'{"content":"}"} ', b'{"content":"}","model":"b"} '),
        (Operation.CHAT, b'{"x":1e400,"model":"a"}', b'{"x":1e400,"model":"b"}'),
        (Operation.CHAT, b'{"x":"\\u00e9 \\/","model":"a"}', b'{"x":"\\u00e9 \\/","model":"b"}'),
        (Operation.CHAT, b'{"name":"n","model":"a"}', b'{"name":"n","model":"b"}'),
        (Operation.TOKENIZE, b'{"content":"x"}', b'{"content":"x","model":"b"}'),
        (Operation.SHOW, b'{"name":"a"}', b'{"name":"b"}'),
        (Operation.DELETE, b'{"model":"","name":"a"}', b'{"model":"","name":"b"}'),
        (Operation.DELETE, b'{"model":"a","name":"z"}', b'{"model":"b","name":"z"}'),
        (
            Operation.COPY,
            b'{"source":"a","destination":"c","model":"z"}',
            b'{"source":"b","destination":"c","model":"z"}',
        ),
    ],
)
def test_only_the_model_changes(operation: Operation, body: bytes, expected: bytes) -> None:
    """Every other byte stays: digits, escapes, white space, the order of keys."""
    assert replace_model(body, operation, "b") == expected


def test_text_cut_within_an_emoji_stays_as_it_is() -> None:
    """Half a surrogate pair reaches the endpoint byte for byte."""
    body = replace_model(b'{"x":"\\ud83d","model":"a"}', Operation.CHAT, "b")
    assert body == b'{"x":"\\ud83d","model":"b"}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"options":{"num_ctx":1,"x":[1.0]}}', b'{"options":{"num_ctx":9,"x":[1.0]}}'),
        (
            b'{"options" : {"x":"\\ud83d", "num_ctx":1 }}',
            b'{"options" : {"x":"\\ud83d", "num_ctx":9 }}',
        ),
        (b'{"options":{"num_ctx":1,"num_ctx":2}}', b'{"options":{"num_ctx":9,"num_ctx":9}}'),
        (
            b'{"options":{"num_ctx":1},"options":{"num_ctx":2}}',
            b'{"options":{"num_ctx":9},"options":{"num_ctx":9}}',
        ),
        (b'{"options":null,"num_ctx":1}', b'{"options":null,"num_ctx":1}'),
    ],
)
def test_every_context_among_the_options_changes(body: bytes, expected: bytes) -> None:
    """Whichever of several a server obeys; nothing else does."""
    assert edited(body, num_ctx_edits(body, 9)) == expected
    assert edited(body, num_ctx_edits(body, 9, finished(scan_body(body)))) == expected


def test_a_body_is_sent_in_parts_that_are_no_copies() -> None:
    """What stays is the client's own bytes; parts and whole say the same."""
    body = b"0123456789"
    edits = [Edit(7, 8, b"seven"), Edit(1, 3, b"")]
    pieces = parts(body, edits)
    assert b"".join(pieces) == edited(body, edits) == b"03456seven89"
    assert all(piece.obj is body for piece in pieces if isinstance(piece, memoryview))
    assert edited(body, []) is body


def test_any_name_can_be_put_in() -> None:
    """Quotes and other letters in a name do not break the body."""
    for name in ('a"b', "模型", "a\\b"):
        body = replace_model(b'{"model":"a"}', Operation.CHAT, name)
        assert json.loads(body) == {"model": name}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model":'])
def test_what_is_no_object_is_a_failure(body: bytes) -> None:
    """It fails as a body that cannot be used, not as a fault of the router."""
    with pytest.raises(Failed) as caught:
        replace_model(body, Operation.CHAT, "b")
    assert caught.value.failure.kind is Kind.BODY_NOT_JSON


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        max_size=5,
    ),
    st.text(),
    st.text(),
)
def test_everything_else_means_the_same(others: dict[str, object], before: str, after: str) -> None:
    """Decoded, the new body differs from the old in the model alone."""
    body = json.dumps({**others, "model": before or "x"}).encode()
    assert json.loads(replace_model(body, Operation.CHAT, after)) == {**others, "model": after}
