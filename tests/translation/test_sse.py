"""Records of server-sent events are found however the stream is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.translation import sse
from olla.translation.sse import ServerEvent, SseReader, TooLong

STREAMS = {
    "as in the standard": (
        b"event: a\ndata: 1\n\ndata: 2\n\n",
        [ServerEvent(b"1", b"a"), ServerEvent(b"2")],
    ),
    "no blank after the colon": (b"data:{}\n\n", [ServerEvent(b"{}")]),
    "CRLF": (b"event: a\r\ndata: 1\r\n\r\n", [ServerEvent(b"1", b"a")]),
    "comments": (b": waiting\n\ndata: 1\n: still\n\n", [ServerEvent(b"1")]),
    "several data lines": (b"data: a\ndata: b\n\n", [ServerEvent(b"a\nb")]),
    "no blank line at the end": (b"data: 1\n\ndata: 2", [ServerEvent(b"1"), ServerEvent(b"2")]),
    "a name without data": (b"event: a\n\ndata: 1\n\n", [ServerEvent(b"1")]),
    "other fields": (b"id: 7\nretry: 1\ndata: 1\n\n", [ServerEvent(b"1")]),
    "empty": (b"", []),
}


def read(pieces: list[bytes]) -> list[ServerEvent]:
    """All records of a stream that comes in these pieces."""
    reader = SseReader()
    found = [event for piece in pieces for event in reader.feed(piece)]
    return found + reader.end()


@pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_at_every_cut(stream: bytes, expected: list[ServerEvent]) -> None:
    """In one piece, byte by byte, and in two pieces at every place."""
    assert read([stream]) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected
    for at in range(len(stream)):
        assert read([stream[:at], stream[at:]]) == expected


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_cuts_change_nothing(stream: bytes, cuts: list[int]) -> None:
    """Any bytes give the same records, however they are cut."""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert read(pieces) == read([stream])


def read_all(reader: SseReader, pieces: list[bytes]) -> None:
    """Feed all pieces."""
    for piece in pieces:
        reader.feed(piece)


@pytest.mark.parametrize("piece", [b"x" * 60, b"data: " + b"x" * 30 + b"\n"])
def test_a_record_is_bounded(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    """A line or a record without end is not held for ever."""
    monkeypatch.setattr(sse, "RECORD_MAX", 100)
    reader = SseReader()
    with pytest.raises(TooLong):
        read_all(reader, [piece] * 5)
