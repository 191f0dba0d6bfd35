"""Finding the end of a body that is split anywhere."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.framing import Chunked, FramingError, Length, UntilClose, chunk

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
EXTENSIONS = st.sampled_from([b"", b";a=b", b" ;x", b'; name="v"'])
TRAILERS = st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"])


def decode(body: bytes) -> bytes:
    """Decode chunks independently, up to the last complete one."""
    payload = b""
    while body:
        line, found, rest = body.partition(b"\r\n")
        if not found:
            return payload
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return payload
        payload += rest[:size]
        body = rest[size + 2 :]
    return payload


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """Generate a chunked body: its chunks, trailers and payload."""
    pieces = draw(PIECES)
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(each), draw(EXTENSIONS), each) for each in pieces)
    return chunks, draw(TRAILERS), b"".join(pieces)


@given(body=bodies(), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_a_split_body_is_scanned_like_a_whole_one(
    body: tuple[bytes, bytes, bytes], cuts: list[int]
) -> None:
    """All chunks but the last are forwarded verbatim, and the end is found exactly."""
    chunks, trailers, expected = body
    wire = chunks + b"0\r\n" + trailers + b"\r\n"
    scanner, payload, passed = Chunked(), [], b""
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    for start, end in itertools.pairwise(places):
        assert not scanner.done
        passed += scanner.feed(wire[start:end], payload)
    assert scanner.done
    assert passed == chunks
    assert b"".join(payload) == expected
    assert scanner.trailers == trailers
    assert scanner.leftover == b""


@given(body=bodies())
def test_a_body_can_be_split_at_every_byte(body: tuple[bytes, bytes, bytes]) -> None:
    """Each split gives the same result."""
    chunks, trailers, expected = body
    wire = chunks + b"0\r\n" + trailers + b"\r\n"
    for cut in range(len(wire) + 1):
        scanner, payload = Chunked(), []
        passed = scanner.feed(wire[:cut], payload) + scanner.feed(wire[cut:], payload)
        assert (passed, b"".join(payload), scanner.done) == (chunks, expected, True)


@given(body=bodies(), cut=st.integers(0, 300), record=st.binary(min_size=1, max_size=60))
def test_a_record_can_be_injected_wherever_the_body_broke_off(
    body: tuple[bytes, bytes, bytes], cut: int, record: bytes
) -> None:
    """The forwarded and injected bytes decode to the payload so far and the record."""
    chunks = body[0]
    scanner, payload = Chunked(), []
    passed = scanner.feed(chunks[:cut], payload)
    assert decode(passed + (scanner.injected(record) or b"")) == b"".join(payload) + record


def test_bytes_after_the_end_are_left_over() -> None:
    """They belong to no response, so the connection is not reused."""
    scanner = Chunked()
    scanner.feed(b"1\r\na\r\n0\r\n\r\nHTTP/1.1", [])
    assert scanner.done
    assert scanner.leftover == b"HTTP/1.1"


@pytest.mark.parametrize(
    "bad",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1 1\r\na\r\n",
        b"1\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\rX",
        b"1\r\naX\n",
        b"ffffffffffffffff\r\n",
        b"1" * 5000,
        b"0\r\n" + b"A: b\r\n" * 20000,
    ],
)
def test_invalid_framing_raises_an_error_with_the_valid_bytes_before_it(bad: bytes) -> None:
    """For each split, the valid chunk before it is still forwarded."""
    good = chunk(b"good")
    for cut in {len(good), len(good) + 1, len(good) + len(bad) // 2}:
        scanner, payload = Chunked(), []
        passed = b""
        with pytest.raises(FramingError) as caught:  # noqa: PT012 - two feeds, one may raise
            passed += scanner.feed((good + bad)[:cut], payload)
            passed += scanner.feed((good + bad)[cut:], payload)
        passed += caught.value.passed
        assert passed.startswith(good)
        assert payload[0] == b"good"


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_no_other_exception(data: bytes) -> None:
    """A scanner may get any bytes."""
    scanner = Chunked()
    try:
        scanner.feed(data, [])
    except FramingError:
        return
    assert scanner.done or not scanner.eof()


def test_a_content_length_ends_the_body() -> None:
    """Further bytes are left over, and no record can be injected."""
    scanner, payload = Length(3), []
    assert scanner.feed(b"ab", payload) == b"ab"
    assert not scanner.eof()
    assert scanner.feed(b"cd", payload) == b"c"
    assert scanner.done
    assert scanner.leftover == b"d"
    assert b"".join(payload) == b"abc"
    assert scanner.injected(b"x") is None
    assert Length(0).done


def test_without_framing_the_body_ends_with_the_connection() -> None:
    """All bytes are payload."""
    scanner, payload = UntilClose(), []
    assert scanner.feed(b"ab", payload) == b"ab"
    assert not scanner.done
    assert scanner.injected(b"x") == b"x"
    assert scanner.eof()
    assert scanner.done
