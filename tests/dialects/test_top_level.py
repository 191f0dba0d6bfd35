"""The top level of a JSON object."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.top_level import NotAnObject, top_level


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


@given(st.dictionaries(st.text(st.characters()), st.text(st.characters()), max_size=4))
def test_half_pairs_read_as_go_reads_them(value: dict[str, str]) -> None:
    """Whatever halves of surrogate pairs stand in an object, it is read, the rest unharmed."""

    def whole(text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    fields = top_level(json.dumps(value).encode())
    assert set(fields) == {whole(key) for key in value}
    for key, text in value.items():
        if whole(key) == key:
            assert json.loads(bytes(fields[key])) == whole(text)


@given(st.binary())
def test_it_raises_nothing_else(data: bytes) -> None:
    """No bytes surprise it."""
    try:
        top_level(data)
    except NotAnObject:
        return
    assert isinstance(json.loads(data, strict=False), dict)
