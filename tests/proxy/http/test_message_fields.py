"""Fields of a head that are forwarded or dropped."""

from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.message_fields import (
    _ORDINARY,
    BAD_VALUE,
    BEGINNINGS,
    ENDS_HERE,
    HOP_BY_HOP,
    LIMITS,
    TOKEN,
    Passed,
    dropped_fields,
    passed_fields,
    passed_trailers,
    reason_phrase,
)


def test_fields_named_in_connection_are_dropped() -> None:
    """In any case; `close` and `keep-alive` are not field names."""
    dropped = dropped_fields([b"close, X-Secret", b"keep-alive"], HOP_BY_HOP)
    assert dropped - HOP_BY_HOP == {b"x-secret"}
    assert dropped_fields([b"close"], HOP_BY_HOP) is HOP_BY_HOP


def passed(*lines: str, streams: bool = False) -> Passed:
    """Return what is forwarded of a response with these fields."""
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.lower().encode(), name.encode(), value.strip().encode()))
    return passed_fields(200, b"", headers, streams=streams)


START = b"HTTP/1.1 200 OK\r\nServer: olla\r\n"


def test_end_to_end_response_fields_keep_order_and_spelling() -> None:
    """Framing, hop-by-hop fields and `X-Olla-*` are dropped."""
    got = passed(
        *("X-B: 1", "Connection: x-a", "x-a: 2", "Content-Length: 3", "X-Olla-Endpoint: fake"),
        "X-B:",
    )
    assert got.fields == START + b"X-B: 1\r\nX-B: \r\n"
    assert got.unlimited is got.fields


def test_rate_limit_fields_can_be_omitted() -> None:
    """All of them, and no other field."""
    got = passed("X-RateLimit-Limit: 5", "X-B: 1", "RateLimit: x")
    assert got.fields == START + b"X-RateLimit-Limit: 5\r\nX-B: 1\r\nRateLimit: x\r\n"
    assert got.unlimited == START + b"X-B: 1\r\n"


def test_fields_that_depend_on_time_or_client_are_separate() -> None:
    """Heads are cached by their bytes, so these fields are written per response."""
    got = passed("Date: x", "Retry-After: 7", "WWW-Authenticate: Basic", "X-B: 1")
    assert got.fields == START + b"Date: x\r\nX-B: 1\r\n"
    assert (got.dated, got.retry_after) == (True, b"7")
    assert got.challenge == b"WWW-Authenticate: Basic\r\n"
    assert not got.plain
    assert passed("Date: x").plain
    assert not passed("X-B: 1").plain
    assert passed("Retry-After: 7", "Retry-After: 9").retry_after == b"7, 9"


def test_streams_disable_buffering_in_a_proxy_in_front() -> None:
    """Unless the endpoint sends the field itself."""
    assert passed("X-B: 1", streams=True).fields.endswith(b"X-Accel-Buffering: no\r\n")
    explicit = passed("X-Accel-Buffering: yes", streams=True)
    assert explicit.fields == START + b"X-Accel-Buffering: yes\r\n"


def test_the_fast_path_forwards_no_dropped_field() -> None:
    """Names that skip the check of prefixes match none of them."""
    for name in _ORDINARY:
        assert not name.startswith(BEGINNINGS)
        assert not name.startswith(LIMITS)
        assert name not in ENDS_HERE | HOP_BY_HOP


@given(st.binary(max_size=200))
def test_forwarded_trailers_are_valid_fields(raw: bytes) -> None:
    """For arbitrary bytes after the last chunk."""
    for line in passed_trailers(raw).split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        assert colon
        assert TOKEN.fullmatch(name)
        assert not BAD_VALUE.search(value)


def test_reason_phrases_are_the_standard_ones() -> None:
    """If the status has one."""
    assert reason_phrase(503) == "Service Unavailable"
    assert reason_phrase(299) == "Unknown"
    assert reason_phrase(499) == "Client Closed Request"
