"""Single records of an answer."""

import json

import pytest

from olla.dialects.records import (
    encoded,
    error_text,
    in_band_event,
    json_object,
    last_line,
    sse_data,
    value,
    whole,
)


def test_lines_come_last_first() -> None:
    """Empty ones are passed over, and a last one need not be ended."""
    assert last_line(b"a\n\n b \r\n\nc") == b"c"
    assert last_line(b"a\n\n b \r\n\n") == b" b"
    assert last_line(b"\n \n") == b""


def test_events_are_their_data() -> None:
    """Names, comments and line ends are left out."""
    tail = b'event: x\r\ndata: {"a":1}\r\n\r\n: ping\n\ndata:[DONE]\n\nid: 1\n'
    assert sse_data(tail) == [b"[DONE]", b'{"a":1}']


def test_a_value_is_decoded_when_it_is_asked_for() -> None:
    """A missing one, and one that cannot be read, is None."""
    record = json_object(b'{"a":{"b":[1]},"deep":' + b"[" * 900 + b"]" * 900 + b',"c":null}')
    assert value(record, "a") == {"b": [1]}
    assert value(record, "c") is None
    assert value(record, "missing") is None
    assert value(None, "a") is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_no_object_is_none(data: bytes) -> None:
    """Garbage raises nothing."""
    assert json_object(data) is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 0), (7, 7), (-1, None), (True, None), (1.0, None), ("1", None), (2**63, None)],
)
def test_a_count_is_a_whole_number(count: object, expected: int | None) -> None:
    """Anything else is no count."""
    assert whole(count) == expected


def test_an_event_stands_apart() -> None:
    """It is separated from a cut line by an empty one, and ends with one."""
    assert in_band_event(b"data: x", mid_record=True) == b"\n\ndata: x\n\n"
    assert in_band_event(b"data: x", mid_record=False) == b"\ndata: x\n\n"


def test_any_text_can_be_encoded() -> None:
    """Bytes of a client that are no text are replaced, the rest stays."""
    record = {"error": {"message": "é \udcff", "param": None, "n": 1}}
    assert json.loads(encoded(record)) == {"error": {"message": "é ?", "param": None, "n": 1}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (b'"out of memory"', "out of memory"),
        (b'{"message": "out of memory", "code": 1}', "out of memory"),
        (b'{"message": 1e999}', "1e999"),
        (b"1e999", "1e999"),
        (b"7" * 5000, "7" * 300),
        (b'["a", 1]', '["a", 1]'),
        (b'{"code": 1}', None),
        (b"null", None),
        (b'""', None),
        (b'"\\ud800"', None),
        (b"\xff", None),
        (b'"%b"' % (b"x" * 70_000), None),
    ],
)
def test_the_text_of_an_error_can_be_read_from_any_json(error: bytes, expected: str | None) -> None:
    """Numbers that Python cannot hold or print are quoted as they are."""
    assert error_text(error, 300) == expected
