"""Which fields pass, and which end here."""

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


def test_what_connection_names_ends_here_too() -> None:
    """In any case, but for the words that are no field."""
    dropped = dropped_fields([b"close, X-Secret", b"keep-alive"], HOP_BY_HOP)
    assert dropped - HOP_BY_HOP == {b"x-secret"}
    assert dropped_fields([b"close"], HOP_BY_HOP) is HOP_BY_HOP


def passed(*lines: str, streams: bool = False) -> Passed:
    """What a client gets of an answer with these fields."""
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.lower().encode(), name.encode(), value.strip().encode()))
    return passed_fields(200, b"", headers, streams=streams)


START = b"HTTP/1.1 200 OK\r\nServer: olla\r\n"


def test_an_answers_end_to_end_fields_pass_in_order_and_spelling() -> None:
    """Without framing, hop-by-hop fields and what looks like olla's own."""
    got = passed(
        *("X-B: 1", "Connection: x-a", "x-a: 2", "Content-Length: 3", "X-Olla-Endpoint: fake"),
        "X-B:",
    )
    assert got.fields == START + b"X-B: 1\r\nX-B: \r\n"
    assert got.unlimited is got.fields


def test_an_endpoints_limits_can_be_left_out() -> None:
    """All of them, and nothing else."""
    got = passed("X-RateLimit-Limit: 5", "X-B: 1", "RateLimit: x")
    assert got.fields == START + b"X-RateLimit-Limit: 5\r\nX-B: 1\r\nRateLimit: x\r\n"
    assert got.unlimited == START + b"X-B: 1\r\n"


def test_what_depends_on_the_moment_or_the_client_is_kept_apart() -> None:
    """Heads are remembered by their bytes, so it cannot be written once for all."""
    got = passed("Date: x", "Retry-After: 7", "WWW-Authenticate: Basic", "X-B: 1")
    assert got.fields == START + b"Date: x\r\nX-B: 1\r\n"
    assert (got.dated, got.retry_after) == (True, b"7")
    assert got.challenge == b"WWW-Authenticate: Basic\r\n"
    assert not got.plain
    assert passed("Date: x").plain
    assert not passed("X-B: 1").plain
    assert passed("Retry-After: 7", "Retry-After: 9").retry_after == b"7, 9"


def test_a_stream_is_not_to_be_gathered_by_a_proxy_in_front() -> None:
    """Unless the endpoint says something of that."""
    assert passed("X-B: 1", streams=True).fields.endswith(b"X-Accel-Buffering: no\r\n")
    own = passed("X-Accel-Buffering: yes", streams=True)
    assert own.fields == START + b"X-Accel-Buffering: yes\r\n"


def test_no_name_that_ends_here_hides_behind_a_quick_look() -> None:
    """What is passed without looking at how it begins has none of the beginnings."""
    for name in _ORDINARY:
        assert not name.startswith(BEGINNINGS)
        assert not name.startswith(LIMITS)
        assert name not in ENDS_HERE | HOP_BY_HOP


@given(st.binary(max_size=200))
def test_trailers_are_fields_or_nothing(raw: bytes) -> None:
    """Whatever bytes an endpoint sends after its last chunk."""
    for line in passed_trailers(raw).split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        assert colon
        assert TOKEN.fullmatch(name)
        assert not BAD_VALUE.search(value)


def test_phrases_are_the_standard_ones() -> None:
    """Where there is one."""
    assert reason_phrase(503) == "Service Unavailable"
    assert reason_phrase(299) == "Unknown"
    assert reason_phrase(499) == "Client Closed Request"
