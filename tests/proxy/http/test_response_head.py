"""Strict parsing of an endpoint's response head."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.framing import Chunked, Length, UntilClose
from olla.proxy.http.response_head import BadHead, parse_head


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    """Return a raw head."""
    return "\r\n".join([status, *lines]).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "scanner"),
    [
        (("Content-Length: 5",), Length),
        (("content-length:5",), Length),
        (("Content-Length: 5", "Content-Length: 5"), Length),
        (("Content-Length: 5, 5",), Length),
        (("Transfer-Encoding: chunked",), Chunked),
        (("Transfer-Encoding: Chunked",), Chunked),
        ((), UntilClose),
    ],
)
def test_the_framing_follows_the_fields(lines: tuple[str, ...], scanner: type) -> None:
    """Content-Length, chunks, or the end of the connection."""
    assert isinstance(parse_head(head(*lines), "GET").scanner(), scanner)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"ICY 200 OK",
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5, 6"),
        head("Content-Length: -5"),
        head("Content-Length: +5"),
        head("Content-Length: 0x5"),
        head("Content-Length: "),
        head("Content-Length: 9999999999999999999"),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: identity"),
        head("No colon"),
        head(": no name"),
        head("Space : before"),
        head("Name: a", " folded"),
        head("Name: a\x00b"),
        head("Name: a\rb"),
        head("Name: a\nb"),
    ],
)
def test_invalid_and_ambiguous_heads_are_rejected(raw: bytes) -> None:
    """They are never interpreted."""
    with pytest.raises(BadHead):
        parse_head(raw, "GET")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 X")]
)
def test_some_responses_have_no_body(method: str, status: str) -> None:
    """Even with a Content-Length."""
    parsed = parse_head(head("Content-Length: 5", status=f"HTTP/1.1 {status}"), method)
    assert parsed.scanner().done
    assert parsed.keep_alive


@pytest.mark.parametrize(
    ("status", "lines", "open_"),
    [
        ("HTTP/1.1 200 OK", ("Content-Length: 0",), True),
        ("HTTP/1.1 200 OK", ("Content-Length: 0", "Connection: close"), False),
        ("HTTP/1.1 200 OK", ("Content-Length: 0", "Connection: x, Close"), False),
        ("HTTP/1.0 200 OK", ("Content-Length: 0",), False),
        ("HTTP/1.0 200 OK", ("Content-Length: 0", "Connection: keep-alive"), True),
        ("HTTP/1.1 200 OK", (), False),
    ],
)
def test_whether_the_connection_stays_open(
    status: str, lines: tuple[str, ...], open_: bool
) -> None:
    """By HTTP version and Connection field, and only if the framing marks the body's end."""
    assert parse_head(head(*lines, status=status), "GET").keep_alive is open_


def test_an_announced_keep_alive_is_read() -> None:
    """llama.cpp announces for how long it keeps an idle connection."""
    parsed = parse_head(head("Content-Length: 0", "Keep-Alive: timeout=5, max=100"), "GET")
    assert parsed.keep_alive_seconds == 5.0


def test_order_spelling_and_repetition_of_fields_are_kept() -> None:
    """The reason phrase may be missing."""
    parsed = parse_head(head("B: 1", "a: 2", "B:", status="HTTP/1.1 200"), "GET")
    assert parsed.headers == [(b"b", b"B", b"1"), (b"a", b"a", b"2"), (b"b", b"B", b"")]
    assert parsed.get(b"b") == b"1"
    assert parsed.reason == b""


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_bad_head(raw: bytes) -> None:
    """With and without a valid status line before them."""
    for data in (raw, b"HTTP/1.1 200 OK\r\n" + raw):
        with contextlib.suppress(BadHead):
            parse_head(data, "GET")
