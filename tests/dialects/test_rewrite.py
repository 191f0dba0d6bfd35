"""Giving a body another model name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation
from olla.dialects.rewrite import replace_model
from olla.failures import Failed, Kind


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        (Operation.CHAT, b'{"model":"a","x":1}', b'{"model":"b","x":1}'),
        (Operation.CHAT, b'{"x":1.50, "model":"a"}', b'{"x":1.50,"model":"b"}'),
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
    """Numbers keep their digits, strings their escapes, keys their order."""
    assert replace_model(body, operation, "b") == expected


def test_text_cut_within_an_emoji_is_kept_as_servers_read_it() -> None:
    """Half a surrogate pair becomes the character that stands for it everywhere."""
    body = replace_model(b'{"model":"a","x":"\\ud83d"}', Operation.CHAT, "b")
    assert json.loads(body) == {"model": "b", "x": "\ufffd"}


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
