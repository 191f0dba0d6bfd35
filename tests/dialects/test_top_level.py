"""The top level of a JSON object."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.top_level import NotAnObject, top_level, without_surrogates


def test_values_keep_their_bytes() -> None:
    """What is not asked for is neither decoded nor changed."""
    fields = top_level(b'{"a": 1.50 ,"b":{"c":[1e400]},"d":"\\u00e9"}')
    assert {key: bytes(raw).strip() for key, raw in fields.items()} == {
        "a": b"1.50",
        "b": b'{"c":[1e400]}',
        "d": b'"\\u00e9"',
    }


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b'{"a":}', b'{"\xff":1}', b'{"\\ud"}'])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    """There is one error, and it says why."""
    with pytest.raises(NotAnObject, match=r"."):
        top_level(data)


@given(st.dictionaries(st.sampled_from("abc"), st.text(st.characters()), max_size=4))
def test_half_pairs_do_no_harm(value: dict[str, str]) -> None:
    """Whatever halves of surrogate pairs stand in an object, it is read, the rest unharmed."""
    fields = top_level(json.dumps({**value, "n": 1}).encode())
    assert set(fields) == {*value, "n"}
    assert bytes(fields["n"]) == b"1"


@given(st.text(st.characters()))
def test_what_stands_for_surrogates_is_as_long_and_no_ascii(text: str) -> None:
    """So places stay the same, and no key becomes another."""
    before = json.dumps(text).encode()
    after = without_surrogates(before)
    assert len(after) == len(before)
    plain = [letter for letter in text if letter.isascii()]
    assert [letter for letter in json.loads(after) if letter.isascii()] == plain


@given(st.binary())
def test_it_raises_nothing_else(data: bytes) -> None:
    """No bytes surprise it."""
    try:
        top_level(data)
    except NotAnObject:
        return
    assert isinstance(json.loads(data, strict=False), dict)
